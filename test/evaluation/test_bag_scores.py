# SPDX-License-Identifier: Apache-2.0
"""Scores of hand-written answers and poses."""

from __future__ import annotations

import numpy as np
import pytest

from vlm3_ros.bags.poses import TruePoses
from vlm3_ros.bags.timed_poses import TimedPoses
from vlm3_ros.evaluation.bag.answers import GRID, BagAnswers
from vlm3_ros.evaluation.bag.frames import BagFrame
from vlm3_ros.evaluation.bag.plots import plot_errors
from vlm3_ros.evaluation.bag.scores import BagScores, score_answers
from vlm3_ros.evaluation.bag.truth import BagTruth, read_truth
from vlm3_ros.evaluation.pictures.figures import svg_source
from vlm3_ros.evaluation.scores.depth import ScoredView, depth_scores
from vlm3_ros.geometry.camera import PinholeCamera

STAMPS_NS = [0, 100_000_000, 200_000_000, 300_000_000]


@pytest.fixture
def answers() -> BagAnswers:
    """A camera moves along X, stands, and moves again; the last motion is not answered."""
    along = np.eye(4)
    along[0, 3] = 0.2
    motions = [along, np.eye(4), np.full((4, 4), np.nan)]
    return BagAnswers(
        motions={(STAMPS_NS[i], STAMPS_NS[i + 1]): motion for i, motion in enumerate(motions)}
    )


@pytest.fixture
def true_poses() -> TruePoses:
    poses = np.tile(np.eye(4), (4, 1, 1))
    poses[:, 0, 3] = 0, 0.2, 0.2, 0.4
    return TruePoses("hand", "world", TimedPoses(np.array(STAMPS_NS), poses), np.eye(4))


@pytest.fixture
def scores(answers: BagAnswers, true_poses: TruePoses) -> BagScores:
    return score_answers(answers, BagTruth(stamps_ns=STAMPS_NS), true_poses)


def test_pairs_without_direction_are_neither_wrong_nor_unanswered(scores: BagScores) -> None:
    assert (scores.pose.model.pairs, scores.pose.model.directed) == (3, 2)
    assert scores.pose.model.auc[30] == 0.5
    (table,) = scores.pose.tables({})
    assert table.title.startswith("relative pose")
    assert table.note.endswith("moved less than 1 cm: 1.")
    titles = [axes.get_title(loc="left") for axes in plot_errors(scores, 0).axes]
    assert len(titles) == 3
    assert all(title.endswith("; 1 without an answer (crosses)") for title in titles)


def test_the_report_on_hours_of_frames_stays_small() -> None:
    frames = 10_000
    errors = np.random.default_rng(0).random(frames)
    errors[errors < 0.1] = np.nan
    views = [
        ScoredView(i * 10**8, "", 1 + errors[[i]], np.array([np.nan]), np.ones(1), np.zeros(1))
        for i in range(frames)
    ]
    depth = depth_scores(views)
    np.testing.assert_allclose(depth.abs_rel, errors)
    assert len(svg_source(plot_errors(BagScores(depth=depth), 0))) < 300_000


def test_the_covariance_of_motions_is_checked(answers: BagAnswers, true_poses: TruePoses) -> None:
    """By hand: 0.1 m in one of six dimensions, of a standard deviation of 0.05 m."""
    pair = (STAMPS_NS[0], STAMPS_NS[1])
    motion = answers.motions[pair].copy()
    motion[0, 3] += 0.1
    answers.accepted = {pair: (motion, np.eye(6) * 0.05**2)}
    scores = score_answers(answers, BagTruth(stamps_ns=STAMPS_NS), true_poses)
    content = scores.consistency.to_json()
    assert content["nees"]["mean"] == pytest.approx(0.1**2 / 0.05**2 / 6)
    assert content["motions"] == 1


def test_black_pixels_of_rectified_images_need_no_answer() -> None:
    camera = PinholeCamera.from_hfov(64, 48, 60.0)
    visible = np.ones((48, 64), bool)
    visible[:24] = False
    frame = BagFrame(
        stamp_ns=7,
        image=np.zeros((48, 64, 3), np.uint8),
        camera=camera,
        visible=visible,
        depth=np.full((48, 64), 2.0, np.float32),
    )
    truth = read_truth([frame], None, (), {})
    half = GRID[0] * GRID[1] // 2
    assert np.isnan(truth.depths[7][:half]).all()
    answered = np.where(np.arange(2 * half) < half, np.nan, 2.0)
    metrics = score_answers(BagAnswers(depths={7: answered}), truth, None).depth.model
    assert (metrics.delta1, metrics.pixels, metrics.unanswered) == (1, half, 0)
