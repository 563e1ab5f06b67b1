# SPDX-License-Identifier: Apache-2.0
"""Relations, distances, sizes and directions of objects in one image (paper section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from vlm3_ros.engines.base import Answer, Engine
from vlm3_ros.geometry.camera import PinholeCamera, UnifiedCamera
from vlm3_ros.geometry.text_coordinates import text_box
from vlm3_ros.language.wordings.objects import (
    DISTANCES,
    QUANTITIES,
    RELATIONS,
    SIZES,
    ObjectsWording,
    hour_answer,
    metres_answer,
    object_question,
    parse_hour,
    parse_length,
    parse_relation,
    phrasings,
    relation_answer,
)
from vlm3_ros.tasks.reading import Missing, answer_text, read_answer
from vlm3_ros.tasks.task import ModelViews, Prompt, Task, ask

Box = tuple[float, float, float, float]
"""(left, top, right, bottom) of an object's outermost pixels in the source image."""


@dataclass(frozen=True)
class Relation:
    """Does one of `RELATIONS` hold of a to b? Answered by a bool.

    Raises:
        ValueError: if the relation is unknown.
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
        ValueError: if the quantity is unknown, or b is missing or one too many.
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
"""Whether a relation holds, metres, or an hour; NaN if the answer could not be read."""


@dataclass(frozen=True)
class ObjectAnswers:
    """A model's answers about objects, one entry per question.

    `values`: see `Value`. `std`: standard deviation of lengths in metres, shape (n,); NaN if the
    engine does not know it, and for other values. `texts`: the raw answers; the reason in brackets
    if the model gave no answer. `missing`: why a question has no value, one per question, None if
    it has one.
    """

    questions: tuple[Question, ...]
    values: tuple[Value, ...]
    std: NDArray[np.float64]
    texts: tuple[str, ...]
    missing: tuple[Missing | None, ...] = ()

    @property
    def failures(self) -> int:
        """Number of answers that could not be read."""
        return int(np.isnan(np.asarray(self.values, dtype=float)).sum())


class ObjectsTask(Task[ObjectsWording, Sequence[Question], Sequence[Value], ObjectAnswers]):
    """Questions about objects of one image, which are known by their boxes.

    Lengths have answers of one form, whose number the engine can estimate, unless the checkpoint
    learned several forms; the others are free text. The truth is one `Value` per question.
    """

    wording = ObjectsWording
    title = "about objects"

    @override
    def prompts(
        self, wording: ObjectsWording, views: ModelViews, asked: Sequence[Question]
    ) -> list[Prompt]:
        return [
            Prompt(
                question_text(question, wording, views),
                wording.length_template if isinstance(question, Quantity) else None,
            )
            for question in asked
        ]

    @override
    def read(
        self,
        wording: ObjectsWording,
        views: ModelViews,
        asked: Sequence[Question],
        answers: Sequence[Answer],
    ) -> ObjectAnswers:
        values: list[Value] = []
        stds: list[float] = []
        missing: list[Missing | None] = []
        for question, answer in zip(asked, answers, strict=True):
            std = np.nan
            scale = 1.0
            if isinstance(question, Quantity):
                scale = length_scale(question.quantity, views.cameras[0])
                std = np.nan if answer.std is None else answer.std * scale
            value = read_answer(answer, partial(object_value, question, scale, wording.any_form))
            values.append(np.nan if isinstance(value, Missing) else value)
            missing.append(value if isinstance(value, Missing) else None)
            stds.append(std)
        return ObjectAnswers(
            tuple(asked),
            tuple(values),
            np.array(stds, dtype=float),
            tuple(map(answer_text, answers)),
            tuple(missing),
        )

    @override
    def true_answers(
        self,
        wording: ObjectsWording,
        views: ModelViews,
        asked: Sequence[Question],
        truth: Sequence[Value],
    ) -> Sequence[str]:
        return [
            _true_answer(question, value, wording, views)
            for question, value in zip(asked, truth, strict=True)
        ]


OBJECTS = ObjectsTask()


def ask_objects(
    engine: Engine,
    image: NDArray[np.uint8],
    camera: PinholeCamera,
    questions: Sequence[Question],
) -> ObjectAnswers:
    """Ask about objects that are known by their boxes.

    Lengths whose answers have one form are asked in one pass, and all others in another.

    Args:
        image: rectified RGB, shape (camera.height, camera.width, 3), uint8.
        camera: its intrinsics.
        questions: any number.

    Raises:
        GeometryError: if the image does not fit its camera or the engine's limits, or a box lies
            outside of the image (what sticks out is cut off).
        EngineError: if the model did not learn about objects, or cannot answer.
    """
    return ask(engine, [image], [camera], OBJECTS, questions)


def length_scale(quantity: str, unified: UnifiedCamera) -> float:
    """Metres per metre that a model sees, which assumes the focal length that it learned.

    As in `geometry.motion.metric_motion`, sizes across the view are right, and depth is off by
    the ratio of the focal lengths. Distances on the ground have a part of both and are taken for
    depth. With square pixels this is exact for what a level camera sees side on, one above the
    other, or one behind the other.
    """
    across = (*SIZES, "vertical_distance")
    return 1.0 if quantity in across else float(unified.metric_depth(1.0))


def question_text(question: Question, wording: ObjectsWording, views: ModelViews) -> str:
    """Word a question.

    Raises:
        GeometryError: if a box does not lie in the image.
    """
    boxes = question_boxes(question, views)
    return object_question(wording, question_template(question, wording), boxes, views.text_range)


def question_template(question: Question, wording: ObjectsWording) -> str:
    """Return the template of a question, with {a} and, if it is about two objects, {b}."""
    if isinstance(question, Relation):
        return phrasings(wording.relations, question.relation)[0]
    if isinstance(question, Quantity):
        return phrasings(wording.quantities, question.quantity)[0]
    return phrasings(wording.direction)[0]


def question_boxes(question: Question, views: ModelViews) -> list[NDArray[np.int64]]:
    """Return the boxes of a question's objects in text coordinates, a first.

    Raises:
        GeometryError: if a box does not lie in the image.
    """
    boxes = [box for box in (question.a, question.b) if box is not None]
    return [text_box(box, views.cameras[0], views.text_range, views.text_rounding) for box in boxes]


def object_value(question: Question, scale: float, any_form: bool, answer: Answer) -> Value:
    """Read the value of an answer.

    Args:
        question: what was asked.
        scale: metres per metre that the model sees, see `length_scale`; 1 for other questions.
        any_form: of the wording.
        answer: without fault.

    Raises:
        AnswerError: if it cannot be read.
    """
    if isinstance(question, Relation):
        return parse_relation(answer.text, any_form)
    if isinstance(question, Direction):
        return parse_hour(answer.text)
    # The engine's estimate errs less than the greedy text, see `Answer.value`.
    if answer.value is not None:
        return answer.value * scale
    return parse_length(answer.text, any_form) * scale


def _true_answer(
    question: Question, truth: Value, wording: ObjectsWording, views: ModelViews
) -> str:
    """Word a true value; the answer may name the objects."""
    if isinstance(question, Relation):
        template = relation_answer(wording, question.relation, bool(truth))
    elif isinstance(question, Direction):
        template = hour_answer(wording, int(truth))
    else:
        seen = truth / length_scale(question.quantity, views.cameras[0])
        template = metres_answer(wording, seen, question.quantity)
    return object_question(wording, template, question_boxes(question, views), views.text_range)
