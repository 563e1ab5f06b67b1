# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from vlm3_ros.geometry.motion import (
    base_motion_covariance,
    body_twist,
    compose,
    motion_from_parts,
    motion_of_twist,
    perturbed,
    without_plane_coupling,
)
from vlm3_ros.geometry.twist import ACCELERATION_STD, TrackedPose, fit_twist

TWIST = np.array([0.55, 0.02, 0.0, 0.0, 0.01, 0.4])
START = motion_from_parts(3.0, (0.6, 0.8, 0.0), (40, 10, -20))
PERIOD_NS = 200_000_000


def track(poses, covariance, reference_ns=-1) -> list[TrackedPose]:
    return [
        TrackedPose(index * PERIOD_NS, T, covariance, reference_ns) for index, T in enumerate(poses)
    ]


def drive(count: int, acceleration: float = 0.0) -> list[np.ndarray]:
    """Poses 0.2 s apart; the last velocity is TWIST."""
    poses = [START]
    for index in range(count - 1):
        before_end = (count - 1.5 - index) * 0.2
        twist = TWIST - [acceleration * before_end, 0, 0, 0, 0, 0]
        poses.append(compose(poses[-1], motion_of_twist(twist, 0.2)))
    return poses


@pytest.mark.parametrize("seconds", [0.2, 1e-6, 3.0, -0.5])
def test_a_motion_of_a_twist_has_that_twist(seconds):
    motion = motion_of_twist(TWIST, seconds)
    np.testing.assert_allclose(body_twist(motion, seconds), TWIST, rtol=1e-6, atol=1e-9)


def test_two_poses_give_the_motion_between_them():
    fitted = fit_twist(track(drive(2), 1e-4 * np.eye(6)))
    np.testing.assert_allclose(fitted.twist, TWIST, atol=1e-9)
    # Two poses of 1 cm, over 0.2 s, and half of an acceleration.
    expected = 2 * (0.01 / 0.2) ** 2 + (ACCELERATION_STD * 0.1) ** 2
    assert fitted.covariance[5, 5] == pytest.approx(expected, rel=1e-3)
    assert fitted.poses == pytest.approx(1.0)


def test_a_constant_velocity_is_found_exactly_and_better_than_by_two_poses():
    noise = 1e-2 * np.eye(6)
    two, six = (fit_twist(track(drive(count), noise)) for count in (2, 6))
    np.testing.assert_allclose(six.twist, TWIST, atol=1e-6)
    assert six.covariance[0, 0] < two.covariance[0, 0] / 4
    assert 1 < six.poses <= 5


def test_an_acceleration_does_not_delay_the_velocity():
    fitted = fit_twist(track(drive(6, acceleration=1.0), 1e-10 * np.eye(6)))
    np.testing.assert_allclose(fitted.twist, TWIST, atol=0.02)
    # A mean over the second would be 0.5 m/s behind.


def test_errors_have_the_covariance_that_is_told():
    rng = np.random.default_rng(1)
    noise = np.diag([0.05, 0.05, 0.02, 0.01, 0.01, 0.03]) ** 2
    truth = drive(6)
    errors = []
    for _ in range(1500):
        noisy = [perturbed(T, rng.multivariate_normal(np.zeros(6), noise)) for T in truth]
        fitted = fit_twist(track(noisy, noise))
        errors.append(fitted.twist - TWIST)
    spread = np.std(errors, axis=0)
    told = np.sqrt(np.diag(fitted.covariance))
    # It is a little smaller, since this base does not accelerate.
    assert (spread < 1.05 * told).all() and (spread > 0.5 * told).all(), (spread, told)


def test_the_error_of_an_old_reference_is_common_and_has_no_effect():
    """A turn of all poses about their reference is not seen in the twist."""
    about = motion_from_parts(0.0, (0.0, 0.0, 1.0), (25, 0, 0))
    poses = drive(5)
    turned = [about @ T for T in poses]
    one, other = (fit_twist(track(each, 1e-4 * np.eye(6))) for each in (poses, turned))
    np.testing.assert_allclose(one.twist, other.twist, atol=1e-9)


