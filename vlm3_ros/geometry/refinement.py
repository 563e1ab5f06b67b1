# SPDX-License-Identifier: Apache-2.0
"""The motion nearest to a given one that explains matches, and how well they determine it.

The scale of the displacement is unknown, so a motion has five unknowns: two of the direction, three
of the rotation. Source: Gauss-Newton on the Sampson error (Hartley and Zisserman 2003, 11.4.3).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.geometry.motion import Transform, cross_matrix, perturbed

_STEPS = 15
_DAMPING = 1e-6
"""Added to the information, relative to its trace: without parallax the direction is free."""


def refined_motion(
    T_cam1_cam2: Transform,
    camera1: PinholeCamera,
    pixels1: ArrayLike,
    camera2: PinholeCamera,
    pixels2: ArrayLike,
    tolerance: float,
) -> Transform:
    """Move a motion to the next minimum of the Sampson errors of matches, with Cauchy weights.

    Args:
        T_cam1_cam2: where to begin; its displacement must not be zero.
        pixels1, pixels2: shape (n, 2) each.
        tolerance: radians; errors well above it have little weight.

    Returns:
        A motion of unit displacement.
    """
    rays1, rays2 = camera1.rays(pixels1), camera2.rays(pixels2)
    T = _of_unit_displacement(T_cam1_cam2)
    # Begin with a wide tolerance: the errors of a motion that is degrees off are all large.
    for wide in np.geomspace(16.0, 1.0, _STEPS):
        residuals, jacobian, tangent = _linearised(T, rays1, rays2)
        weights = 1 / (1 + (residuals / (wide * tolerance)) ** 2)
        information = jacobian.T @ (jacobian * weights[:, None])
        information += _DAMPING * (1e-12 + np.trace(information)) * np.eye(5)
        step = -np.linalg.solve(information, jacobian.T @ (weights * residuals))
        T = _of_unit_displacement(perturbed(T, np.concatenate([tangent @ step[:2], step[2:]])))
    return T


def rotation_std(
    T_cam1_cam2: Transform,
    camera1: PinholeCamera,
    pixels1: ArrayLike,
    camera2: PinholeCamera,
    pixels2: ArrayLike,
    error: float,
) -> float:
    """Return how well matches determine the rotation, whatever the direction of the displacement.

    Args:
        T_cam1_cam2: that explains the matches.
        pixels1, pixels2: of matches without outliers, shape (n, 2) each.
        error: radians; the least standard deviation of a match.

    Returns:
        Standard deviation about each axis, radians, root mean square.
    """
    residuals, jacobian, _ = _linearised(
        _of_unit_displacement(T_cam1_cam2), camera1.rays(pixels1), camera2.rays(pixels2)
    )
    information = jacobian.T @ jacobian
    information += _DAMPING * (1e-12 + np.trace(information)) * np.eye(5)
    variance = max(error**2, float(np.mean(residuals**2)))
    covariance = variance * np.linalg.inv(information)
    return math.sqrt(float(np.trace(covariance[2:, 2:])) / 3)


def _of_unit_displacement(T: Transform) -> Transform:
    scaled = T.copy()
    scaled[:3, 3] /= np.linalg.norm(T[:3, 3])
    return scaled


def _linearised(
    T: Transform, rays1: NDArray[np.float64], rays2: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return signed Sampson errors (n,), their Jacobian (n, 5), and the tangent of directions.

    The tangent, shape (3, 2), takes the first two unknowns to the error of the displacement; the
    other three are the error of the rotation (`vlm3_ros.geometry.motion`).
    """
    t, turned = T[:3, 3], rays2 @ T[:3, :3].T
    E = cross_matrix(t) @ T[:3, :3]
    gradient = np.hypot(
        np.linalg.norm((rays2 @ E.T)[:, :2], axis=1), np.linalg.norm((rays1 @ E)[:, :2], axis=1)
    )
    gradient = np.maximum(gradient, np.finfo(float).tiny)[:, None]
    tangent = np.linalg.svd(t[None])[2][1:].T
    of_shift = np.cross(turned, rays1) @ tangent
    of_turn = np.cross(turned, np.cross(rays1, t))
    residuals = np.sum(rays1 * np.cross(t, turned), axis=1)
    return residuals / gradient[:, 0], np.hstack([of_shift, of_turn]) / gradient, tangent
