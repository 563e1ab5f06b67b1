# SPDX-License-Identifier: Apache-2.0
"""Training samples of objects: their relations, distances, sizes and directions (paper 3.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from typing_extensions import override

from vlm3_lab.scenes import View
from vlm3_lab.scenes.seen_objects import SeenObject, seen_objects, true_answers
from vlm3_lab.training.samples import ViewSamples
from vlm3_lab.training.sources import MixedScenes, Sources
from vlm3_ros.geometry.camera import UnifiedCamera
from vlm3_ros.geometry.images import unify_image
from vlm3_ros.language.prompts import PromptSet, hour_answer, metres_answer
from vlm3_ros.tasks.objects import Quantity, Question, Value, length_scale, question_text

if TYPE_CHECKING:
    from vlm3_lab.training.packing import PackedSample, QuestionAnswer


class Questions(ViewSamples["PackedSample"]):
    """Packed questions about the objects of views that show at least two of them."""

    wordings = ("objects",)

    @override
    @classmethod
    def scenes(cls, sources: Sources) -> MixedScenes[View]:
        return sources.views(
            "objects",
            "frames with boxes of objects and a pose",
            lambda frame: bool(frame.objects) and frame.T_world_camera is not None,
        )

    @override
    def is_enough(self, scene: View) -> bool:
        return len(seen_objects(scene)) >= 2  # relations need two

    @override
    def sample(self, scene: View, rng: np.random.Generator) -> PackedSample:
        unified, prompts = self._model.unified(scene), self._model.profile.prompts
        questions = object_pairs(
            seen_objects(scene), unified, prompts, self._data.object_questions, rng
        )
        return self._model.packer.pack([unify_image(scene.image, unified)], questions)

    @override
    def length(self, sample: PackedSample) -> int:
        return len(sample.prefix_ids)


def object_pairs(
    things: list[SeenObject],
    unified: UnifiedCamera,
    prompts: PromptSet,
    count: int,
    rng: np.random.Generator,
) -> list[QuestionAnswer]:
    """Worded questions about the objects of one view, with true answers.

    Args:
        unified: how the view enters the model.
        prompts: of a checkpoint that knows objects.
        count: number of questions at most.

    Returns:
        The first `count` of `true_answers`, in which the kinds of question take turns.
    """
    return [
        object_pair(question, truth, unified, prompts)
        for question, truth in true_answers(things, rng)[:count]
    ]


def object_pair(
    question: Question, truth: Value, unified: UnifiedCamera, prompts: PromptSet
) -> QuestionAnswer:
    """One worded question about objects, with its true answer."""
    assert prompts.objects is not None
    wording = prompts.objects
    if isinstance(question, Quantity):
        # `tasks.objects` undoes this scale.
        answer = metres_answer(wording, truth / length_scale(question.quantity, unified))
    elif isinstance(truth, bool):
        answer = wording.yes if truth else wording.no
    else:
        answer = hour_answer(wording, int(truth))
    return question_text(question, wording, unified, prompts.text_range), answer
