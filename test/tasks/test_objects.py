# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from truth import TruthEngine

from vlm3_lab.scenes import sample_view
from vlm3_lab.scenes.seen_objects import seen_objects, true_answers
from vlm3_ros.datasets.views import View
from vlm3_ros.engines.base import Answer, EngineError
from vlm3_ros.geometry.camera import GeometryError, ImageLimits, PinholeCamera
from vlm3_ros.language.prompts import load_prompt_set
from vlm3_ros.tasks.objects import Direction, ObjectAnswers, Quantity, Relation, ask_objects

CAMERA = PinholeCamera(160, 160, 200, 200, 79.5, 79.5)
A, B = (10.0, 20.0, 40.0, 90.0), (60.0, 0.0, 159.0, 159.0)


class SpokenEngine(TruthEngine):
    """Gives fixed answers, and records the questions."""

    def __init__(self, lengths: Answer, other: Answer) -> None:
        super().__init__([], load_prompt_set("vlm3"), focal=250.0)
        self.limits = ImageLimits(160, 32, 160 * 160)  # allows only the size of CAMERA
        self.said = {True: lengths, False: other}
        self.asked: list[tuple[list[str], str | None]] = []

    def ask(
        self,
        images: Sequence[NDArray[np.uint8]],
        questions: Sequence[str],
        answer_template: str | None = None,
    ) -> list[Answer]:
        assert [image.shape for image in images] == [(160, 160, 3)]
        self.asked.append((list(questions), answer_template))
        return [self.said[answer_template is not None]] * len(questions)


def ask(engine: SpokenEngine, *questions: Relation | Quantity | Direction) -> ObjectAnswers:
    return ask_objects(engine, np.zeros((160, 160, 3), np.uint8), CAMERA, questions)


@pytest.fixture(scope="module")
def view() -> View:
    return next(
        view
        for view in (sample_view(np.random.default_rng(seed), "yard") for seed in range(50))
        if len(seen_objects(view)) == 3
    )


@pytest.mark.parametrize("fit", ["scale", "pad"])
def test_true_answers_come_back_for_every_question(view: View, fit: str) -> None:
    asked = true_answers(seen_objects(view), np.random.default_rng(0))
    questions = [question for question, _ in asked]
    answers = ask_objects(TruthEngine([view], fit=fit), view.image, view.camera, questions)
    assert answers.questions == tuple(questions)
    assert answers.failures == 0
    for (_, truth), value in zip(asked, answers.values, strict=True):
        assert type(value) is type(truth)
        assert value == (pytest.approx(truth, rel=1e-7) if type(truth) is float else truth)


def test_questions_are_worded_as_the_checkpoint_learned_them() -> None:
    engine = SpokenEngine(Answer("It is 1.25 meters."), Answer("Yes."))
    asked = (Relation("left", A, B), Quantity("width", B), Direction(B, A))
    assert ask(engine, *asked).values[:2] == (True, 1.25)
    (lengths, template), (others, free) = engine.asked
    # Text coordinates of the 20th row of 160 are 20.5 / 160 * 2000, rounded down.
    a, b = "the object at (131, 256, 506, 1131)", "the object at (756, 6, 1993, 1993)"
    assert lengths == [f"What is the width of {b}?"]
    assert template == "It is {value} meters."
    assert others == [
        f"Is {a} to the left of {b} from the viewer's perspective?",
        f"If you are at {b}, where will you find {a}?",
    ]
    assert free is None


def test_estimates_and_stds_of_lengths_become_metres() -> None:
    """Seen at 200 px instead of 250, a depth of 1 m looks like 1.25 m; a width stays the same."""
    engine = SpokenEngine(Answer("It is 9 meters.", value=0.45, std=0.1), Answer("No."))
    across = (Quantity("height", A), Quantity("width", A), Quantity("vertical_distance", A, B))
    along = (Quantity("direct_distance", A, B), Quantity("horizontal_distance", A, B))
    answers = ask(engine, Relation("big", A, B), *across, *along)
    assert answers.values == (False, *[pytest.approx(0.45)] * 3, *[pytest.approx(0.36)] * 2)
    np.testing.assert_allclose(answers.std, [np.nan, *[0.1] * 3, *[0.08] * 2])


def test_unread_answers_are_nan_and_keep_the_reason() -> None:
    engine = SpokenEngine(Answer("wide"), Answer("", fault="timeout"))
    answers = ask(engine, Quantity("vertical_distance", A, B), Relation("front", A, B))
    assert all(math.isnan(value) for value in answers.values)
    assert answers.failures == 2
    assert answers.texts == ("wide", "[timeout]")
    assert np.isnan(answers.std).all()


def test_no_questions_give_no_answers() -> None:
    engine = SpokenEngine(Answer(""), Answer(""))
    assert ask(engine).values == ()
    assert engine.asked == []


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((-9.0, 0.0, -1.0, 50.0), "lies outside of the image of 160x160 px"),
        ((10.0, 160.0, 20.0, 170.0), "lies outside"),
        ((40.0, 0.0, 10.0, 50.0), "is no box"),
        ((0.0, 50.0, 10.0, 49.0), "is no box"),
        ((0.0, 0.0, math.nan, 50.0), "is no box"),
        ((0.0, 0.0, math.inf, 50.0), "is no box"),
    ],
)
def test_boxes_outside_of_the_image_are_refused(
    box: tuple[float, float, float, float], message: str
) -> None:
    engine = SpokenEngine(Answer("1 m"), Answer("Yes."))
    with pytest.raises(GeometryError, match=message):
        ask(engine, Relation("behind", A, box))
    assert engine.asked == []


def test_boxes_are_clipped_to_the_image() -> None:
    engine = SpokenEngine(Answer("1 m"), Answer("Yes."))
    ask(engine, Quantity("width", (-20.0, -0.5, 1e6, 90.0)))
    assert "(6, 6, 1993, 1131)" in engine.asked[0][0][0]


def test_unknown_questions_are_refused() -> None:
    with pytest.raises(ValueError, match="'beside' is none of the relations below, above"):
        Relation("beside", A, B)
    with pytest.raises(ValueError, match="'depth' is none of direct_distance"):
        Quantity("depth", A)
    with pytest.raises(ValueError, match="of two"):
        Quantity("direct_distance", A)
    with pytest.raises(ValueError, match="of one object"):
        Quantity("width", A, B)


def test_a_checkpoint_that_did_not_learn_objects_is_named() -> None:
    engine = SpokenEngine(Answer("1 m"), Answer("Yes."))
    prompts = engine.profile.prompts.without("objects")
    engine.profile = replace(engine.profile, prompts=prompts)
    with pytest.raises(EngineError, match="truth did not learn about objects: its prompt set"):
        ask(engine, Quantity("width", A))
