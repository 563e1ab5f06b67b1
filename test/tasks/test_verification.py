# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from vlm3_ros.engines.base import AnswerUncertainty
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.geometry.epipolar import transferred_pixels
from vlm3_ros.geometry.motion import (
    inverse,
    motion_error,
    motion_from_parts,
    perturbed,
)
from vlm3_ros.tasks.correspondence import Matches
from vlm3_ros.tasks.feature_check import FeatureEvidence
from vlm3_ros.tasks.pose import RelativePose
from vlm3_ros.tasks.reading import Missing
from vlm3_ros.tasks.verification import (
    ANGLE_LIMIT,
    DEPTH_SCALE_STD,
    angle_contradiction,
    answered_covariance,
    fuse,
    median_residual,
    verify_motion,
)

CAMERA = PinholeCamera(320, 240, 260, 260, 160, 120)
CAMERAS = (CAMERA, CAMERA)
TRUE = motion_from_parts(0.4, (0.6, 0.0, 0.8), (6, -2, 1))


def said(T: np.ndarray, distance_std: float = math.nan) -> RelativePose:
    return RelativePose(T, distance_std, ("", "", ""), ())


def seen(T: np.ndarray, noise_px: float = 0.0, count: int = 40, seed: int = 0):
    """Matches of a scene and its depths."""
    rng = np.random.default_rng(seed)
    pixels1 = rng.uniform((0, 0), (320, 240), (count, 2))
    depth1 = rng.uniform(2, 6, count)
    pixels2 = transferred_pixels(T, CAMERA, pixels1, depth1, CAMERA)
    pixels2 = pixels2 + rng.normal(0, 1, pixels2.shape) * noise_px
    return Matches(pixels1, pixels2, ("",) * count), depth1


def test_a_true_motion_is_accepted_and_confirmed_by_depth():
    matches, depth1 = seen(TRUE, noise_px=1)
    accepted = verify_motion(said(TRUE), matches, CAMERAS)
    assert accepted.status == "accepted" and accepted.reason == "the matches agree"
    np.testing.assert_array_equal(accepted.T_cam1_cam2, TRUE)
    fused = verify_motion(said(TRUE), matches, CAMERAS, depth1, backward=said(inverse(TRUE)))
    assert fused.status == "fused" and fused.reason == "40 of 40 matches agree"
    assert np.abs(motion_error(fused.T_cam1_cam2, TRUE)).max() < 0.03
    # More information makes nothing less certain.
    assert np.linalg.eigvalsh(accepted.covariance - fused.covariance).min() > -1e-12
    assert np.linalg.eigvalsh(fused.covariance).min() > 0


def test_geometry_corrects_a_small_error():
    matches, depth1 = seen(TRUE)
    wrong = perturbed(TRUE, [0.03, 0, -0.03, 0, math.radians(1.5), 0])
    fused = verify_motion(said(wrong), matches, CAMERAS, depth1)
    assert fused.status == "fused"
    before = np.abs(motion_error(wrong, TRUE))
    after = np.abs(motion_error(fused.T_cam1_cam2, TRUE))
    assert after.max() < 0.4 * before.max()


@pytest.mark.parametrize(
    ("error", "with_depth", "reason"),
    [
        ([0, 0, 0, math.radians(8), 0, 0], False, "off the motion's epipolar lines"),
        ([0, 0.4, 0, 0, 0, 0], False, "off the motion's epipolar lines"),
        ([*(4 * TRUE[:3, 3]), 0, 0, 0], True, "from matches and depth is 1.6"),
        ([-0.48, 0, -0.64, 0, 0, 0], True, "from matches and depth is 0.8"),  # backwards
    ],
)
def test_a_wrong_motion_is_refused(error, with_depth, reason):
    matches, depth1 = seen(TRUE, noise_px=0.5)
    refused = verify_motion(
        said(perturbed(TRUE, error)), matches, CAMERAS, depth1 if with_depth else None
    )
    assert refused.status == "refused" and reason in refused.reason
    assert np.isnan(refused.T_cam1_cam2).all() and np.isnan(refused.covariance).all()


@pytest.mark.parametrize("direction", [(0.6, 0, 0.8), (1, 0, 0), (0, -0.6, -0.8)])
@pytest.mark.parametrize("length", [0.1, 1.0])
def test_a_reversed_motion_is_refused_if_the_matches_show_it(direction, length):
    """It has the same epipolar lines; if it is short, a turn could explain the matches."""
    T = motion_from_parts(length, direction, (6, -2, 1))
    matches, _ = seen(T, noise_px=1)
    assert verify_motion(said(T), matches, CAMERAS).status == "accepted"
    reversed_motion = motion_from_parts(length, -np.array(direction), (6, -2, 1))
    verdict = verify_motion(said(reversed_motion), matches, CAMERAS)
    if length < 0.5:
        assert verdict.status == "accepted"
    else:
        assert verdict.status == "refused" and "meet behind the cameras" in verdict.reason


