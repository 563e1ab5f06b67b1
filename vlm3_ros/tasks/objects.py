# SPDX-License-Identifier: Apache-2.0
"""Relations, distances, sizes and directions of objects in one image (paper section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlm3_ros.engines.base import Answer, Engine, EngineError
from vlm3_ros.geometry.camera import PinholeCamera, UnifiedCamera, text_box, unify_focal
from vlm3_ros.geometry.images import unify_image
from vlm3_ros.language.answers import AnswerError, parse_hour, parse_length, parse_relation
from vlm3_ros.language.prompts import (
    DISTANCES,
    QUANTITIES,
    RELATIONS,
    SIZES,
    ObjectPrompts,
    object_question,
)

Box = tuple[float, float, float, float]
"""(left, top, right, bottom) of an object's outermost pixels in the source image."""


@dataclass(frozen=True)
class Relation:
    """Does a stand in one of `RELATIONS` to b? Answered by a bool.

    Raises:
        ValueError: when there is no such relation.
    """

    relation: str
    a: Box
    b: Box

    def __post_init__(self) -> None:
        if self.relation not in RELATIONS:
            raise ValueError(f"{self.relation!r} is none of the relations {', '.join(RELATIONS)}")


@dataclass(frozen=True)
class Quantity:
    """One of `SIZES` of a, or one of `DISTANCES` between a and b. Answered in metres.

    Raises:
        ValueError: when there is no such quantity, or b is missing or one too many.
    """

    quantity: str
    a: Box
    b: Box | None = None

    def __post_init__(self) -> None:
        if self.quantity not in QUANTITIES:
            raise ValueError(f"{self.quantity!r} is none of {', '.join(QUANTITIES)}")
        if (self.quantity in SIZES) != (self.b is None):
            raise ValueError(
                f"{' and '.join(SIZES)} are asked of one object, {', '.join(DISTANCES)} of two"
            )


@dataclass(frozen=True)
class Direction:
    """Where is b, seen from a? Answered by an hour, 1 to 12.

    12 o'clock is away from the camera, 3 o'clock to its right.
    """

    a: Box
    b: Box


Question = Relation | Quantity | Direction
Value = bool | int | float
"""Whether a relation holds, metres, or an hour; NaN where an answer could not be read."""


@dataclass(frozen=True)
class ObjectAnswers:
    """What a model says about objects, one entry for each question.

    `values`: see `Value`. `std`: standard deviation of those in metres, shape (n,), NaN where the
    engine does not know it and for all others. `texts`: the raw answers; where there is none, the
    reason in brackets.
    """

    questions: tuple[Question, ...]
    values: tuple[Value, ...]
    std: NDArray[np.float64]
    texts: tuple[str, ...]

    @property
    def failures(self) -> int:
        """Number of answers that could not be read."""
        return int(np.isnan(np.asarray(self.values, dtype=float)).sum())


def ask_objects(
    engine: Engine,
    image: NDArray[np.uint8],
    camera: PinholeCamera,
    questions: Sequence[Question],
) -> ObjectAnswers:
    """Ask about objects that are known by their boxes.

    Lengths are asked in one pass and all else in another: only the former have answers of one
    form, so that the engine can tell the distribution of their number. Its estimate comes before
    the greedy text, as in `ask_depth`.

    Args:
        image: rectified RGB, shape (camera.height, camera.width, 3), uint8.
        camera: its intrinsics.
        questions: any number.

    Raises:
        GeometryError: when the image does not fit its camera or the engine's limits, or a box
            does not lie in the image (what sticks out is cut off).
        EngineError: when the model did not learn about objects, or cannot answer at all.
    """
    profile, prompts = engine.profile, object_prompts(engine)
    unified = unify_focal(camera, profile.focal, engine.limits, profile.fit)
    text_range = profile.prompts.text_range
    texts = [question_text(question, prompts, unified, text_range) for question in questions]
    view = [unify_image(image, unified)]
    is_length = [isinstance(question, Quantity) for question in questions]
    answers: dict[int, Answer] = {}
    for lengths, template in ((True, prompts.metres), (False, None)):
        asked = [i for i, is_one in enumerate(is_length) if is_one == lengths]
        if asked:
            found = engine.ask(view, [texts[i] for i in asked], template)
            answers.update(zip(asked, found, strict=True))
    scales = [
        length_scale(question.quantity, unified) if isinstance(question, Quantity) else 1.0
        for question in questions
    ]
    ordered = [answers[i] for i in range(len(questions))]
    stds = [
        np.nan if answer.std is None or not is_one else answer.std * scale
        for answer, is_one, scale in zip(ordered, is_length, scales, strict=True)
    ]
    return ObjectAnswers(
        tuple(questions),
        tuple(map(_value, questions, ordered, scales)),
        np.array(stds, dtype=float),
        tuple(f"[{a.fault}]" if a.fault else a.text for a in ordered),
    )


def object_prompts(engine: Engine) -> ObjectPrompts:
    """The engine's wording of questions about objects.

    Raises:
        EngineError: when it has none.
    """
    prompts = engine.profile.prompts
    if prompts.objects is None:
        raise EngineError(
            f"{engine.name} did not learn about objects: its prompt set '{prompts.name}' has no "
            "questions for them; choose a checkpoint that did"
        )
    return prompts.objects


def length_scale(quantity: str, unified: UnifiedCamera) -> float:
    """Metres of one that a model sees who takes the focal length for the learned one.

    As in `geometry.motion.metric_motion`, sizes across the view are believed, and depth is off by
    the ratio of the focal lengths. Distances on the ground have a part of both and are taken for
    depth. Where pixels are square this is exact for what a level camera sees side on, one above the
    other, or one behind the other.
    """
    across = (*SIZES, "vertical_distance")
    return 1.0 if quantity in across else float(unified.metric_depth(1.0))


def question_text(
    question: Question, prompts: ObjectPrompts, unified: UnifiedCamera, text_range: int
) -> str:
    """A question as a model is asked it.

    Args:
        prompts: wording.
        unified: how the image enters the model.
        text_range: of the prompt set.

    Raises:
        GeometryError: when a box does not lie in the image.
    """
    template = question_template(question, prompts)
    return object_question(
        prompts, template, question_boxes(question, unified, text_range), text_range
    )


def question_template(question: Question, prompts: ObjectPrompts) -> str:
    """The wording of a question, with {a} and, where it is about two objects, {b}."""
    if isinstance(question, Relation):
        return prompts.relations[question.relation]
    if isinstance(question, Quantity):
        return prompts.quantities[question.quantity]
    return prompts.direction


def question_boxes(
    question: Question, unified: UnifiedCamera, text_range: int
) -> list[NDArray[np.int64]]:
    """The boxes of a question's objects in text coordinates, of a first.

    Raises:
        GeometryError: when a box does not lie in the image.
    """
    asked = [box for box in (question.a, question.b) if box is not None]
    return [text_box(box, unified, text_range) for box in asked]


def _value(question: Question, answer: Answer, scale: float) -> Value:
    """`scale`: metres of one that the model sees."""
    try:
        if isinstance(question, Relation):
            return parse_relation(answer.text)
        if isinstance(question, Direction):
            return parse_hour(answer.text)
        if answer.value is not None:
            return answer.value * scale
        return parse_length(answer.text) * scale
    except AnswerError:
        return float("nan")
