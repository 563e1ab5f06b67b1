# SPDX-License-Identifier: Apache-2.0
"""Motions between camera poses: transforms, the three answers of the paper, and covariances.

A transform `T_a_b`, shape (4, 4), takes points of frame b to frame a; its last column is the
position of b in a. Axes of a camera are optical (REP-103): X right, Y down, Z forward; those of a
base are X forward, Y left, Z up.

Covariances are 6x6 in the order of geometry_msgs/PoseWithCovariance: x, y, z in metres, then the
rotations about X, Y, Z in radians. That of `T_a_b` is in the fixed axes of a: for an error
(dt, dr), the true transform has the translation t + dt and the rotation exp(dr) R. So a rotation
error turns b about its own origin and does not move it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from vlm3_ros.geometry.camera import UnifiedCamera

Transform = NDArray[np.float64]
Covariance = NDArray[np.float64]

FORWARD = (0.0, 0.0, 1.0)
"""Direction of a motion without displacement, by convention."""


@dataclass(frozen=True)
class MotionParts:
    """A motion T_cam1_cam2 as the paper's three answers (section 3.2).

    `distance`: metres. `direction`: unit vector in the first camera's axes, shape (3,).
    `yaw_pitch_roll_deg`: shape (3,), intrinsic in the order Y, X, Z: yaw positive turns right,
    pitch positive looks up, roll positive banks right.
    """

    distance: float
    direction: NDArray[np.float64]
    yaw_pitch_roll_deg: NDArray[np.float64]


def transform(rotation: Rotation, translation: ArrayLike) -> Transform:
    """Build a transform from a rotation and a translation (3,)."""
    T = np.eye(4)
    T[:3, :3] = rotation.as_matrix()
    T[:3, 3] = translation
    return T


def motion_from_parts(
    distance: float, direction: ArrayLike, yaw_pitch_roll_deg: ArrayLike
) -> Transform:
    """Build T_cam1_cam2 from the paper's three answers, see `MotionParts`."""
    rotation = Rotation.from_euler("YXZ", np.asarray(yaw_pitch_roll_deg, float), degrees=True)
    return transform(rotation, distance * np.asarray(direction, dtype=float))


def motion_parts(T_cam1_cam2: Transform) -> MotionParts:
    """Split a motion into the paper's three answers.

    Yaw and roll lie in [-180, 180], pitch in [-90, 90]. If the second camera looks straight up or
    down, only the sum or difference of yaw and roll has a meaning, and roll is 0. Without
    displacement the direction is `FORWARD`.
    """
    translation = T_cam1_cam2[:3, 3]
    distance = math.hypot(*translation)
    # Below this the quotient has lost its digits.
    is_displaced = distance >= np.finfo(float).tiny
    direction = translation / distance if is_displaced else np.array(FORWARD)
    return MotionParts(distance, direction, _yaw_pitch_roll_deg(T_cam1_cam2[:3, :3]))


