# SPDX-License-Identifier: Apache-2.0
"""Training samples of objects: their relations, distances, sizes and directions (paper 3.2).

Views with boxes of objects in the world are asked in the wording of the checkpoint. Views with
conversations are asked in the data set's words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from typing_extensions import override

from vlm3_lab.scenes.seen_objects import SeenObject, seen_objects, true_answers
from vlm3_lab.training.samples import ViewSamples
from vlm3_lab.training.sources import MixedScenes, Sources
from vlm3_ros.datasets.views import Conversation, View
from vlm3_ros.geometry.images import unify_image
from vlm3_ros.language.prompts import PromptSet
from vlm3_ros.language.wordings.objects import ObjectsWording
from vlm3_ros.tasks.conversations import CONVERSATIONS, is_true_to_scale
from vlm3_ros.tasks.objects import OBJECTS
from vlm3_ros.tasks.task import ModelViews, true_pairs

if TYPE_CHECKING:
    from vlm3_lab.training.packing import PackedSample, QuestionAnswer


class Questions(ViewSamples["PackedSample"]):
    """Packed questions about views that show at least two objects, or have conversations."""

    wordings = (OBJECTS.name,)

    @override
    @classmethod
    def scenes(cls, sources: Sources) -> MixedScenes[View]:
        return sources.views(
            "objects",
            "frames with boxes of objects and a pose, or with conversations",
            lambda contents: contents.has_objects,
        )

    @override
    def is_enough(self, scene: View) -> bool:
        if scene.conversations:
            return bool(self._conversations(scene))
        return len(seen_objects(scene)) >= 2  # relations need two

    @override
    def variant(self, scene: View, repeat: int) -> View:
        # Left and right are in the words of conversations.
        return scene if scene.conversations else super().variant(scene, repeat)

    @override
    def sample(self, scene: View, rng: np.random.Generator) -> PackedSample:
        views, prompts = self._model.views(scene), self._model.profile.prompts
        count = self._data.object_questions
        if scene.conversations:
            told = self._conversations(scene)
            drawn = [told[number] for number in rng.permutation(len(told))[:count]]
            questions = true_pairs(
                CONVERSATIONS,
                prompts,
                views,
                [one.question for one in drawn],
                [one.answer for one in drawn],
            )
        else:
            questions = object_pairs(seen_objects(scene), views, prompts, count, rng)
        return self._model.packer.pack([unify_image(scene.image, views.cameras[0])], questions)

    def _conversations(self, scene: View) -> list[Conversation]:
        """Those that are true of the image as the model sees it."""
        views = self._model.views(scene)
        return [
            one for one in scene.conversations if is_true_to_scale(views, one.question, one.answer)
        ]


def object_pairs(
    things: list[SeenObject],
    views: ModelViews,
    prompts: PromptSet,
    count: int,
    rng: np.random.Generator,
) -> list[QuestionAnswer]:
    """Questions about the objects of one view, with true answers.

    Args:
        views: how the view enters the model.
        prompts: of a checkpoint that knows objects.
        count: number of questions at most.

    Returns:
        The first `count` of `true_answers`, in which the kinds of question take turns, each kind
        in one of its phrasings.
    """
    asked = true_answers(things, rng)[:count]
    questions, truths = [question for question, _ in asked], [truth for _, truth in asked]
    return true_pairs(OBJECTS, with_one_phrasing(prompts, rng), views, questions, truths)


def with_one_phrasing(prompts: PromptSet, rng: np.random.Generator) -> PromptSet:
    """Draw one phrasing of every question and answer about objects.

    Nothing is drawn where there is only one.
    """
    wording = prompts[ObjectsWording]
    drawn = {
        name: _drawn(getattr(wording, name), rng)
        for name in ("relations", "yes", "no", "quantities", "metres", "direction", "hour")
    }
    return replace(prompts, wordings={**prompts.wordings, wording.task: replace(wording, **drawn)})


def _drawn(texts: Any, rng: np.random.Generator) -> Any:
    if isinstance(texts, Mapping):
        return {name: _drawn(entry, rng) for name, entry in texts.items()}
    if isinstance(texts, str):
        return texts
    return texts[rng.integers(len(texts)) if len(texts) > 1 else 0]
