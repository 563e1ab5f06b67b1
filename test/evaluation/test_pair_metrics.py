# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlm3_ros.evaluation.metrics.pair_baselines import constant_motion
from vlm3_ros.evaluation.metrics.pairs import (
    match_metrics,
    pose_auc,
    pose_errors,
    pose_metrics,
    ufm_scale,
)
from vlm3_ros.geometry.motion import motion_from_parts, motion_parts

UNANSWERED = np.full((4, 4), np.nan)


def motion(distance: float, direction_deg: float, yaw_deg: float) -> np.ndarray:
    """A level motion in a direction to the right of forward."""
    angle = math.radians(direction_deg)
    return motion_from_parts(distance, (math.sin(angle), 0, math.cos(angle)), (yaw_deg, 0, 0))


def test_errors_of_a_pose_by_hand():
    predicted = [motion(0.5, 10, 3), motion(2, 170, -7), motion(0, 0, 1), UNANSWERED]
    truth = [motion(0.4, 0, 1), motion(2, 0, 173), motion(1, 30, 0), motion(1, 0, 0)]
    errors = pose_errors(predicted, truth)
    np.testing.assert_allclose(errors.rotation_deg, [2, 180, 1, np.nan], atol=1e-5)
    np.testing.assert_allclose(errors.direction_deg, [10, 170, 90, np.nan], atol=1e-9)
    np.testing.assert_allclose(errors.distance_m, [0.1, 0, -1, np.nan], atol=1e-12)


def test_the_auc_by_hand():
    """Over 30 bins: 10 with one pair of four, 19 with two, one with three."""
    assert pose_auc([0.5, 10.2, 29.9, 40], 30) == pytest.approx((10 / 4 + 19 / 2 + 3 / 4) / 30)
    assert pose_auc([0.5, 10.2, 29.9, 40], 3) == pytest.approx(1 / 4)
    assert pose_auc([0.0, 0.99], 5) == 1
    assert pose_auc([5.0], 5) == pytest.approx(1 / 5)  # the last bin is closed
    assert pose_auc([1.0], 5) == pytest.approx(4 / 5)  # the others are not
    assert pose_auc([np.nan, np.inf, 0.1, 0.2], 15) == pytest.approx(1 / 2)
    with pytest.raises(ValueError, match="no pair"):
        pose_auc([], 30)


@given(st.lists(st.floats(0, 180) | st.just(math.nan), min_size=1), st.sampled_from([3, 5, 15, 30]))
def test_the_auc_is_the_mean_recall_over_whole_degrees(errors, limit):
    recalls = [
        sum(e < degree or (degree == limit and e == limit) for e in errors) / len(errors)
        for degree in range(1, limit + 1)
    ]
    assert pose_auc(errors, limit) == pytest.approx(sum(recalls) / limit)


def test_the_worse_of_rotation_and_folded_direction_counts():
    truth = [motion(1, 0, 0)] * 4
    predicted = [motion(1, 2.5, 0.5), motion(1, 180, 0.5), motion(3, 0, 12.5), UNANSWERED]
    metrics = pose_metrics(predicted, truth)
    assert metrics.auc[3] == pytest.approx(((0 + 1 + 1 + 1) + (0 + 0 + 1 + 0)) / 4 / 3)
    assert metrics.auc[30] == pytest.approx((30 + 28 + 18) / 4 / 30)
    assert metrics.rotation_deg_median == pytest.approx(0.5, abs=1e-6)
    assert metrics.direction_deg_median == pytest.approx(2.5)  # of 0, 2.5 and 180
    assert metrics.distance_error_m_median == pytest.approx(0)
    assert (metrics.pairs, metrics.directed, metrics.unanswered) == (4, 4, 1)


def test_pairs_at_a_standstill_have_no_direction():
    truth = [motion(0, 0, 5), motion(0.001, 0, 5), motion(1, 0, 5)]
    metrics = pose_metrics([motion(0, 0, 5)] * 2 + [motion(1, 1.5, 5)], truth, no_direction=0.01)
    assert metrics.directed == 1
    assert metrics.auc[3] == pytest.approx(2 / 3)
    assert metrics.direction_deg_median == pytest.approx(1.5)
    assert metrics.pairs == 3


def test_without_answers_scores_are_zero():
    metrics = pose_metrics([UNANSWERED], [motion(1, 0, 0)])
    assert metrics.auc == {30: 0, 15: 0, 5: 0, 3: 0}
    assert math.isnan(metrics.rotation_deg_median) and math.isnan(metrics.direction_deg_median)
    with pytest.raises(ValueError, match="1 motions for 2 true ones"):
        pose_errors([np.eye(4)], [np.eye(4)] * 2)
    with pytest.raises(ValueError, match="not finite"):
        pose_errors([np.eye(4)], [UNANSWERED])


def test_the_end_point_error_by_hand():
    truth = np.zeros((5, 2))
    metrics = match_metrics([[1, 0], [3, 0], [3, 4], [0, 7], [np.nan, np.nan]], truth)
    assert metrics.epe_px == pytest.approx((1 + 3 + 5 + 7) / 4)
    assert metrics.above == {1: pytest.approx(4 / 5), 3: pytest.approx(3 / 5), 5: 2 / 5}
    assert (metrics.matches, metrics.unanswered) == (5, 1)
    assert math.isnan(match_metrics([[np.nan, 0]], [[1, 1]]).epe_px)
    with pytest.raises(ValueError, match="no match"):
        match_metrics(np.zeros((0, 2)), np.zeros((0, 2)))
    with pytest.raises(ValueError, match="shape"):
        match_metrics([[1, 2]], [[1, 2], [3, 4]])
    with pytest.raises(ValueError, match="not finite"):
        match_metrics([[1, 2]], [[np.nan, 2]])


def test_the_epe_of_ufm_is_that_of_images_that_cover_560x420():
    sizes = [(6048, 4032), (1600, 1200), (640, 640), (3024, 4032), (1120, 3000)]
    scales = [420 / 4032, 0.35, 0.875, 420 / 3024, 0.375]
    assert ufm_scale(sizes).tolist() == pytest.approx(scales)
    metrics = match_metrics([[30, 40], [0, 16], [np.nan, 0]], np.zeros((3, 2)), sizes[1:4])
    assert metrics.epe_px == pytest.approx((50 + 16) / 2)
    assert metrics.epe_ufm_px == pytest.approx((50 * 0.35 + 16 * 0.875) / 2)
    assert metrics.epe_share == pytest.approx((50 / 1600 + 16 / 640) / 2)
    assert math.isnan(match_metrics([[1, 0]], [[0, 0]]).epe_ufm_px)


def test_a_distance_without_metric_scale_is_not_scored():
    truth = [motion(5, 0, 5), motion(1, 0, 5)]
    metrics = pose_metrics([motion(1, 0, 5)] * 2, truth, has_distance=[False, True])
    assert metrics.distance_error_m_median == 0
    assert metrics.auc[3] == 1
    alone = pose_metrics([motion(1, 0, 5)], truth[:1], has_distance=False)
    assert math.isnan(alone.distance_error_m_median)
    found = constant_motion(np.stack(truth), [False, True])
    assert motion_parts(found).distance == pytest.approx(1)
