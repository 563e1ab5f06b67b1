# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from truth import UNKNOWN, TruthEngine

from vlm3_lab.scenes import KINDS
from vlm3_lab.scenes.seen_objects import seen_objects
from vlm3_lab.studies.tasks.objects import (
    QUESTIONS,
    evaluate_objects,
    evaluation_objects,
    object_pictures,
)
from vlm3_ros.engines.base import Answer
from vlm3_ros.evaluation.json_file import write_json
from vlm3_ros.evaluation.pictures.object import draw_object_frames
from vlm3_ros.evaluation.result import Result, result_json
from vlm3_ros.evaluation.scores.base import TaskScores
from vlm3_ros.evaluation.scores.objects import ObjectScores
from vlm3_ros.language.wordings.objects import QUANTITIES
from vlm3_ros.tasks.objects import Direction, Quantity, Relation

Scored = TaskScores[ObjectScores]

SEED, COUNT = 3, 8


class ContraryEngine(TruthEngine):
    """It denies every true relation, and knows no lengths and directions."""

    def ask(
        self,
        images: Sequence[NDArray[np.uint8]],
        questions: Sequence[str],
        answer_template: str | None = None,
    ) -> list[Answer]:
        contrary = {"Yes.": "No.", "No.": "Yes."}
        answers = super().ask(images, questions, answer_template)
        return [Answer(contrary.get(answer.text, UNKNOWN)) for answer in answers]


def evaluate(engine_class: type[TruthEngine]) -> Scored:
    views = [evaluation_objects(SEED, index)[0] for index in range(COUNT)]
    return evaluate_objects(engine_class(views), COUNT, SEED)


@pytest.fixture(scope="module")
def perfect() -> Scored:
    return evaluate(TruthEngine)


def test_true_answers_about_objects_have_no_error(perfect: Scored) -> None:
    """From the image over questions, texts and parsers to the metrics."""
    model = perfect.overall.model
    assert (model.accuracy, model.success) == (1, 1)
    assert model.abs_rel < 1e-7
    assert len(model.relations) == 6
    assert set(model.quantities) == {*QUANTITIES, "direction"}
    assert model.quantities["direction"].error == 0
    for kind in QUANTITIES:
        assert model.quantities[kind].error < 1e-7
    assert all(some.unanswered == 0 for some in (model.relations | model.quantities).values())
    assert perfect.overall.questions == QUESTIONS * COUNT
    assert set(perfect.groups) == set(KINDS)


def test_guesses_are_scored_on_the_same_questions(perfect: Scored) -> None:
    scores = perfect.overall
    for kind, model in scores.model.relations.items():
        assert scores.boxes.relations[kind].questions == model.questions
        assert scores.constant.relations[kind].questions == model.questions
        assert 0.5 <= scores.constant.relations[kind].success <= 1
    assert not scores.boxes.quantities
    assert np.isnan(scores.boxes.success)
    # What is farther right in the image is so in the world, too, unless perspective hides it.
    assert scores.boxes.relations["left/right"].success > 0.7
    assert 0 < scores.constant.success < 1
    assert scores.constant.abs_rel > 0.05


def test_wrong_and_missing_answers_both_count_as_wrong(perfect: Scored) -> None:
    report = evaluate(ContraryEngine)
    model = report.overall.model
    assert (model.accuracy, model.success) == (0, 0)
    assert np.isnan(model.abs_rel)
    assert all(some.unanswered == 0 for some in model.relations.values())
    assert all(some.unanswered == some.questions for some in model.quantities.values())
    guesses = report.overall.constant, perfect.overall.constant
    assert guesses[0].accuracy == guesses[1].accuracy > 0.5
    assert guesses[0].success == guesses[1].success


def test_questions_are_those_of_the_seed_and_of_all_kinds(
    perfect: Scored,
) -> None:
    for scored in perfect.overall.views[:2]:
        view, _ = evaluation_objects(SEED, scored.index)
        boxes = {tuple(thing.box) for thing in seen_objects(view)}
        assert len(boxes) >= 2
        assert view.kind == KINDS[scored.index % len(KINDS)]
        for one in scored.asked:
            assert {one.question.a, one.question.b} - {None} <= boxes
    asked = [one.question for view in perfect.overall.views for one in view.asked]
    assert {type(question) for question in asked} == {Relation, Quantity, Direction}
    other, _ = evaluation_objects(SEED + 1, 0)
    assert not np.array_equal(other.image, evaluation_objects(SEED, 0)[0].image)


def test_the_report_is_json_and_a_picture(perfect: Scored, tmp_path: Path) -> None:
    write_json(tmp_path / "metrics.json", result_json(Result({}, "", {}, {"objects": perfect})))
    content = json.loads((tmp_path / "metrics.json").read_text())
    objects = content["objects"]
    assert objects["accuracy"] == objects["success"] == 1
    assert objects["relations"]["left/right"]["accuracy"] == 1
    assert objects["quantities"]["width"]["abs_rel"] < 1e-7
    assert objects["quantities"]["direction"]["error_deg"] == 0
    assert content["baselines"]["boxes"]["objects"]["success"] is None
    assert 0.5 <= content["groups"]["street"]["baselines"]["constant"]["objects"]["accuracy"] <= 1
    frames = object_pictures(SEED, perfect.overall)
    assert [frame.title.split(":")[0] for frame in frames] == ["best", "median", "worst"]
    draw_object_frames(frames, tmp_path / "objects.png", "the truth")
    assert cv2.imread(str(tmp_path / "objects.png")) is not None
