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
from vlm3_lab.scenes.view_pairs import GAPS
from vlm3_lab.studies.tasks.pairs import (
    Evaluation,
    evaluate_pairs,
    evaluation_pair,
    pair_pictures,
)
from vlm3_ros.engines.base import Answer
from vlm3_ros.evaluation.json_file import write_json
from vlm3_ros.evaluation.metrics.pair_baselines import (
    CONSTANT_MOTION,
    CONSTANT_VELOCITY,
    IDENTITY,
    SIFT,
)
from vlm3_ros.evaluation.metrics.pairs import pose_metrics
from vlm3_ros.evaluation.pictures.pair import draw_pair_frames
from vlm3_ros.evaluation.result import Result, result_json
from vlm3_ros.evaluation.scores.base import TaskScores
from vlm3_ros.geometry.motion import motion_parts

SEED, COUNT = 5, 8


class SilentEngine(TruthEngine):
    """It does not answer every second pair."""

    asked = 0

    def ask(
        self,
        images: Sequence[NDArray[np.uint8]],
        questions: Sequence[str],
        answer_template: str | None = None,
    ) -> list[Answer]:
        self.asked += 1
        answers = super().ask(images, questions, answer_template)
        return [Answer(UNKNOWN)] * len(answers) if self.asked % 2 else answers


def evaluate(engine_class: type[TruthEngine]) -> Evaluation:
    pairs = [evaluation_pair(SEED, index)[0].views for index in range(COUNT)]
    engine = engine_class([view for pair in pairs for view in (pair.first, pair.second)])
    return evaluate_pairs(engine, COUNT, SEED, matches=4)


@pytest.fixture(scope="module")
def perfect() -> Evaluation:
    return evaluate(TruthEngine)


def test_true_answers_have_no_error(perfect: Evaluation) -> None:
    pose, matches = perfect.motion.overall.model, perfect.matches.overall.model
    assert pose.auc == {30: 1.0, 15: 1.0, 5: 1.0, 3: 1.0}
    assert pose.rotation_deg_median < 1e-5
    assert pose.direction_deg_median < 1e-4
    assert pose.distance_error_m_median < 1e-7
    assert (pose.pairs, pose.directed, pose.unanswered) == (COUNT, COUNT, 0)
    assert matches.epe_px < 0.01
    assert matches.matches == 4 * COUNT
    assert matches.epe_share < 1e-4
    assert set(perfect.motion.groups) == set(perfect.matches.groups) == set(KINDS)
    assert perfect.uncertainty is not None
    assert np.nanmax(perfect.uncertainty.nees) < 1e-4


def test_guesses_score_what_their_definition_says(perfect: Evaluation) -> None:
    motions = perfect.motion.overall.guesses
    truth = [pair.motion.truth for pair in perfect.pairs]
    distances = [motion_parts(T).distance for T in truth]
    assert motions[IDENTITY].direction_deg_median == 90
    assert motions[IDENTITY].distance_error_m_median == pytest.approx(np.median(distances))
    assert motions[IDENTITY].auc[30] == 0
    # Robots drive smoothly and forward.
    assert 0.3 < motions[CONSTANT_MOTION].auc[30] < motions[CONSTANT_VELOCITY].auc[30]
    assert motions[CONSTANT_VELOCITY].distance_error_m_median < 0.02
    # The scale of classical vision is the true one.
    assert motions[SIFT].distance_error_m_median < 1e-9
    moved = np.concatenate([pair.matches.truth - pair.matches.pixels1 for pair in perfect.pairs])
    same = perfect.matches.overall.same_pixel
    assert same.epe_px == pytest.approx(np.linalg.norm(moved, axis=1).mean())


def test_unanswered_pairs_are_failures() -> None:
    report = evaluate(SilentEngine)
    assert report.motion.overall.model.unanswered == COUNT / 2
    assert report.motion.overall.model.auc[30] == pytest.approx(0.5)
    assert report.matches.overall.model.unanswered == 2 * COUNT
    assert report.motion.overall.model.rotation_deg_median < 1e-5


def test_constant_velocity_repeats_the_last_step_before_the_pair() -> None:
    drives = [evaluation_pair(SEED, index)[0] for index in range(COUNT)]
    for drive in drives:
        assert GAPS[0] <= drive.gap <= GAPS[1]
        poses = drive.sequence.path.T_world_base @ drive.sequence.T_base_camera
        views = drive.views
        np.testing.assert_allclose(views.first.T_world_camera, poses[drive.start])
        np.testing.assert_allclose(views.second.T_world_camera, poses[drive.start + drive.gap])
        here = max(drive.start, 1)
        step = np.linalg.inv(poses[here - 1]) @ poses[here]
        expected = np.eye(4)
        for _ in range(drive.gap):
            expected = expected @ step
        np.testing.assert_allclose(drive.T_cam1_cam2_at_constant_velocity, expected, atol=1e-9)
    guesses = [drive.T_cam1_cam2_at_constant_velocity for drive in drives]
    truth = [drive.views.T_cam1_cam2 for drive in drives]
    assert pose_metrics(guesses, truth).auc[30] > 0.8


def test_pairs_are_those_of_the_seed_and_no_view_of_another_stream() -> None:
    first, again = (evaluation_pair(SEED, 3)[0].views for _ in range(2))
    np.testing.assert_array_equal(first.second.image, again.second.image)
    other = evaluation_pair(SEED + 1, 3)[0].views
    assert not np.array_equal(first.T_cam1_cam2, other.T_cam1_cam2)


def test_the_report_is_json_and_a_picture(perfect: Evaluation, tmp_path: Path) -> None:
    scores = {
        "pose": perfect.motion,
        "correspondence": perfect.matches,
        "consistency": TaskScores(perfect.uncertainty),
    }
    write_json(tmp_path / "metrics.json", result_json(Result({}, "", {}, scores)))
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert content["pose"]["auc30"] == 1
    assert content["pose"]["rotation_deg"]["median"] < 1e-5
    assert content["correspondence"]["epe_px"] < 0.01
    assert content["baselines"][IDENTITY]["pose"]["direction_deg"]["median"] == 90
    assert content["baselines"]["same_pixel"]["correspondence"]["epe_px"] > 1
    assert content["groups"]["room"]["pose"]["pairs"] == COUNT / len(KINDS)
    assert content["consistency"]["nees"]["mean"] < 1e-4
    frames = pair_pictures(SEED, perfect.pairs)
    assert [frame.title.split(":")[0] for frame in frames] == ["best", "median", "worst"]
    draw_pair_frames(frames, tmp_path / "pairs.png", "the truth")
    assert cv2.imread(str(tmp_path / "pairs.png")) is not None
