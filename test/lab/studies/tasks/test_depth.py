# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from vlm3_lab.scenes import KINDS
from vlm3_lab.studies.tasks.depth import (
    depth_pictures,
    evaluate_depth,
    evaluation_view,
)
from vlm3_ros.datasets.views import View
from vlm3_ros.engines.base import Answer, Profile
from vlm3_ros.evaluation.json_file import write_json
from vlm3_ros.evaluation.result import Result, result_json
from vlm3_ros.evaluation.scores.base import TaskScores
from vlm3_ros.evaluation.scores.depth import DepthScores
from vlm3_ros.geometry.camera import ImageLimits, unify_focal
from vlm3_ros.geometry.text_coordinates import pixels_from_text
from vlm3_ros.language.prompts import load_prompt_set
from vlm3_ros.language.wordings.depth import DepthWording, depth_answer

SEED = 11
COUNT = 12


@dataclass
class EyewitnessEngine:
    """An engine that knows the views in which it is asked, and says what `say` makes of a depth.

    It reads the text of the question, finds the pixel in the source image, and answers for the
    focal length that the checkpoint of its profile would have learned.
    """

    say: Callable[[float], float | None]
    views: list[View] = field(default_factory=list)
    name: str = "eyewitness"
    profile: Profile = field(
        default_factory=lambda: Profile(250.0, "scale", load_prompt_set("vlm3"))
    )
    limits: ImageLimits = field(default_factory=lambda: ImageLimits(32, 1024, 2**24))

    def ask(
        self,
        images: Sequence[NDArray[np.uint8]],
        questions: Sequence[str],
        answer_template: str | None = None,
    ) -> list[Answer]:
        view = self.views.pop(0)
        unified = unify_focal(view.camera, 250.0, self.limits, "scale")
        assert images[0].shape == (unified.view.height, unified.view.width, 3)
        return [self._answer(question, view, unified.effective_focal) for question in questions]

    def memory_bytes(self) -> int | None:
        return None

    def close(self) -> None:
        self.views.clear()

    def _answer(self, question: str, view: View, focal: float) -> Answer:
        found = re.search(r"\((\d+), (\d+)\)", question)
        assert found is not None
        u, v = np.rint(
            pixels_from_text(
                [int(found[1]), int(found[2])], view.camera.width, view.camera.height, 2000
            )
        ).astype(int)
        metres = self.say(float(view.depth[v, u]))
        if metres is None:
            return Answer("somewhere over there")
        return Answer(depth_answer(self.profile.prompts[DepthWording], metres * 250.0 / focal))


def evaluate(say: Callable[[float], float | None]) -> TaskScores[DepthScores]:
    engine = EyewitnessEngine(say, [evaluation_view(SEED, index)[0] for index in range(COUNT)])
    return evaluate_depth(engine, COUNT, SEED)


def test_true_answers_have_full_scores() -> None:
    report = evaluate(lambda depth: depth)
    assert report.overall.model.delta1 == 1
    assert report.overall.model.abs_rel < 0.02  # two decimals of text
    assert report.overall.model.unanswered == 0
    assert report.overall.constant.metrics.delta1 <= report.overall.row.metrics.delta1 < 1
    assert set(report.groups) == set(KINDS)
    assert all(scores.model.images == COUNT // len(KINDS) for scores in report.groups.values())


def test_a_constant_answer_scores_at_most_the_constant_baseline() -> None:
    constant = evaluate(lambda depth: depth).overall.constant
    report = evaluate(lambda depth: float(constant.depths[0]))
    assert report.overall.model.delta1 == pytest.approx(constant.metrics.delta1, abs=0.02)
    assert report.overall.model.abs_rel == pytest.approx(constant.metrics.abs_rel, rel=0.02)


def test_unreadable_answers_are_wrong() -> None:
    report = evaluate(lambda depth: depth if depth < 3 else None)
    model, near = report.overall.model, np.concatenate([v.truth for v in report.overall.views]) < 3
    assert model.unanswered == (~near).sum()
    assert model.delta1 == pytest.approx(near.mean())


def test_views_are_those_of_the_seed() -> None:
    first, again = evaluation_view(SEED, 3)[0], evaluation_view(SEED, 3)[0]
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.depth, again.depth)
    for other in (evaluation_view(SEED, 7)[0], evaluation_view(SEED + 1, 3)[0]):
        assert other.kind == first.kind
        assert other.image.shape != first.image.shape or (other.image != first.image).any()


def test_best_median_and_worst_are_in_that_order() -> None:
    rng = np.random.default_rng(1)
    report = evaluate(lambda depth: depth * float(np.exp(rng.normal(0, 0.3))))
    ranked = sorted(report.overall.views, key=lambda view: view.error)
    chosen = [ranked[0], ranked[COUNT // 2], ranked[-1]]
    engine = EyewitnessEngine(lambda depth: min(depth, 60.0))
    engine.views = [evaluation_view(SEED, view.index)[0] for view in chosen]
    frames = depth_pictures(engine, SEED, report.overall, columns=8, rows=6)
    assert [frame.title.split(":")[0] for frame in frames] == ["best", "median", "worst"]
    for frame, view in zip(frames, chosen, strict=True):
        assert f"{view.group} {view.index}" in frame.title
        assert frame.pixels.shape == (48, 2)


def test_the_report_is_json_with_the_documented_names(tmp_path: Path) -> None:
    report = evaluate(lambda depth: None)
    write_json(tmp_path / "metrics.json", result_json(Result({}, "", {}, {"depth": report})))
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert content["depth"]["delta1"] == 0
    assert content["depth"]["abs_rel"] is None
    assert content["depth"]["unanswered"] == content["depth"]["pixels"]
    baseline = {name: scores["depth"] for name, scores in content["baselines"].items()}
    assert 0 < baseline["constant"]["delta1"] <= baseline["row"]["delta1"] < 1
    assert set(content["groups"]) == set(KINDS)
    for kind in KINDS:
        assert {"depth", "baselines"} <= set(content["groups"][kind])
