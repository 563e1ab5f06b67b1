# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.geometry.epipolar import (
    closure_error,
    epipolar_residuals,
    essential_matrix,
    metric_motion_covariance,
    metric_motion_from_matches,
    motion_from_matches,
    parallaxes,
    transferred_pixels,
)
from vlm3_ros.geometry.motion import (
    inverse,
    motion_error,
    motion_from_parts,
    motion_parts,
    perturbed,
)

CAMERA1 = PinholeCamera(320, 240, 260, 250, 155, 118)
CAMERA2 = PinholeCamera(256, 192, 200, 205, 130, 97)
TOLERANCE = math.radians(0.5)


@st.composite
def motions(draw: st.DrawFn, shortest: float = 0.1) -> np.ndarray:
    yaw, height, distance = draw(st.tuples(*[st.floats(-1, 1)] * 2, st.floats(shortest, 0.6)))
    direction = np.array([math.sin(3 * yaw), 0.3 * height, math.cos(3 * yaw)])
    angles = [20 * draw(st.floats(-1, 1)), 8 * height, 8 * draw(st.floats(-1, 1))]
    return motion_from_parts(distance, direction / np.linalg.norm(direction), angles)


def scene(T_cam1_cam2: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, ...]:
    """Points in front of both cameras, and their pixels, computed point by point."""
    rng = np.random.default_rng(seed)
    depth1 = rng.uniform(2, 6, count)
    pixels1 = rng.uniform(0, 1, (count, 2)) * (CAMERA1.width, CAMERA1.height)
    T_cam2_cam1 = np.linalg.inv(T_cam1_cam2)
    pixels2 = []
    for (u, v), z in zip(pixels1, depth1, strict=True):
        point = [(u - CAMERA1.cx) / CAMERA1.fx * z, (v - CAMERA1.cy) / CAMERA1.fy * z, z, 1]
        x, y, z2, _ = T_cam2_cam1 @ point
        pixels2.append([CAMERA2.fx * x / z2 + CAMERA2.cx, CAMERA2.fy * y / z2 + CAMERA2.cy])
    return pixels1, depth1, np.array(pixels2)


def degrees_between(a: np.ndarray, b: np.ndarray) -> float:
    return math.degrees(math.atan2(np.linalg.norm(np.cross(a, b)), a @ b))


@settings(max_examples=20)
@given(motions(), st.integers(0, 1000))
def test_true_matches_have_no_residual_and_transfer_onto_each_other(T, seed):
    pixels1, depth1, pixels2 = scene(T, 30, seed)
    residuals = epipolar_residuals(T, CAMERA1, pixels1, CAMERA2, pixels2)
    np.testing.assert_allclose(residuals, 0, atol=1e-12)
    np.testing.assert_allclose(
        transferred_pixels(T, CAMERA1, pixels1, depth1, CAMERA2), pixels2, atol=1e-6
    )


@settings(max_examples=20)
@given(motions(), st.integers(0, 1000), st.floats(-0.01, 0.01))
def test_a_residual_is_the_angle_off_the_epipolar_line(T, seed, angle):
    """For equal gradients in both views the Sampson error is the distance over sqrt(2)."""
    pixels1, _, pixels2 = scene(T, 10, seed)
    line = CAMERA1.rays(pixels1) @ essential_matrix(T)
    normal = line[:, :2] / np.linalg.norm(line[:, :2], axis=1, keepdims=True)
    moved = pixels2 + angle * normal * (CAMERA2.fx, CAMERA2.fy)
    residuals = epipolar_residuals(T, CAMERA1, pixels1, CAMERA2, moved)
    gradient1 = np.linalg.norm((CAMERA2.rays(moved) @ essential_matrix(T).T)[:, :2], axis=1)
    gradient2 = np.linalg.norm(line[:, :2], axis=1)
    expected = abs(angle) * gradient2 / np.hypot(gradient1, gradient2)
    np.testing.assert_allclose(residuals, expected, atol=1e-9)


