# SPDX-License-Identifier: Apache-2.0
"""Training samples of objects: their relations, distances, sizes and directions (paper 3.2)."""

from __future__ import annotations

import numpy as np
from typing_extensions import override

from vlm3_lab.scenes import View
from vlm3_lab.scenes.objects import SeenObject, seen_objects, true_answers
from vlm3_lab.training.packing import PackedSample, Packer, QuestionAnswer
from vlm3_lab.training.samples import ViewStream
from vlm3_ros.geometry.images import unify_image
from vlm3_ros.language.prompts import PromptSet
from vlm3_ros.tasks.objects import OBJECTS
from vlm3_ros.tasks.task import ModelViews, true_pairs


class ObjectQuestions(ViewStream[PackedSample]):
    """Packed questions about the objects of views that show at least two of them."""

    task = "objects"

    def is_enough(self, scene: View) -> bool:
        """Whether it shows two objects: one has no relations."""
        return len(seen_objects(scene)) >= 2

    @override
    def sample(self, scene: View, rng: np.random.Generator) -> PackedSample:
        views = self.model_views(scene)
        questions = object_pairs(
            seen_objects(scene), views, self._profile.prompts, self._data.object_questions, rng
        )
        image = unify_image(scene.image, views.cameras[0])
        return Packer(self._processor).pack([image], questions)


def object_pairs(
    things: list[SeenObject],
    views: ModelViews,
    prompts: PromptSet,
    count: int,
    rng: np.random.Generator,
) -> list[QuestionAnswer]:
    """Return questions about objects with true answers.

    Args:
        things: of one view.
        views: how the view enters the model.
        prompts: of the checkpoint, which must know objects.
        count: maximum number of questions.
        rng: draws them.

    Returns:
        The first of `true_answers`, in which the kinds of question take turns.
    """
    asked = true_answers(things, rng)[:count]
    questions, truths = [question for question, _ in asked], [truth for _, truth in asked]
    return true_pairs(OBJECTS, prompts, views, questions, truths)
