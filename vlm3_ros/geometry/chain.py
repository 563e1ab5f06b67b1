# SPDX-License-Identifier: Apache-2.0
"""Chain motions to a pose: dead reckoning with covariance."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from vlm3_ros.geometry.motion import (
    Covariance,
    Transform,
    compose,
    compose_covariance,
)

ORIGIN_COVARIANCE: Covariance = np.eye(6) * 1e-6
"""The origin is exact by definition, but filters need a covariance that they can invert."""


def _identity() -> Transform:
    return np.eye(4)


def _certain() -> Covariance:
    return np.zeros((6, 6))


@dataclass(frozen=True)
class ChainedPose:
    """A pose in odom: the pose of a reference and the motion since then.

    By default the origin of a chain. Transforms have the shape (4, 4), in metres. Covariances have
    the shape (6, 6), see `vlm3_ros.geometry.motion`: `covariance_ref` is in the axes of odom,
    `covariance` of the motion in those of the reference. Both are assumed to be independent.
    """

    T_odom_ref: Transform = field(default_factory=_identity)
    covariance_ref: Covariance = field(default_factory=ORIGIN_COVARIANCE.copy)
    T_ref_base: Transform = field(default_factory=_identity)
    covariance: Covariance = field(default_factory=_certain)

    @property
    def T_odom_base(self) -> Transform:
        """Pose of the base in odom, shape (4, 4), metres."""
        return compose(self.T_odom_ref, self.T_ref_base)

    @property
    def covariance_odom_base(self) -> Covariance:
        """Covariance of the pose in the axes of odom, shape (6, 6)."""
        return compose_covariance(
            self.covariance_ref, self.T_odom_ref, self.covariance, self.T_ref_base
        )

    @property
    def motion_covariance(self) -> Covariance:
        """Covariance of the motion since the reference, shape (6, 6), in the axes of odom."""
        to_odom = np.kron(np.eye(2), self.T_odom_ref[:3, :3])
        return to_odom @ self.covariance @ to_odom.T

    def moved(self, T_ref_base: Transform, covariance: Covariance) -> ChainedPose:
        """Return another pose from the same reference."""
        return ChainedPose(self.T_odom_ref, self.covariance_ref, T_ref_base, covariance)

    def disturbed(self, covariance: Covariance) -> ChainedPose:
        """Return the same pose with noise added, its covariance in the axes of the base."""
        return self.moved(
            self.T_ref_base,
            compose_covariance(self.covariance, self.T_ref_base, covariance, np.eye(4)),
        )

    def as_reference(self) -> ChainedPose:
        """Return the same pose as the reference of later motions."""
        return ChainedPose(self.T_odom_base, self.covariance_odom_base)