def test_a_known_residual_of_a_sideways_camera():
    """Epipolar lines of a sideways step are rows: a match is off by 4 rows at f = 200."""
    camera = PinholeCamera(320, 240, 200, 200, 160, 120)
    T = motion_from_parts(0.2, (1, 0, 0), (0, 0, 0))
    residuals = epipolar_residuals(
        T, camera, [[100, 50], [100, 50], [np.nan, 0]], camera, [[80, 50], [80, 54], [80, 54]]
    )
    np.testing.assert_allclose(residuals[:2], [0, 4 / 200 / math.sqrt(2)])
    assert np.isnan(residuals[2])


def test_without_a_displacement_there_are_no_epipolar_lines():
    residuals = epipolar_residuals(np.eye(4), CAMERA1, [[3, 4]], CAMERA2, [[3, 4]])
    assert np.isnan(residuals).all()


@settings(max_examples=20)
@given(motions(), st.integers(0, 1000))
def test_parallaxes_are_the_angles_at_the_points(T, seed):
    pixels1, depth1, pixels2 = scene(T, 20, seed)
    points = CAMERA1.unproject(pixels1, depth1)
    expected = [degrees_between(point, point - T[:3, 3]) for point in points]
    found = np.degrees(parallaxes(T, CAMERA1, pixels1, CAMERA2, pixels2))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    back = T.copy()
    back[:3, 3] *= -3
    found = np.degrees(parallaxes(back, CAMERA1, pixels1, CAMERA2, pixels2))
    np.testing.assert_allclose(found, np.negative(expected), atol=1e-5)


def test_parallaxes_are_zero_for_a_turn_and_nan_for_nan():
    turn = motion_from_parts(0.0, (0, 0, 1), (9, 0, 0))
    pixels1, pixels2 = np.array([[10, 20], [np.nan, 3]]), np.array([[30, 20], [4, 5]])
    found = parallaxes(turn, CAMERA1, pixels1, CAMERA2, pixels2)
    assert found[0] == 0 and np.isnan(found[1])


def test_points_behind_the_second_camera_have_no_pixel():
    T = motion_from_parts(3, (0, 0, 1), (0, 0, 0))
    assert np.isnan(transferred_pixels(T, CAMERA1, [[160, 120]], [2.0], CAMERA2)).all()


def scene_with_wrong_matches(T, seed) -> tuple[np.ndarray, ...]:
    """A scene of 40 points, a quarter of them matched wrongly; also which ones these are."""
    pixels1, depth1, pixels2 = scene(T, 40, seed)
    wrong = np.zeros(40, bool)
    wrong[::4] = True
    pixels2[wrong] += np.random.default_rng(seed).choice([-1, 1], (10, 2)) * (60, 45)
    pixels2[1] = np.nan
    return pixels1, depth1, pixels2, wrong


@settings(max_examples=15)
@given(motions(), st.integers(0, 1000))
def test_depth_and_matches_give_the_motion_among_wrong_matches(T, seed):
    pixels1, depth1, pixels2, wrong = scene_with_wrong_matches(T, seed)
    depth1[2] = np.nan
    metric = metric_motion_from_matches(CAMERA1, pixels1, depth1, CAMERA2, pixels2, TOLERANCE)
    assert np.abs(motion_error(metric.T_cam1_cam2, T)).max() < 1e-4
    assert not metric.inliers[[1, 2]].any() and not metric.inliers[wrong].any()


# Of 2,400 motions of 0.125 m, two had a direction that was off by more than 3 degrees.
@settings(max_examples=15)
@given(motions(shortest=0.2), st.integers(0, 1000))
def test_matches_alone_give_rotation_and_direction_among_wrong_matches(T, seed):
    pixels1, _, pixels2, _ = scene_with_wrong_matches(T, seed)
    scaleless = motion_from_matches(CAMERA1, pixels1, CAMERA2, pixels2, TOLERANCE / 20)
    found, true = motion_parts(scaleless.T_cam1_cam2), motion_parts(T)
    assert found.distance == pytest.approx(1)
    assert degrees_between(found.direction, true.direction) < 3
    np.testing.assert_allclose(found.yaw_pitch_roll_deg, true.yaw_pitch_roll_deg, atol=1)