def test_random_matches_refuse_any_motion():
    rng = np.random.default_rng(0)
    pixels = rng.uniform((0, 0), (320, 240), (2, 60, 2))
    verdict = verify_motion(said(TRUE), Matches(*pixels, ("",) * 60), CAMERAS)
    assert verdict.status == "refused"


def test_a_wrong_backward_motion_is_refused_and_a_near_one_widens_the_covariance():
    matches, _ = seen(TRUE)
    far = said(inverse(perturbed(TRUE, [0, 0, 0, 0, math.radians(20), 0])))
    refused = verify_motion(said(TRUE), matches, CAMERAS, backward=far)
    assert refused.status == "refused" and "and 20.0 degrees" in refused.reason
    near = said(inverse(perturbed(TRUE, [0.02, 0, 0, 0, math.radians(2), 0])))
    alone = verify_motion(said(TRUE), matches, CAMERAS).covariance
    both = verify_motion(said(TRUE), matches, CAMERAS, backward=near).covariance
    assert both[0, 0] - alone[0, 0] == pytest.approx(0.02**2 / 2)
    assert both[4, 4] - alone[4, 4] == pytest.approx(math.radians(2) ** 2 / 2)


def test_unreadable_or_uncheckable_motions_are_refused():
    matches, _ = seen(TRUE)
    unreadable = RelativePose(
        np.full((4, 4), np.nan), math.nan, ("?", "", ""), (Missing("no answer", "?"),)
    )
    refused = verify_motion(unreadable, matches, CAMERAS)
    assert refused.status == "refused" and "no answer" in refused.reason
    few = Matches(matches.pixels1[:7], matches.pixels2[:7], ("",) * 7)
    assert "7 matches could be read" in verify_motion(said(TRUE), few, CAMERAS).reason
    blind = Matches(matches.pixels1, np.full((40, 2), np.nan), ("",) * 40)
    assert "0 matches could be read" in verify_motion(said(TRUE), blind, CAMERAS).reason
    # An unreadable backward motion checks nothing, and without depth nothing is fused.
    assert verify_motion(said(TRUE), matches, CAMERAS, backward=unreadable).status == "accepted"
    unknown = verify_motion(said(TRUE), matches, CAMERAS, np.full(40, np.nan))
    assert unknown.status == "accepted" and "0 of 0 with depth" in unknown.reason


@pytest.mark.parametrize("yaw", [0, 12])
def test_a_standstill_and_a_turn_in_place_are_verified(yaw):
    T = motion_from_parts(0, (0, 0, 1), (yaw, 0, 0))
    matches, depth1 = seen(T, noise_px=0.5)
    assert median_residual(T, matches, CAMERAS) < math.radians(0.3)
    fused = verify_motion(said(T), matches, CAMERAS, depth1)
    assert fused.status == "fused"
    assert np.abs(motion_error(fused.T_cam1_cam2, T)).max() < 0.01
    turned = motion_from_parts(0, (0, 0, 1), (yaw + 5, 0, 0))
    assert verify_motion(said(turned), matches, CAMERAS).status == "refused"


def test_the_covariance_of_an_answer_lies_along_and_across_its_direction():
    T = motion_from_parts(2.0, (0.6, 0, 0.8), (0, 0, 0))
    about = AnswerUncertainty(0.1, 0.0, 5.0, 3.0)
    C = answered_covariance(T, math.nan, about)
    along, across = np.array([0.6, 0, 0.8]), np.array([0.8, 0, -0.6])
    assert along @ C[:3, :3] @ along == pytest.approx(0.2**2)
    assert across @ C[:3, :3] @ across == pytest.approx((2 * math.radians(5)) ** 2)
    assert along @ C[:3, :3] @ across == pytest.approx(0)
    np.testing.assert_allclose(C[3:, 3:], np.eye(3) * math.radians(3) ** 2)
    stated = answered_covariance(T, 0.05, about)
    assert along @ stated[:3, :3] @ along == pytest.approx(0.05**2)
    standing = answered_covariance(np.eye(4), math.nan)
    assert np.linalg.eigvalsh(standing).min() > 0


@settings(max_examples=25)
@given(st.integers(0, 2**32))
def test_fusing_is_the_information_weighted_mean(seed):
    """In the tangent space, where it is linear: weights are inverse covariances."""
    rng = np.random.default_rng(seed)
    C1, C2 = (root @ root.T + 0.1 * np.eye(6) for root in rng.normal(size=(2, 6, 6)))
    error = 1e-4 * rng.normal(size=6)
    T, C = fuse(TRUE, C1, perturbed(TRUE, error), C2)
    I1, I2 = np.linalg.inv(C1), np.linalg.inv(C2)
    np.testing.assert_allclose(C, np.linalg.inv(I1 + I2), rtol=1e-6, atol=1e-9)
    expected = np.linalg.solve(I1 + I2, I2 @ error)
    np.testing.assert_allclose(motion_error(TRUE, T), expected, atol=1e-8)