def test_an_error_of_a_keyframe_is_passed_on():
    """The third pose is a keyframe: its error makes no velocity between those after it."""
    noise = 1e-2 * np.eye(6)
    poses, key = drive(6), 2 * PERIOD_NS
    exact = 1e-10 * np.eye(6)
    kept = [
        TrackedPose(pose.stamp_ns, pose.T_odom_base, noise if index <= 2 else exact, reference)
        for index, (pose, reference) in enumerate(
            zip(track(poses, noise), [-1, -1, -1, key, key, key], strict=True)
        )
    ]
    fitted = fit_twist(kept)
    independent = fit_twist(
        [TrackedPose(p.stamp_ns, p.T_odom_base, p.covariance, -1) for p in kept[:3]] + kept[3:]
    )
    assert fitted.covariance[0, 0] <= independent.covariance[0, 0] * 1.001
    assert fitted.covariance[0, 0] < 0.05


def test_a_planar_covariance_survives_a_filter_that_pins_the_rest():
    """robot_localization's `forceTwoD` sets three variances to 1e-6, and no other term."""
    rng = np.random.default_rng(3)
    root = rng.normal(0, 0.5, (6, 6))
    covariance = base_motion_covariance(root @ root.T, np.eye(4), START)
    rest = [2, 3, 4]

    def pinned(matrix: np.ndarray) -> np.ndarray:
        matrix = matrix.copy()
        matrix[rest, rest] = 1e-6
        return matrix

    assert np.linalg.eigvalsh(pinned(covariance)).min() < -0.01
    planar = without_plane_coupling(covariance)
    assert np.linalg.eigvalsh(pinned(planar)).min() > 0
    np.testing.assert_array_equal(np.diag(planar), np.diag(covariance))
    block = np.ix_([0, 1, 5], [0, 1, 5])
    np.testing.assert_array_equal(planar[block], covariance[block])


@pytest.mark.parametrize(("is_planar", "least", "most"), [(False, 0.05, 1.0), (True, 0.0, 1e-12)])
def test_a_planar_filter_stays_in_its_plane(is_planar, least, most):
    """One correction of robot_localization's ekf_node with two_d_mode, without its other states."""
    rng = np.random.default_rng(3)
    root = rng.normal(0, 0.3, (6, 6))
    noise = root @ root.T
    if is_planar:
        noise = without_plane_coupling(noise)
    measured, rest = TWIST.copy(), [2, 3, 4]
    measured[rest] = 0.0
    noise[rest, rest] = 1e-6
    state = np.diag([0.1, 0.1, 0.1, 0.05, 0.05, 0.05])
    corrected = state @ np.linalg.inv(state + noise) @ measured
    assert least <= np.abs(corrected[rest]).max() <= most


def test_noisy_distances_do_not_make_the_speed_too_small():
    """Errors grow with the answered distance, as models have them: short ones claim less."""
    rng = np.random.default_rng(0)
    speed, period, relative = 0.57, 0.3, 0.2
    speeds = []
    for _ in range(300):
        poses = [TrackedPose(0, np.eye(4), np.zeros((6, 6)), 0)]
        keyframe, at = 0, 0.0
        for k in range(1, 8):
            distance = max((k - keyframe) * period * speed * (1 + relative * rng.normal()), 1e-3)
            T = np.eye(4)
            T[0, 3] = at + distance
            along, across = (relative * distance) ** 2, (0.1 * distance) ** 2
            noise = np.diag([along, across, across, 1e-3, 1e-3, 1e-3]) + 25e-6 * np.eye(6)
            stamps = (round(at_k * period * 1e9) for at_k in (k, keyframe))
            poses.append(TrackedPose(next(stamps), T, noise, next(stamps)))
            if k % 3 == 0:
                keyframe, at = k, T[0, 3]
        speeds.append(fit_twist(poses).twist[0])
    assert np.mean(speeds) == pytest.approx(speed, rel=0.03)  # 0.536 with the claimed errors
    assert np.std(speeds) < 0.12