def test_turns_in_place_and_standstill_have_a_metric_motion():
    for angles in [(0, 0, 0), (15, -4, 3)]:
        T = motion_from_parts(0, (0, 0, 1), angles)
        pixels1, depth1, pixels2 = scene(T, 25, 3)
        metric = metric_motion_from_matches(CAMERA1, pixels1, depth1, CAMERA2, pixels2, TOLERANCE)
        assert np.abs(motion_error(metric.T_cam1_cam2, T)).max() < 1e-5


def test_scaled_depths_scale_the_displacement():
    T = motion_from_parts(0.4, (0, 0, 1), (5, 0, 0))
    pixels1, depth1, pixels2 = scene(T, 25, 4)
    metric = metric_motion_from_matches(
        CAMERA1, pixels1, 1.25 * depth1, CAMERA2, pixels2, TOLERANCE
    )
    np.testing.assert_allclose(metric.T_cam1_cam2[:3, 3], 1.25 * T[:3, 3], atol=1e-5)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_too_few_matches_determine_no_motion(count):
    pixels, depth = np.random.default_rng(0).uniform(0, 100, (count, 2)), np.ones(count)
    assert motion_from_matches(CAMERA1, pixels, CAMERA2, pixels, TOLERANCE) is None
    assert metric_motion_from_matches(CAMERA1, pixels, depth, CAMERA2, pixels, TOLERANCE) is None


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_matches_of_one_pixel_do_not_crash(noise):
    """The solvers may return a motion or None."""
    rng = np.random.default_rng(0)
    pixels1 = np.full((20, 2), 100.0) + noise * rng.normal(size=(20, 2))
    pixels2 = rng.uniform(0, 190, (20, 2))
    for motion in (
        motion_from_matches(CAMERA1, pixels1, CAMERA2, pixels2, TOLERANCE),
        metric_motion_from_matches(CAMERA1, pixels1, np.full(20, 2.0), CAMERA2, pixels2, TOLERANCE),
    ):
        assert motion is None or np.isfinite(motion.T_cam1_cam2).all()


def test_the_covariance_is_that_of_repeated_solutions():
    T = motion_from_parts(0.3, (0.6, 0, 0.8), (6, -2, 1))
    pixels1, depth1, pixels2 = scene(T, 60, 5)
    rng = np.random.default_rng(6)
    errors, covariances = [], []
    for _ in range(60):
        noisy = pixels2 + rng.normal(0, 0.4, pixels2.shape)
        motion = metric_motion_from_matches(
            CAMERA1, pixels1, depth1, CAMERA2, noisy, math.radians(3)
        )
        covariances.append(
            metric_motion_covariance(motion, CAMERA1, pixels1, depth1, CAMERA2, noisy)
        )
        errors.append(motion_error(motion.T_cam1_cam2, T))
    nees = [e @ np.linalg.solve(C, e) for e, C in zip(errors, covariances, strict=True)]
    # The mean of 60 has a standard deviation of sqrt(2 * 6 / 60) = 0.45 about 6.
    assert 4.5 < np.mean(nees) < 7.5
    measured = np.std(errors, axis=0)
    np.testing.assert_allclose(np.sqrt(np.diag(np.mean(covariances, 0))), measured, rtol=0.35)


def test_the_closure_error_is_measured():
    T = motion_from_parts(0.5, (0, 0, 1), (30, 0, 0))
    assert closure_error(T, inverse(T)) == pytest.approx((0, 0), abs=1e-6)
    missed = inverse(perturbed(T, [0.03, 0.04, 0, 0, math.radians(7), 0]))
    metres, degrees = closure_error(T, missed)
    assert degrees == pytest.approx(7)
    assert metres == pytest.approx(np.linalg.norm((T @ missed)[:3, 3]))
