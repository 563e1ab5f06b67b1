"""Training samples of objects: their relations, distances, sizes and directions (paper 3.2)."""

from __future__ import annotations

import itertools

import numpy as np

from vlm3_ros.geometry.camera import UnifiedCamera, text_box
from vlm3_ros.geometry.images import unify_image
from vlm3_ros.language.prompts import (
    DISTANCES,
    RELATIONS,
    SIZES,
    PromptSet,
    hour_answer,
    metres_answer,
    object_question,
)
from vlm3_ros.synthetic import View
from vlm3_ros.synthetic.objects import (
    SeenObject,
    hour_of,
    quantity_of,
    relation_holds,
    seen_objects,
)
from vlm3_ros.training.packing import PackedSample, Packer, QuestionAnswer
from vlm3_ros.training.samples import ViewStream


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
        questions = object_pairs(things, unified, self._profile.prompts, rng)
        image = unify_image(scene.image, unified)
        chosen = questions[: self._data.object_questions]
        return Packer(self._processor).pack([image], chosen)

    def length(self, sample: PackedSample) -> int:
        """Tokens of the prefix, nearly all of them of the image."""
        return len(sample.prefix_ids)


def object_pairs(
    things: list[SeenObject], unified: UnifiedCamera, prompts: PromptSet, rng: np.random.Generator
) -> list[QuestionAnswer]:
    """All that can be asked about objects, with true answers.

    Args:
        things: of one view.
        unified: how the view enters the model.
        prompts: of the checkpoint.
        rng: draws the order.

    Returns:
        Questions and answers in random order, in which the kinds of question take turns.
    """
    assert prompts.objects is not None
    wording = prompts.objects
    # The inverse of what undoes it in `tasks.objects`.
    seen = 1 / float(unified.metric_depth(1.0))
    boxes = {id(thing): text_box(thing.box, unified, prompts.text_range) for thing in things}
    kinds: dict[str, list[QuestionAnswer]] = {}

    def ask(kind: str, question: str, answer: str, *about: SeenObject) -> None:
        text = object_question(
            wording, question, [boxes[id(thing)] for thing in about], prompts.text_range
        )
        kinds.setdefault(kind, []).append((text, answer))

    for thing in things:
        for size in SIZES:
            if (metres := quantity_of(size, thing)) is not None:
                ask(size, wording.quantities[size], metres_answer(wording, metres * seen), thing)
    for a, b in itertools.permutations(things, 2):
        for relation in RELATIONS:
            if (holds := relation_holds(relation, a, b)) is not None:
                answer = wording.yes if holds else wording.no
                ask(relation, wording.relations[relation], answer, a, b)
        for distance in DISTANCES:
            if (metres := quantity_of(distance, a, b)) is not None:
                answer = metres_answer(wording, metres * seen)
                ask(distance, wording.quantities[distance], answer, a, b)
        if (hour := hour_of(a, b)) is not None:
            ask("direction", wording.direction, hour_answer(wording, hour), a, b)
    for some in kinds.values():
        rng.shuffle(some)
    names = list(kinds)
    rng.shuffle(names)
    turns = itertools.zip_longest(*(kinds[name] for name in names))
    return [question for turn in turns for question in turn if question is not None]
