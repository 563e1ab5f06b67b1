# SPDX-License-Identifier: Apache-2.0
"""Training samples of objects: their relations, distances, sizes and directions (paper 3.2)."""

from __future__ import annotations

import numpy as np

from vlm3_lab.scenes import View
from vlm3_lab.scenes.objects import SeenObject, seen_objects, true_answers
from vlm3_lab.training.packing import PackedSample, Packer, QuestionAnswer
from vlm3_lab.training.samples import ViewStream
from vlm3_ros.geometry.camera import UnifiedCamera
from vlm3_ros.geometry.images import unify_image
from vlm3_ros.language.prompts import PromptSet, hour_answer, metres_answer
from vlm3_ros.tasks.objects import Quantity, Question, Value, length_scale, question_text


class ObjectQuestions(ViewStream[PackedSample]):
    """Packed questions about the objects of views that show two of them or more."""

    task = "objects"

    def is_enough(self, scene: View) -> bool:
        """Whether it shows two objects, which have relations."""
        return len(seen_objects(scene)) >= 2

    def sample(self, scene: View, rng: np.random.Generator) -> PackedSample:
        """See the base class."""
        unified = self.unified(scene)
        things = seen_objects(scene)
        count, prompts = self._data.object_questions, self._profile.prompts
        questions = object_pairs(things, unified, prompts, count, rng)
        return Packer(self._processor).pack([unify_image(scene.image, unified)], questions)

    def length(self, sample: PackedSample) -> int:
        """Tokens of the prefix, nearly all of them of the image."""
        return len(sample.prefix_ids)


def object_pairs(
    things: list[SeenObject],
    unified: UnifiedCamera,
    prompts: PromptSet,
    count: int,
    rng: np.random.Generator,
) -> list[QuestionAnswer]:
    """Questions about objects in words, with true answers.

    Args:
        things: of one view.
        unified: how the view enters the model.
        prompts: of the checkpoint, which knows objects.
        count: at most so many.
        rng: draws them.

    Returns:
        The first of `true_answers`, in which the kinds of question take turns.
    """
    return [
        object_pair(question, truth, unified, prompts)
        for question, truth in true_answers(things, rng)[:count]
    ]


def object_pair(
    question: Question, truth: Value, unified: UnifiedCamera, prompts: PromptSet
) -> QuestionAnswer:
    """A question about objects in words, and the answer with what is true."""
    assert prompts.objects is not None
    wording = prompts.objects
    if isinstance(question, Quantity):
        # What `tasks.objects` undoes.
        answer = metres_answer(wording, truth / length_scale(question.quantity, unified))
    elif isinstance(truth, bool):
        answer = wording.yes if truth else wording.no
    else:
        answer = hour_answer(wording, int(truth))
    return question_text(question, wording, unified, prompts.text_range), answer