def _yaw_pitch_roll_deg(R: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the angles of R = Ry(yaw) Rx(pitch) Rz(roll), shape (3,).

    scipy warns at the poles, which are an ordinary case here.
    """
    forward = R[:, 2]
    level = np.hypot(forward[0], forward[2])
    pitch = np.arctan2(-forward[1], level)
    if level < 1e-9:
        yaw, roll = np.arctan2(-R[2, 0], R[0, 0]), 0.0
    else:
        yaw, roll = np.arctan2(forward[0], forward[2]), np.arctan2(R[1, 0], R[1, 1])
    return np.degrees([yaw, pitch, roll])


def inverse(T_a_b: Transform) -> Transform:
    """Return T_b_a."""
    T = np.eye(4)
    T[:3, :3] = T_a_b[:3, :3].T
    T[:3, 3] = -T[:3, :3] @ T_a_b[:3, 3]
    return T


def compose(T_a_b: Transform, T_b_c: Transform) -> Transform:
    """Return T_a_c with its rotation made orthonormal, so that long chains stay transforms."""
    product = T_a_b @ T_b_c
    return transform(Rotation.from_matrix(product[:3, :3]), product[:3, 3])


def base_motion(T_cam1_cam2: Transform, T_base_camera: Transform) -> Transform:
    """Return T_base1_base2, the motion of a base that carries the camera at a fixed place."""
    return compose(compose(T_base_camera, T_cam1_cam2), inverse(T_base_camera))


def rotation_angle(T: Transform) -> float:
    """Return the angle of a transform's rotation, radians in [0, pi]."""
    return float(Rotation.from_matrix(T[:3, :3]).magnitude())


def angles_between(vectors: ArrayLike, others: ArrayLike) -> NDArray[np.float64]:
    """Return angles between vectors of any length, radians in [0, pi], accurate if tiny.

    Args:
        vectors, others: shape (..., 3).

    Returns:
        Shape (...,); 0 if a vector is zero, NaN if one is NaN.
    """
    a, b = np.asarray(vectors, dtype=float), np.asarray(others, dtype=float)
    sine = np.linalg.norm(np.cross(a, b), axis=-1)
    return np.asarray(np.arctan2(sine, np.sum(a * b, axis=-1)))


def body_twist(T_base1_base2: Transform, seconds: float) -> NDArray[np.float64]:
    """Return the constant velocity that makes a motion in a time.

    Returns:
        Shape (6,): linear in m/s, angular in rad/s, in the axes of the moving base, as in the
        twist of nav_msgs/Odometry. It is the SE(3) logarithm over time: a base that drives a bend
        has only a forward velocity, although its displacement points inwards.
    """
    turn = Rotation.from_matrix(T_base1_base2[:3, :3]).as_rotvec()
    angle, cross = np.linalg.norm(turn), cross_matrix(turn)
    # Second-order factor. For small angles use its series: the closed form loses its digits.
    factor = (1 - angle / 2 / np.tan(angle / 2)) / angle**2 if angle > 1e-4 else 1 / 12
    linear = T_base1_base2[:3, 3]
    linear = linear - cross @ linear / 2 + factor * cross @ cross @ linear
    return np.concatenate([linear, turn]) / seconds


def motion_of_twist(twist: NDArray[np.float64], seconds: float) -> Transform:
    """Return the motion T_base1_base2 of a constant velocity (6,); the inverse of `body_twist`."""
    shift, turn = np.asarray(twist[:3]) * seconds, np.asarray(twist[3:]) * seconds
    angle, cross = np.linalg.norm(turn), cross_matrix(turn)
    first, second = 0.5, 1 / 6
    if angle > 1e-4:  # below, the closed form loses its digits
        first = (1 - np.cos(angle)) / angle**2
        second = (angle - np.sin(angle)) / angle**3
    bend = np.eye(3) + first * cross + second * cross @ cross
    return transform(Rotation.from_rotvec(turn), bend @ shift)


def motion_error(T_a_b: Transform, T_a_b_true: Transform) -> NDArray[np.float64]:
    """Return the error (dt, dr) of a transform, as in covariances: metres, radians; shape (6,)."""
    turn = Rotation.from_matrix(T_a_b_true[:3, :3] @ T_a_b[:3, :3].T).as_rotvec()
    return np.concatenate([T_a_b_true[:3, 3] - T_a_b[:3, 3], turn])


def perturbed(T_a_b: Transform, error: ArrayLike) -> Transform:
    """Return the true transform for an error (6,); the inverse of `motion_error`."""
    error = np.asarray(error, dtype=float)
    rotation = Rotation.from_rotvec(error[3:]) * Rotation.from_matrix(T_a_b[:3, :3])
    return transform(rotation, T_a_b[:3, 3] + error[:3])


def inverse_covariance(covariance: Covariance, T_a_b: Transform) -> Covariance:
    """Return the covariance of T_b_a (in the axes of b) from that of T_a_b (in the axes of a)."""
    R_b_a = T_a_b[:3, :3].T
    jacobian = -_block_diagonal(R_b_a)
    jacobian[:3, 3:] = -R_b_a @ cross_matrix(T_a_b[:3, 3])
    return _transported(jacobian, covariance)


def compose_covariance(
    covariance_a_b: Covariance, T_a_b: Transform, covariance_b_c: Covariance, T_b_c: Transform
) -> Covariance:
    """Return the covariance of T_a_c (in the axes of a) for independent errors."""
    R_a_b = T_a_b[:3, :3]
    jacobian = np.eye(6)
    # If b turns, c swings about it.
    jacobian[:3, 3:] = -cross_matrix(R_a_b @ T_b_c[:3, 3])
    return _transported(jacobian, covariance_a_b) + _transported(
        _block_diagonal(R_a_b), covariance_b_c
    )


def without_plane_coupling(covariance: Covariance) -> Covariance:
    """Return a covariance (6, 6) without terms between x, y, yaw and z, roll, pitch.

    Variances, and the terms among x, y and yaw, stay. robot_localization's two_d_mode sets the
    variances of z, roll and pitch to 1e-6 and keeps the other terms: what is left is no covariance
    any more, and its filter leaves the plane.
    """
    planar = np.isin(np.arange(6), (0, 1, 5))
    kept = np.outer(planar, planar) | np.eye(6, dtype=bool)
    return np.where(kept, covariance, 0.0)


def base_motion_covariance(
    covariance: Covariance, T_cam1_cam2: Transform, T_base_camera: Transform
) -> Covariance:
    """Return the covariance of T_base1_base2 (axes of base1) from that of T_cam1_cam2 (of cam1).

    The pose of the camera on the base is assumed to be exact.
    """
    R_base_camera, lever = T_base_camera[:3, :3], T_base_camera[:3, 3]
    R_base1_base2 = R_base_camera @ T_cam1_cam2[:3, :3] @ R_base_camera.T
    jacobian = _block_diagonal(R_base_camera)
    jacobian[:3, 3:] = cross_matrix(R_base1_base2 @ lever) @ R_base_camera
    return _transported(jacobian, covariance)


def metric_motion(T_seen: Transform, first: UnifiedCamera) -> Transform:
    """Return T_cam1_cam2 from the motion that a model sees, which assumes the learned focal length.

    As in `UnifiedCamera.metric_depth`, sizes across the view are right, and depth is off by the
    ratio of the focal lengths, as is the displacement along the axis. The model sees the second
    camera's axis at the right pixel but at a different angle, and the turn about that axis
    unchanged. This is exact for displacements, and for rotations if they only shift the image.

    Args:
        T_seen: from the model's answers.
        first: how the first image entered the model.
    """
    scale = _ray_scale(first)
    lateral = first.effective_focal / first.learned_focal
    return _rescaled(T_seen, lateral / scale, 1 / scale)


def seen_motion(T_cam1_cam2: Transform, first: UnifiedCamera) -> Transform:
    """Return the motion that a model sees; the inverse of `metric_motion`, for training."""
    scale = _ray_scale(first)
    lateral = first.effective_focal / first.learned_focal
    return _rescaled(T_cam1_cam2, scale / lateral, scale)


def _ray_scale(camera: UnifiedCamera) -> NDArray[np.float64]:
    """Return the factors from rays (x, y, 1) to rays at the learned focal length, shape (3,)."""
    view, focal = camera.view, camera.learned_focal
    return np.array([view.fx / focal, view.fy / focal, 1.0])


def _rescaled(
    T: Transform, translation_scale: NDArray[np.float64], axis_scale: NDArray[np.float64]
) -> Transform:
    """Scale translation and optical axis along the axes; turn the optical axis the shortest way."""
    axis = T[:3, 2]
    scaled = axis_scale * axis
    swing = np.cross(axis, scaled)
    sine = np.linalg.norm(swing)
    if sine > 0:
        swing *= np.arctan2(sine, axis @ scaled) / sine
    rotation = Rotation.from_rotvec(swing) * Rotation.from_matrix(T[:3, :3])
    return transform(rotation, translation_scale * T[:3, 3])


def cross_matrix(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the matrix, shape (3, 3), that takes w to the cross product of the vector and w."""
    x, y, z = vector
    return np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])


def _block_diagonal(R: NDArray[np.float64]) -> NDArray[np.float64]:
    jacobian = np.zeros((6, 6))
    jacobian[:3, :3] = jacobian[3:, 3:] = R
    return jacobian


def _transported(jacobian: NDArray[np.float64], covariance: Covariance) -> Covariance:
    moved = jacobian @ np.asarray(covariance, dtype=float) @ jacobian.T
    return (moved + moved.T) / 2
