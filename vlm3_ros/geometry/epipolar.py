# SPDX-License-Identifier: Apache-2.0
"""Two-view geometry: check matches against a motion, and solve the motion from matches.

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
"""Matches for an essential matrix: five leave up to ten solutions, a sixth chooses one."""

MIN_METRIC = 4
"""Matches with depth for a motion: three leave several solutions, a fourth chooses one."""

_CONFIDENCE, _ITERATIONS = 0.999, 1000


@dataclass(frozen=True)
class GeometricMotion:
    """A motion solved from matches.

    `T_cam1_cam2`: in metres, or with a displacement of length 1 if the scale is unknown.
    `inliers`: mask of the matches that it explains, shape (n,).
    """

    T_cam1_cam2: Transform
    inliers: NDArray[np.bool_]


def essential_matrix(T_cam1_cam2: Transform) -> NDArray[np.float64]:
    """Return E with ray1 . E ray2 = 0 for the rays of every point, shape (3, 3)."""
    return cross_matrix(T_cam1_cam2[:3, 3]) @ T_cam1_cam2[:3, :3]


def epipolar_residuals(
    T_cam1_cam2: Transform,
    camera1: PinholeCamera,
    pixels1: ArrayLike,
    camera2: PinholeCamera,
    pixels2: ArrayLike,
) -> NDArray[np.float64]:
    """Measure how far matches are from what a motion allows (Sampson error).

    The distance is an angle at the image centre and so does not depend on the image size. It
    depends neither on the scale of the motion nor on the side of the camera on which the point
    would lie.

    Args:
        pixels1: shape (n, 2).
        pixels2: shape (n, 2).

    Returns:
        Radians, shape (n,): to first order the angle by which both pixels together must move. NaN
        if a pixel is NaN. All NaN for a motion without displacement, which fits any match.
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
    """Return the angles at which the rays of matches meet.

    The rotation of the motion gives the angle, the direction of its displacement the sign. They do
    not depend on the scale.

    Args:
        pixels1: shape (n, 2).
        pixels2: shape (n, 2).

    Returns:
        Radians, shape (n,). Negative if the rays meet behind a camera, where no camera sees a
        point. NaN if a pixel is NaN; 0 for a motion without displacement.
    """
    rays1, rays2 = camera1.rays(pixels1), camera2.rays(pixels2) @ T_cam1_cam2[:3, :3].T
    across = np.cross(rays1, rays2)
    baseline = T_cam1_cam2[:3, 3]
    # Ranges to the point in multiples of the rays, times a positive number.
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
    """Return where the second camera sees what the first one sees at pixels.

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
    """Solve the motion up to its scale from matches: the essential matrix by RANSAC.

    If the camera only turned, the direction of the displacement is arbitrary.

    Args:
        pixels1: shape (n, 2); matches with NaN are ignored.
        pixels2: shape (n, 2).
        tolerance: radians within which a match is an inlier.

    Returns:
        A motion of unit displacement; None if there are fewer than `MIN_ESSENTIAL` matches, or if
        they determine no motion.
    """
    rays1, rays2 = camera1.rays(pixels1)[:, :2], camera2.rays(pixels2)[:, :2]
    known = np.isfinite(rays1).all(1) & np.isfinite(rays2).all(1)
    if known.sum() < MIN_ESSENTIAL:
        return None
    # OpenCV's transform takes its first view to its second one: pass cam2 first.
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
    # Accept points at any distance in front of both cameras: far ones determine the rotation.
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
    """Solve the motion in metres from matches and the depth of the first image: PnP by RANSAC.

    Unlike the essential matrix this also works without displacement. Depths that are too large by
    a factor make the displacement too large by the same factor.

    Args:
        pixels1: shape (n, 2); matches with NaN or without depth are ignored.
        depth1: metres along Z, shape (n,), NaN if unknown.
        pixels2: shape (n, 2).
        tolerance: radians within which a match is an inlier.

    Returns:
        None if there are fewer than `MIN_METRIC` matches, or if they determine no motion.
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
    """Estimate the covariance of `metric_motion_from_matches` from the residuals of its inliers.

    Least squares: s^2 (J' J)^-1, where s^2 is the sum of squared residuals over their degrees of
    freedom, 2 n - 6. Residuals do not show an error that all depths share: add it separately.

    Returns:
        Shape (6, 6), in the axes of the first camera (`vlm3_ros.geometry.motion`); None if there
        are fewer than `MIN_METRIC` inliers, or if they do not determine all directions.
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
    # If the camera moves, the point moves back; if the camera turns, the point's arm swings back.
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
    """Return by how much a motion and the motion back miss the start: metres and degrees."""
    round_trip = T_a_b @ T_b_a
    return float(np.linalg.norm(round_trip[:3, 3])), math.degrees(rotation_angle(round_trip))
