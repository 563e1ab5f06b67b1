# SPDX-License-Identifier: Apache-2.0
"""The velocity of a base from its last poses, whose errors are correlated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vlm3_ros.geometry.motion import (
    Covariance,
    Transform,
    body_twist,
    compose,
    cross_matrix,
    inverse,
)

ACCELERATION_STD = 0.5
"""Standard deviation of accelerations along and about every axis, m/s^2 and rad/s^2.

Nav2's velocity smoother allows a robot 2.5 m/s^2 by default; most of the time it uses far less.
"""

SHORT = 0.01
"""Metres: the error of a shorter distance hardly depends on it."""

_MOST = 2.0
"""Largest factor by which the error of a distance is corrected, and its inverse the smallest."""

_NO_NOISE = 1e-12
"""Variance added to every pose: the first pose of a chain is exact, which no inverse survives."""


@dataclass(frozen=True)
class TrackedPose:
    """A pose of the base, and where its error comes from.

    `T_odom_base`: shape (4, 4), metres. `covariance`: of the motion since the pose from which it
    was measured, shape (6, 6), in the axes of odom. `reference_ns`: stamp of that pose.
    """

    stamp_ns: int
    T_odom_base: Transform
    covariance: Covariance
    reference_ns: int


@dataclass(frozen=True)
class FittedTwist:
    """A twist at the newest of several poses.

    `twist`: (6,), m/s and rad/s in the axes of the base. `covariance`: (6, 6). `poses`: how many
    poses before the newest one determine it, a real number of at least 1: about so many successive
    twists share their errors.
    """

    twist: NDArray[np.float64]
    covariance: Covariance
    poses: float


def fit_twist(track: Sequence[TrackedPose]) -> FittedTwist:
    """Fit the velocity at the newest pose.

    Generalised least squares of a constant acceleration, which is zero give or take
    `ACCELERATION_STD`. Poses measured from the same reference share the error of the reference; a
    pose that is a reference passes its error on. Old poses lose their weight by themselves, since
    the acceleration could explain them.

    It is fitted twice, the second time with errors of the distances that the first speed lets
    expect. The errors that poses claim grow with the distances that were answered: distances that
    are too short would count more than those that are too long, and the speed would come out too
    small, by 9 % if distances err by 20 %.

    Args:
        track: at least two poses, the newest last, with increasing stamps. The error of a reference
            that is not among them is common to all and has no effect.
    """
    speed = float(np.linalg.norm(_fitted(track).twist[:3]))
    return _fitted(_with_expected_errors(track, speed))


def _with_expected_errors(track: Sequence[TrackedPose], speed: float) -> list[TrackedPose]:
    """Scale the errors of positions to the distances that a speed in m/s lets expect."""
    at = {pose.stamp_ns: pose.T_odom_base[:3, 3] for pose in track}
    scaled = []
    for pose in track:
        start = at.get(pose.reference_ns)
        if start is None:
            scaled.append(pose)
            continue
        answered = float(np.linalg.norm(pose.T_odom_base[:3, 3] - start))
        expected = speed * (pose.stamp_ns - pose.reference_ns) / 1e9
        factor = np.clip((expected + SHORT) / (answered + SHORT), 1 / _MOST, _MOST)
        scale = np.array([factor] * 3 + [1.0] * 3)
        scaled.append(replace(pose, covariance=pose.covariance * np.outer(scale, scale)))
    return scaled


def _fitted(track: Sequence[TrackedPose]) -> FittedTwist:
    newest = track[-1]
    index = {pose.stamp_ns: i for i, pose in enumerate(track)}
    size = len(track)
    # Errors of the poses in odom: shares[i, j] takes the noise of pose j to the error of pose i.
    shares = np.zeros((size, size, 6, 6))
    for i, pose in enumerate(track):
        j = index.get(pose.reference_ns)
        if j is not None and j < i:
            swing = np.eye(6)
            swing[:3, 3:] = -cross_matrix(pose.T_odom_base[:3, 3] - track[j].T_odom_base[:3, 3])
            shares[i] = swing @ shares[j]
        shares[i, i] += np.eye(6)
    to_base = np.kron(np.eye(2), newest.T_odom_base[:3, :3].T)
    T_base_odom = inverse(newest.T_odom_base)
    count = size - 1
    motions, seconds = np.zeros((count, 6)), np.zeros(count)
    noise = np.zeros((count, 6, size, 6))
    for i, pose in enumerate(track[:-1]):
        motions[i] = body_twist(compose(T_base_odom, pose.T_odom_base), 1.0)
        seconds[i] = (pose.stamp_ns - newest.stamp_ns) / 1e9
        swing = np.eye(6)
        swing[:3, 3:] = -cross_matrix(pose.T_odom_base[:3, 3] - newest.T_odom_base[:3, 3])
        errors = shares[i] - swing @ shares[-1]
        noise[i] = np.einsum("ab,jbc->ajc", to_base, errors)
    flat = noise.reshape(6 * count, 6 * size)
    own = np.zeros((6 * size, 6 * size))
    for i, pose in enumerate(track):
        own[6 * i : 6 * i + 6, 6 * i : 6 * i + 6] = pose.covariance + _NO_NOISE * np.eye(6)
    bends = np.kron(seconds[:, None] ** 2 / 2, np.eye(6))
    covariance = flat @ own @ flat.T + ACCELERATION_STD**2 * bends @ bends.T
    design = np.kron(seconds[:, None], np.eye(6))
    weighted = np.linalg.solve(covariance, design)
    fitted = np.linalg.inv(weighted.T @ design)
    gain = fitted @ weighted.T
    influence = np.linalg.norm(gain.reshape(6, count, 6), axis=(0, 2)) * np.abs(seconds)
    poses = float(influence.sum() ** 2 / (influence**2).sum())
    return FittedTwist(gain @ motions.ravel(), (fitted + fitted.T) / 2, poses)