@pytest.mark.parametrize("rotation_deg", [0.5, 2.0])
def test_the_rotation_angle_must_agree_within_its_error(rotation_deg):
    about = AnswerUncertainty(rotation_deg=rotation_deg)
    limit = ANGLE_LIMIT * rotation_deg
    for gap, status in (
        (0.99, "accepted"),
        (-0.99, "accepted"),
        (1.01, "refused"),
        (-1.01, "refused"),
    ):
        pose = replace(said(TRUE), angle_deg=20 + gap * limit, rotation_deg=20.0)
        verdict = verify_motion(pose, None, CAMERAS, uncertainty=about)
        assert verdict.status == status
        assert (angle_contradiction(pose, about) is None) == (status == "accepted")
    for unknown in ({"angle_deg": 9.0}, {"rotation_deg": 9.0}, {}):
        assert verify_motion(replace(said(TRUE), **unknown), None, CAMERAS).status == "accepted"


@pytest.mark.parametrize("turn_deg", [0, 1, 3, 90])
def test_true_rotations_pass_the_check_of_their_angle(turn_deg):
    """Each answer errs by the stated amount: 99.5 % of them pass, more at small rotations."""
    rng = np.random.default_rng(2)
    sigma = 2.0
    errors = Rotation.from_rotvec(rng.normal(0, math.radians(sigma), (20_000, 3)))
    seen = errors * Rotation.from_rotvec([0, math.radians(turn_deg), 0])
    angles = np.abs(turn_deg + rng.normal(0, sigma, 20_000))
    gaps = np.abs(np.degrees(seen.magnitude()) - angles)
    assert np.mean(gaps < ANGLE_LIMIT * sigma) > 0.994


def test_stated_covariances_are_those_of_the_errors():
    """Answers and depths have the stated errors: the mean NEES of 6 dimensions is 6."""
    rng = np.random.default_rng(1)
    about = AnswerUncertainty(0.1, 0.01, 5.0, 1.0)
    nees = []
    for seed in range(80):
        C = answered_covariance(TRUE, math.nan, about)
        answer = perturbed(TRUE, -rng.multivariate_normal(np.zeros(6), C))
        matches, depth1 = seen(TRUE, noise_px=0.7, seed=seed)
        depth1 = depth1 * (1 + DEPTH_SCALE_STD * rng.normal())
        verified = verify_motion(said(answer), matches, CAMERAS, depth1, uncertainty=about)
        if verified.status != "fused":
            continue
        error = motion_error(verified.T_cam1_cam2, TRUE)
        nees.append(error @ np.linalg.solve(verified.covariance, error))
    assert len(nees) > 50
    # The mean of 60 has a standard deviation of 0.45; gates and residuals make it conservative.
    assert 4 < np.mean(nees) < 7.5


def test_without_matches_only_the_backward_motion_can_refuse():
    alone = verify_motion(said(TRUE), None, CAMERAS)
    assert (alone.status, alone.reason) == ("accepted", "no matches were asked")
    np.testing.assert_array_equal(alone.T_cam1_cam2, TRUE)
    np.testing.assert_array_equal(alone.covariance, answered_covariance(TRUE, math.nan))
    assert verify_motion(said(TRUE), None, CAMERAS, backward=said(inverse(TRUE))).status == (
        "accepted"
    )
    refused = verify_motion(said(TRUE), None, CAMERAS, backward=said(TRUE))
    assert refused.status == "refused" and "miss each other" in refused.reason


def test_features_that_say_something_replace_the_check_by_matches():
    matches, _ = seen(TRUE)
    off = replace(matches, pixels2=matches.pixels2[::-1])
    few = Matches(
        off.pixels1, np.full((40, 2), np.nan), ("",) * 40, (Missing("no", "unread"),) * 40
    )
    agree = FeatureEvidence(30, 1.0, 0.1, 0.5, -2.0)
    for bad in (off, few):
        assert verify_motion(said(TRUE), bad, CAMERAS).refused_by == "matches"
        accepted = verify_motion(said(TRUE), bad, CAMERAS, features=agree)
        assert accepted.status == "accepted" and accepted.reason == "30 image features agree"
        assert accepted.refused_by is None and np.isfinite(accepted.covariance).all()
    wrong = replace(agree, rotation_deg=9.0)
    refused = verify_motion(said(TRUE), matches, CAMERAS, features=wrong)
    assert (refused.status, refused.refused_by) == ("refused", "image features")
