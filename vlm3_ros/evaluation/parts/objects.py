# SPDX-License-Identifier: Apache-2.0
"""Answers about objects of views."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from typing_extensions import override

from vlm3_ros.evaluation.answer_counts import AnswerCounts
from vlm3_ros.evaluation.parts.base import Part, Picture
from vlm3_ros.evaluation.pictures.object import ObjectFrame, draw_object_frames
from vlm3_ros.evaluation.scores.base import Scores, TaskScores
from vlm3_ros.evaluation.scores.objects import ObjectScores
from vlm3_ros.tasks.objects import OBJECTS


@dataclass(frozen=True)
class ObjectsPart(Part):
    """Relations, lengths and directions of objects.

    Attributes:
        objects: their scores.
        headline: of the picture, after the model's name.
        frames: returns the views to draw.
        remarks: what a reader must know, by title.
    """

    tasks = (OBJECTS,)

    objects: TaskScores[ObjectScores]
    headline: str
    frames: Callable[[], list[ObjectFrame]] = field(repr=False)
    remarks: Mapping[str, str] = field(default_factory=dict)

    @override
    def scores(self) -> dict[str, TaskScores[Scores]]:
        return {OBJECTS.name: self.objects}

    @override
    def answers(self) -> dict[str, AnswerCounts]:
        return {OBJECTS.name: self.objects.overall.answers}

    @override
    def notes(self) -> dict[str, str]:
        return dict(self.remarks)

    @override
    def pictures(self, model: str) -> list[Picture]:
        return [
            Picture(
                "objects.png",
                "Objects: the best, the median and the worst view",
                lambda path: draw_object_frames(self.frames(), path, f"{model}: {self.headline}"),
            )
        ]
