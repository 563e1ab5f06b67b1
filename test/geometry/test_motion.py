# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.linalg import expm
from scipy.spatial.transform import Rotation

from vlm3_ros.geometry.camera import ImageLimits, PinholeCamera, unify_focal
from vlm3_ros.geometry.motion import (
    base_motion,
    base_motion_covariance,
    body_twist,
    compose,
    compose_covariance,
    inverse,
    inverse_covariance,
    metric_motion,
    motion_error,
    motion_from_parts,
    motion_parts,
    perturbed,
    rotation_angle,
    seen_motion,
    transform,
)

angles = st.floats(-180, 180)
pitches = st.floats(-90, 90) | st.sampled_from([-90.0, 90.0]) | st.floats(89.999, 90)
coordinates = st.floats(-20, 20)
points = st.tuples(coordinates, coordinates, coordinates).map(np.array)
directions = points.filter(lambda v: np.linalg.norm(v) > 0.1).map(lambda v: v / np.linalg.norm(v))


def turned(axis: int, degrees: float) -> np.ndarray:
    """The elementary rotation about X, Y or Z, written out."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array(
        [
            [[1, 0, 0], [0, c, -s], [0, s, c]],
            [[c, 0, s], [0, 1, 0], [-s, 0, c]],
            [[c, -s, 0], [s, c, 0], [0, 0, 1]],
        ][axis]
    )


@st.composite
def transforms(draw: st.DrawFn) -> np.ndarray:
    T = np.eye(4)
    T[:3, :3] = turned(1, draw(angles)) @ turned(0, draw(pitches)) @ turned(2, draw(angles))
    T[:3, 3] = draw(points)
    return T


@st.composite
def covariances(draw: st.DrawFn) -> np.ndarray:
    root = np.random.default_rng(draw(st.integers(0, 2**32))).normal(size=(6, 6))
    return root @ root.T


@given(st.floats(0, 30), directions, angles, pitches, angles)
def test_parts_give_the_product_of_elementary_rotations(distance, direction, yaw, pitch, roll):
    T = motion_from_parts(distance, direction, [yaw, pitch, roll])
    np.testing.assert_allclose(
        T[:3, :3], turned(1, yaw) @ turned(0, pitch) @ turned(2, roll), atol=1e-12
    )
    np.testing.assert_allclose(T[:3, 3], distance * direction, atol=1e-12)
    assert T[3].tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize(
    ("yaw_pitch_roll", "axis", "becomes"),
    [
        ((30, 0, 0), (0, 0, 1), (0.5, 0, math.sqrt(0.75))),  # looks to the right
        ((0, 30, 0), (0, 0, 1), (0, -0.5, math.sqrt(0.75))),  # looks up: Y is down
        ((0, 0, 30), (1, 0, 0), (math.sqrt(0.75), 0.5, 0)),  # the right side goes down
        ((90, 90, 0), (0, 0, 1), (0, -1, 0)),
        ((90, 0, 90), (1, 0, 0), (0, 1, 0)),  # roll comes last, about the turned axis
    ],
)
def test_positive_angles_turn_right_look_up_and_bank_right(yaw_pitch_roll, axis, becomes):
    T = motion_from_parts(1, (0, 0, 1), yaw_pitch_roll)
    np.testing.assert_allclose(T[:3, :3] @ axis, becomes, atol=1e-12)


@given(transforms())
@example(transform(Rotation.identity(), [0, 5e-324, 5e-324]))
def test_parts_of_a_motion_give_it_back(T):
    parts = motion_parts(T)
    yaw, pitch, roll = parts.yaw_pitch_roll_deg
    assert abs(yaw) <= 180 and abs(pitch) <= 90 and abs(roll) <= 180
    assert np.linalg.norm(parts.direction) == pytest.approx(1)
    again = motion_from_parts(parts.distance, parts.direction, parts.yaw_pitch_roll_deg)
    np.testing.assert_allclose(again, T, atol=1e-6)


@given(st.floats(0, 30), directions, angles, st.floats(-89, 89), angles)
def test_parts_come_back_away_from_the_poles(distance, direction, yaw, pitch, roll):
    parts = motion_parts(motion_from_parts(distance, direction, [yaw, pitch, roll]))
    assert parts.distance == pytest.approx(distance)
    if distance > 1e-6:
        np.testing.assert_allclose(parts.direction, direction, atol=1e-9)
    difference = (parts.yaw_pitch_roll_deg - (yaw, pitch, roll) + 180) % 360 - 180
    np.testing.assert_allclose(difference, 0, atol=1e-8)
    np.testing.assert_allclose(
        parts.yaw_pitch_roll_deg[1],
        Rotation.from_matrix(motion_from_parts(1, direction, [yaw, pitch, roll])[:3, :3]).as_euler(
            "YXZ", degrees=True
        )[1],
        atol=1e-8,
    )


def test_no_motion_has_a_unit_direction():
    parts = motion_parts(np.eye(4))
    assert parts.distance == 0
    assert parts.direction.tolist() == [0, 0, 1]
    assert parts.yaw_pitch_roll_deg.tolist() == [0, 0, 0]


@given(transforms(), transforms(), points)
def test_compose_and_inverse_move_points_between_their_frames(T_a_b, T_b_c, point_c):
    point_b = T_b_c[:3, :3] @ point_c + T_b_c[:3, 3]
    point_a = T_a_b[:3, :3] @ point_b + T_a_b[:3, 3]
    np.testing.assert_allclose(compose(T_a_b, T_b_c) @ [*point_c, 1], [*point_a, 1], atol=1e-9)
    np.testing.assert_allclose(inverse(T_a_b) @ [*point_a, 1], [*point_b, 1], atol=1e-9)
    np.testing.assert_allclose(inverse(T_a_b), np.linalg.inv(T_a_b), atol=1e-9)


def test_a_long_chain_stays_a_transform():
    rng = np.random.default_rng(0)
    T = np.eye(4)
    for _ in range(1_000):
        T = compose(T, transform(Rotation.from_rotvec(rng.normal(0, 0.1, 3)), rng.normal(size=3)))
    assert np.abs(T[:3, :3] @ T[:3, :3].T - np.eye(3)).max() < 1e-14


@given(transforms(), transforms(), points)
def test_base_and_camera_motion_agree(T_cam1_cam2, T_base_camera, point_cam2):
    """Both ways take a point of the second camera to the same point of the first base."""
    in_base2 = T_base_camera[:3, :3] @ point_cam2 + T_base_camera[:3, 3]
    in_cam1 = T_cam1_cam2[:3, :3] @ point_cam2 + T_cam1_cam2[:3, 3]
    in_base1 = T_base_camera[:3, :3] @ in_cam1 + T_base_camera[:3, 3]
    T = base_motion(T_cam1_cam2, T_base_camera)
    np.testing.assert_allclose(T[:3, :3] @ in_base2 + T[:3, 3], in_base1, atol=1e-9)


def test_a_camera_in_front_of_a_base_that_turns_swings_sideways():
    T_base_camera = np.eye(4)
    T_base_camera[:3, :3] = [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]  # optical axes, looking ahead
    T_base_camera[:3, 3] = [0.5, 0, 1]
    quarter_left = transform(Rotation.from_matrix(turned(2, 90)), [0, 0, 0])
    T_cam1_cam2 = inverse(T_base_camera) @ quarter_left @ T_base_camera
    parts = motion_parts(T_cam1_cam2)
    assert parts.distance == pytest.approx(0.5 * math.sqrt(2))
    np.testing.assert_allclose(parts.direction, [-math.sqrt(0.5), 0, -math.sqrt(0.5)], atol=1e-12)
    np.testing.assert_allclose(parts.yaw_pitch_roll_deg, [-90, 0, 0], atol=1e-9)
    np.testing.assert_allclose(base_motion(T_cam1_cam2, T_base_camera), quarter_left, atol=1e-12)


@given(st.floats(0, 180), directions)
def test_the_rotation_angle_is_that_about_any_axis(degrees, axis):
    T = transform(Rotation.from_rotvec(np.radians(degrees) * axis), [1, 2, 3])
    assert math.degrees(rotation_angle(T)) == pytest.approx(degrees, abs=1e-6)


@given(points, directions, st.floats(0, 3.1), st.floats(0.01, 10))
@example(np.array([1.0, 2.0, 3.0]), np.array([0.0, 0.0, 1.0]), 1e-4, 1.0)
@example(np.array([1.0, 2.0, 3.0]), np.array([0.0, 0.0, 1.0]), 1e-9, 1.0)
def test_a_constant_twist_makes_the_motion(linear, axis, angle, seconds):
    """The matrix exponential of a screw is the motion that its constant velocity makes."""
    x, y, z = axis * angle
    generator = np.zeros((4, 4))
    generator[:3, :3] = [[0, -z, y], [z, 0, -x], [-y, x, 0]]
    generator[:3, 3] = linear
    twist = body_twist(expm(generator), seconds)
    np.testing.assert_allclose(twist[:3] * seconds, linear, atol=1e-6)
    np.testing.assert_allclose(twist[3:] * seconds, axis * angle, atol=1e-6)


@given(transforms(), points, directions, st.floats(0, 3.1))
def test_perturbed_undoes_motion_error(T, shift, axis, angle):
    error = np.concatenate([shift, axis * angle])
    np.testing.assert_allclose(motion_error(T, perturbed(T, error)), error, atol=1e-6)


def test_a_rotation_error_keeps_the_position_and_turns_about_fixed_axes():
    T = transform(Rotation.from_matrix(turned(1, 90)), [1, 2, 3])
    moved = perturbed(T, [0, 0, 0, math.pi / 2, 0, 0])
    assert moved[:3, 3].tolist() == [1, 2, 3]
    np.testing.assert_allclose(moved[:3, :3], turned(0, 90) @ turned(1, 90), atol=1e-12)


def numeric_transport(
    covariance: np.ndarray, T: np.ndarray, function: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """First order, by differences of the exact function at perturbed transforms."""
    step = 1e-6
    jacobian = np.stack(
        [
            motion_error(function(perturbed(T, -step * unit)), function(perturbed(T, step * unit)))
            for unit in np.eye(6)
        ],
        axis=1,
    ) / (2 * step)
    return jacobian @ covariance @ jacobian.T


@given(transforms(), transforms(), covariances(), covariances())
def test_covariances_follow_the_exact_functions(T1, T2, C1, C2):
    cases = [
        (inverse_covariance(C1, T1), numeric_transport(C1, T1, np.linalg.inv)),
        (
            compose_covariance(C1, T1, C2, T2),
            numeric_transport(C1, T1, lambda T: T @ T2)
            + numeric_transport(C2, T2, lambda T: T1 @ T),
        ),
        (
            base_motion_covariance(C1, T1, T2),
            numeric_transport(C1, T1, lambda T: T2 @ T @ np.linalg.inv(T2)),
        ),
    ]
    for found, expected in cases:
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
        assert (found == found.T).all()
        assert np.linalg.eigvalsh(found).min() > -1e-9 * np.abs(found).max()


def test_the_covariance_of_sampled_motions_is_the_transported_one():
    """Noisy poses of a camera, converted to the base one by one."""
    rng = np.random.default_rng(1)
    T = transform(Rotation.from_euler("YXZ", [0.3, 0.1, -0.2]), [0.2, -0.1, 0.7])
    T_base_camera = transform(Rotation.from_euler("YXZ", [1.3, -0.4, 0.2]), [0.5, 0.1, 1.0])
    C = np.diag([1e-2, 2e-2, 3e-2, 1e-2, 4e-3, 2e-2]) ** 2
    errors = rng.multivariate_normal(np.zeros(6), C, 2_000)
    exact = base_motion(T, T_base_camera)
    sample = [motion_error(exact, base_motion(perturbed(T, e), T_base_camera)) for e in errors]
    expected = base_motion_covariance(C, T, T_base_camera)
    assert np.abs(np.cov(sample, rowvar=False) - expected).max() < 0.1 * expected.max()


LIMITS = ImageLimits(32, 32 * 32, 256 * 256)
CLAMPED = ImageLimits(32, 32 * 32, 128 * 128)


@given(transforms(), st.floats(0.4, 2.5), st.floats(0.8, 1.25), st.sampled_from(["scale", "pad"]))
def test_seen_motion_and_metric_motion_are_inverse(T, zoom, squeeze, fit):
    camera = PinholeCamera(300, 200, 250 * zoom, 250 * zoom * squeeze, 150, 100)
    unified = unify_focal(camera, 250, LIMITS, fit)
    np.testing.assert_allclose(metric_motion(seen_motion(T, unified), unified), T, atol=1e-6)


def test_a_model_that_sees_a_displacement_sees_the_same_pixels():
    """A point of the scene, at the depth that the model sees, moves by the same pixels."""
    camera = PinholeCamera(640, 480, 700, 650, 300, 250)
    unified = unify_focal(camera, 250, CLAMPED, "scale")
    assert unified.effective_focal < 0.7 * 250
    T = transform(Rotation.identity(), [0.2, -0.1, 0.5])
    view = unified.view
    believed = PinholeCamera(view.width, view.height, 250, 250, view.cx, view.cy)
    point_cam1 = np.array([0.7, -0.4, 3.0])
    before, after = view.project([point_cam1, point_cam1 - T[:3, 3]])
    believed_point = believed.unproject(before, point_cam1[2] / unified.metric_depth(1.0))
    believed_after = believed.project(believed_point - seen_motion(T, unified)[:3, 3])
    np.testing.assert_allclose(believed_after, after, atol=1e-9)


@pytest.mark.parametrize("angles_deg", [(20, 0, 0), (0, -15, 0), (12, 9, 30), (0, 0, 30)])
def test_a_model_that_sees_a_rotation_sees_the_axis_at_the_same_pixel(angles_deg):
    camera = PinholeCamera(640, 480, 700, 650, 300, 250)
    unified = unify_focal(camera, 250, CLAMPED, "scale")
    view = unified.view
    believed = PinholeCamera(view.width, view.height, 250, 250, view.cx, view.cy)
    T = motion_from_parts(1, (0, 0, 1), angles_deg)
    seen = seen_motion(T, unified)
    np.testing.assert_allclose(believed.project(seen[:3, 2]), view.project(T[:3, 2]), atol=1e-9)
    assert motion_parts(seen).yaw_pitch_roll_deg[2] == pytest.approx(angles_deg[2], abs=1)


@given(angles, st.floats(-89, 89), angles, directions)
def test_rotations_agree_with_tf_transformations(yaw, pitch, roll, direction):
    """ROS's own conversions, in rotating axes Y, X, Z."""
    tf = pytest.importorskip("tf_transformations")
    T = motion_from_parts(1.0, direction, (yaw, pitch, roll))
    expected = tf.euler_matrix(*np.radians([yaw, pitch, roll]), axes="ryxz")
    np.testing.assert_allclose(T[:3, :3], expected[:3, :3], atol=1e-9)
    found = motion_parts(T).yaw_pitch_roll_deg
    np.testing.assert_allclose(
        np.exp(1j * np.array(tf.euler_from_matrix(T, axes="ryxz"))),
        np.exp(1j * np.radians(found)),
        atol=1e-6,
    )
