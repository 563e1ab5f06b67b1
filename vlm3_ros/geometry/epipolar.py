# SPDX-License-Identifier: Apache-2.0
"""Two views and the pixels that correspond: what a motion predicts, and the motion they tell.

Pixels are (u, v) of each camera's own image. `T_cam1_cam2` takes points of the second optical
frame to the first. Sources: Hartley and Zisserman 2003, chapters 9 and 11 (Sampson error: 11.4.3);
the solvers are OpenCV's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.geometry.motion import (
    Covariance,
    Transform,
    cross_matrix,
    inverse,
    rotation_angle,
    transform,
)

MIN_ESSENTIAL = 6
"""Matches that determine an essential matrix: five do up to ten-fold, one more to choose."""

MIN_METRIC = 4
"""Matches with depth that determine a motion, the fourth to tell its solutions apart."""

_CONFIDENCE, _ITERATIONS = 0.999, 1000


@dataclass(frozen=True)
class GeometricMotion:
    """A motion that was solved from matches.

    `T_cam1_cam2`: in metres, or with a displacement of length 1 where the scale is unknown.
    `inliers`: which matches it explains, shape (n,), bool.
    """

    T_cam1_cam2: Transform
    inliers: NDArray[np.bool_]


def essential_matrix(T_cam1_cam2: Transform) -> NDArray[np.float64]:
    """E with ray1 . E ray2 = 0 for the rays of every point, shape (3, 3)."""
    return cross_matrix(T_cam1_cam2[:3, 3]) @ T_cam1_cam2[:3, :3]


def epipolar_residuals(
    T_cam1_cam2: Transform,
    camera1: PinholeCamera,
    pixels1: ArrayLike,
    camera2: PinholeCamera,
    pixels2: ArrayLike,
) -> NDArray[np.float64]:
    """How far matches are from what a motion allows, radians of view (Sampson error).

    The distance is told as an angle at the image centre, so it does not depend on image sizes. No
    scale enters it, nor on which side of the camera the point would lie.

    Args:
        pixels1: shape (n, 2).
        pixels2: shape (n, 2).

    Returns:
        Shape (n,), to first order the angle by which both pixels together must move; NaN where a
        pixel is NaN, and everywhere for a motion without displacement, which any match fits.
    """
    rays1, rays2 = camera1.rays(pixels1), camera2.rays(pixels2)
    E = essential_matrix(T_cam1_cam2)
    lines1, lines2 = rays2 @ E.T, rays1 @ E
    algebraic = np.abs(np.sum(rays1 * lines1, axis=-1))
    gradient = np.hypot(
        np.linalg.norm(lines1[..., :2], axis=-1), np.linalg.norm(lines2[..., :2], axis=-1)
    )
    return np.divide(algebraic, gradient, out=np.full(algebraic.shape, np.nan), where=gradient > 0)


def parallaxes(
    T_cam1_cam2: Transform,
    camera1: PinholeCamera,
    pixels1: ArrayLike,
    camera2: PinholeCamera,
    pixels2: ArrayLike,
) -> NDArray[np.float64]:
    """The angles at which the rays of matches meet, radians, by the rotation of a motion.

    The direction of its displacement tells where they meet; no scale enters.

    Args:
        pixels1: shape (n, 2).
        pixels2: shape (n, 2).

    Returns:
        Shape (n,), negative where they meet behind a camera: the point that both are said to see
        cannot be there. NaN where a pixel is; 0 for a motion without displacement.
    """
    rays1, rays2 = camera1.rays(pixels1), camera2.rays(pixels2) @ T_cam1_cam2[:3, :3].T
    across = np.cross(rays1, rays2)
    baseline = T_cam1_cam2[:3, 3]
    # To the point, in multiples of the rays and of a positive number.
    range1 = np.sum(np.cross(baseline, rays2) * across, axis=-1)
    range2 = np.sum(np.cross(baseline, rays1) * across, axis=-1)
    angles = np.arctan2(np.linalg.norm(across, axis=-1), np.sum(rays1 * rays2, axis=-1))
    return np.asarray(np.sign(np.minimum(range1, range2)) * angles)


def transferred_pixels(
    T_cam1_cam2: Transform,
    camera1: PinholeCamera,
    pixels1: ArrayLike,
    depth1: ArrayLike,
    camera2: PinholeCamera,
) -> NDArray[np.float64]:
    """Where the second camera sees what the first one sees at these pixels.

    Args:
        pixels1: shape (..., 2).
        depth1: metres along Z of the first camera, shape (...).

    Returns:
        Shape (..., 2), not limited to the image; NaN for points behind the second camera.
    """
    T_cam2_cam1 = inverse(T_cam1_cam2)
    points = camera1.unproject(pixels1, depth1) @ T_cam2_cam1[:3, :3].T + T_cam2_cam1[:3, 3]
    return camera2.project(points)


def motion_from_matches(
    camera1: PinholeCamera,
    pixels1: ArrayLike,
    camera2: PinholeCamera,
    pixels2: ArrayLike,
    tolerance: float,
) -> GeometricMotion | None:
    """The motion up to its scale, from matches alone: the essential matrix by RANSAC.

    It needs a displacement: where the camera only turned, its direction is arbitrary.

    Args:
        pixels1: shape (n, 2); matches that hold NaN are left out.
        pixels2: shape (n, 2).
        tolerance: radians of view within which a match is an inlier.

    Returns:
        A motion of unit displacement; None with fewer than `MIN_ESSENTIAL` matches, or where they
        determine none.
    """
    rays1, rays2 = camera1.rays(pixels1)[:, :2], camera2.rays(pixels2)[:, :2]
    known = np.isfinite(rays1).all(1) & np.isfinite(rays2).all(1)
    if known.sum() < MIN_ESSENTIAL:
        return None
    # OpenCV's transform goes from its first to its second view: here T_cam1_cam2 from cam2.
    E, mask = cv2.findEssentialMat(
        rays2[known],
        rays1[known],
        np.eye(3),
        method=cv2.RANSAC,
        prob=_CONFIDENCE,
        threshold=tolerance,
        maxIters=_ITERATIONS,
    )
    if E is None or E.shape != (3, 3):
        return None
    # Matches are in front of both cameras at any distance: far ones tell the rotation.
    found, R, t, mask, _ = cv2.recoverPose(
        E, rays2[known], rays1[known], np.eye(3), distanceThresh=1e6, mask=mask
    )
    if found < MIN_ESSENTIAL:
        return None
    inliers = np.zeros(len(rays1), bool)
    inliers[known] = mask.ravel() > 0
    return GeometricMotion(transform(Rotation.from_matrix(R), t.ravel()), inliers)


def metric_motion_from_matches(
    camera1: PinholeCamera,
    pixels1: ArrayLike,
    depth1: ArrayLike,
    camera2: PinholeCamera,
    pixels2: ArrayLike,
    tolerance: float,
) -> GeometricMotion | None:
    """The motion in metres, from matches and the depth of the first image: PnP by RANSAC.

    Unlike the essential matrix it holds without any displacement, too. Depths that are too large
    by a factor make the displacement too large by the same one.

    Args:
        pixels1: shape (n, 2); matches that hold NaN are left out, as are those without depth.
        depth1: metres along Z, shape (n,), NaN where unknown.
        pixels2: shape (n, 2).
        tolerance: radians of view within which a match is an inlier.

    Returns:
        None with fewer than `MIN_METRIC` matches, or where they determine no motion.
    """
    points = camera1.unproject(pixels1, depth1)
    rays2 = camera2.rays(pixels2)[:, :2]
    known = np.isfinite(points).all(1) & (points[:, 2] > 0) & np.isfinite(rays2).all(1)
    if known.sum() < MIN_METRIC:
        return None
    try:
        found, turn, t, chosen = cv2.solvePnPRansac(
            points[known],
            rays2[known],
            np.eye(3),
            None,
            iterationsCount=_ITERATIONS,
            reprojectionError=tolerance,
            confidence=_CONFIDENCE,
            flags=cv2.SOLVEPNP_SQPNP,
        )
    except cv2.error:  # points in one place or on one line
        return None
    if not found or chosen is None or len(chosen) < MIN_METRIC:
        return None
    inliers = np.zeros(len(points), bool)
    inliers[np.flatnonzero(known)[chosen.ravel()]] = True
    turn, t = cv2.solvePnPRefineLM(points[inliers], rays2[inliers], np.eye(3), None, turn, t)
    T_cam2_cam1 = transform(Rotation.from_rotvec(turn.ravel()), t.ravel())
    if not np.isfinite(T_cam2_cam1).all():
        return None
    return GeometricMotion(inverse(T_cam2_cam1), inliers)


def metric_motion_covariance(
    motion: GeometricMotion,
    camera1: PinholeCamera,
    pixels1: ArrayLike,
    depth1: ArrayLike,
    camera2: PinholeCamera,
    pixels2: ArrayLike,
) -> Covariance | None:
    """Covariance of a motion from `metric_motion_from_matches`, from what its inliers leave over.

    That of least squares: s^2 (J' J)^-1 with s^2 the squared residuals over their degrees of
    freedom, 2 n - 6. Errors that all depths share do not show in residuals: add them apart.

    Returns:
        Shape (6, 6), in the axes of the first camera (`vlm3_ros.geometry.motion`); None with
        fewer than 4 inliers, or where they leave a direction open.
    """
    inliers = motion.inliers
    if inliers.sum() < MIN_METRIC:
        return None
    R, t = motion.T_cam1_cam2[:3, :3], motion.T_cam1_cam2[:3, 3]
    arms = camera1.unproject(np.asarray(pixels1)[inliers], np.asarray(depth1)[inliers]) - t
    seen = arms @ R
    x, y, z = seen.T
    zero = np.zeros_like(z)
    projection = np.stack(
        [np.stack([1 / z, zero, -x / z**2], -1), np.stack([zero, 1 / z, -y / z**2], -1)], axis=1
    )
    # A displacement of the camera moves the point back, a turn about an axis swings its arm back.
    of_shift = -projection @ R.T
    of_turn = np.cross(arms[:, None], of_shift)
    jacobian = np.concatenate([of_shift, of_turn], axis=-1).reshape(-1, 6)
    residuals = camera2.rays(np.asarray(pixels2)[inliers])[:, :2] - seen[:, :2] / z[:, None]
    information = jacobian.T @ jacobian
    if np.linalg.cond(information) > 1 / np.finfo(float).eps:
        return None
    variance = np.sum(residuals**2) / (2 * len(z) - 6)
    return np.linalg.inv(information) * variance


def closure_error(T_a_b: Transform, T_b_a: Transform) -> tuple[float, float]:
    """How far a motion and its way back miss the start: metres and degrees."""
    round_trip = T_a_b @ T_b_a
    return float(np.linalg.norm(round_trip[:3, 3])), math.degrees(rotation_angle(round_trip))
