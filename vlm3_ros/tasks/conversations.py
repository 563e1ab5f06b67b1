# SPDX-License-Identifier: Apache-2.0
"""Questions about objects in the words of a data set, which names them as `Region [n]`.

The same task as `tasks.objects`, for checkpoints that answer free questions about boxes. The words
stay; only the names of the regions become those of the checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from vlm3_ros.engines.base import Answer
from vlm3_ros.geometry.text_coordinates import text_box
from vlm3_ros.language.answers import AnswerError
from vlm3_ros.language.regions import mentioned_regions, parse_choice, with_boxes, with_names
from vlm3_ros.language.wordings.objects import ObjectsWording, holds_length
from vlm3_ros.tasks.objects import (
    Box,
    ObjectAnswers,
    Quantity,
    Question,
    Value,
    length_scale,
    object_value,
)
from vlm3_ros.tasks.reading import Missing, answer_text, read_answer
from vlm3_ros.tasks.task import ModelViews, Prompt, Task

SAME_SCALE = 0.05
"""Largest relative difference of focal lengths at which the lengths in a conversation hold as they
are. Image sizes are rounded to whole patches, which costs less than this."""


@dataclass(frozen=True)
class RegionQuestion:
    """A question about regions of an image.

    Attributes:
        text: names the regions as `Region [0]` and so on.
        boxes: of these regions.
        category: the data set's name for what is asked; "" if it gives none.
        meaning: what is asked, if it is known; it says how the answer is read.
        is_choice: whether the answer names the one region of which the relation `meaning` holds:
            its value is True for the first.
    """

    text: str
    boxes: tuple[Box, ...]
    category: str = ""
    meaning: Question | None = None
    is_choice: bool = False


class ConversationsTask(
    Task[ObjectsWording, Sequence[RegionQuestion], Sequence[str], ObjectAnswers]
):
    """Questions about regions of one image. The truth is the answer in the data set's words.

    `read` needs the meaning of all questions.
    """

    wording = ObjectsWording
    title = "about objects"

    @override
    def prompts(
        self, wording: ObjectsWording, views: ModelViews, asked: Sequence[RegionQuestion]
    ) -> list[Prompt]:
        return [Prompt(_worded(wording, views, one, one.text)) for one in asked]

    @override
    def read(
        self,
        wording: ObjectsWording,
        views: ModelViews,
        asked: Sequence[RegionQuestion],
        answers: Sequence[Answer],
    ) -> ObjectAnswers:
        meanings = tuple(one.meaning for one in asked if one.meaning is not None)
        assert len(meanings) == len(asked)
        values = [
            read_answer(answer, partial(_value, one, wording, views))
            for one, answer in zip(asked, answers, strict=True)
        ]
        return ObjectAnswers(
            meanings,
            tuple(np.nan if isinstance(value, Missing) else value for value in values),
            np.full(len(asked), np.nan),
            tuple(map(answer_text, answers)),
            tuple(value if isinstance(value, Missing) else None for value in values),
        )

    @override
    def true_answers(
        self,
        wording: ObjectsWording,
        views: ModelViews,
        asked: Sequence[RegionQuestion],
        truth: Sequence[str],
    ) -> Sequence[str]:
        return [
            _worded(wording, views, one, answer) for one, answer in zip(asked, truth, strict=True)
        ]


CONVERSATIONS = ConversationsTask()


def true_value(asked: RegionQuestion, answer: str) -> Value:
    """Read the value of a data set's own answer.

    Raises:
        AnswerError: if it is none of its category, or a length of 0.
    """
    assert asked.meaning is not None
    value = _parsed(asked, 1.0, True, Answer(answer), answer)
    if isinstance(asked.meaning, Quantity) and not value:
        raise AnswerError(answer, "out of range")
    return value


def is_true_to_scale(views: ModelViews, question: RegionQuestion, answer: str) -> bool:
    """Return whether a conversation is true of the image as the model sees it.

    Lengths are not if the image cannot enter at the focal length that the checkpoint learned: then
    distances along the view are off. The words do not say which lengths are of this kind.
    """
    scale = length_scale("direct_distance", views.cameras[0])
    if abs(scale - 1) <= SAME_SCALE:
        return True
    return not (holds_length(question.text) or holds_length(answer))


def _boxes(views: ModelViews, asked: RegionQuestion) -> list[NDArray[np.int64]]:
    camera = views.cameras[0]
    return [text_box(box, camera, views.text_range, views.text_rounding) for box in asked.boxes]


def _worded(wording: ObjectsWording, views: ModelViews, asked: RegionQuestion, text: str) -> str:
    return with_boxes(wording, text, _boxes(views, asked), views.text_range)


def _value(
    asked: RegionQuestion, wording: ObjectsWording, views: ModelViews, answer: Answer
) -> Value:
    scale = 1.0
    if isinstance(asked.meaning, Quantity):
        scale = length_scale(asked.meaning.quantity, views.cameras[0])
    named = with_names(wording, answer.text, _boxes(views, asked)) if asked.is_choice else ""
    return _parsed(asked, scale, wording.any_form, answer, named)


def _parsed(
    asked: RegionQuestion, scale: float, any_form: bool, answer: Answer, named: str
) -> Value:
    """Read a value; `named`: the answer to a choice, with names of regions."""
    if asked.is_choice:
        first, *others = mentioned_regions(asked.text)
        chosen = parse_choice(named)
        if chosen not in (first, *others):
            raise AnswerError(answer.text, "out of range")
        return chosen == first
    assert asked.meaning is not None
    return object_value(asked.meaning, scale, any_form, answer)
