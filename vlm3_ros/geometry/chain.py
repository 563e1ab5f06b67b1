# SPDX-License-Identifier: Apache-2.0
"""Motions chained to a pose: dead reckoning with covariance."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vlm3_ros.geometry.motion import (
    Covariance,
    Transform,
    body_twist,
    compose,
    compose_covariance,
    inverse,
    inverse_covariance,
)

ORIGIN_COVARIANCE: Covariance = np.eye(6) * 1e-6
"""The origin is exact by definition; filters need a covariance that they can invert."""


def _identity() -> Transform:
    return np.eye(4)


def _certain() -> Covariance:
    return np.zeros((6, 6))


@dataclass(frozen=True)
class ChainedPose:
    """A pose in odom, as the pose of a reference and the motion since then.

    The origin of a chain by default. Transforms have the shape (4, 4), in metres; `covariance_ref`
    is in the axes of odom, `covariance` of the motion in those of the reference, (6, 6) each, see
    `vlm3_ros.geometry.motion`. Both are taken for independent.
    """

    T_odom_ref: Transform = field(default_factory=_identity)
    covariance_ref: Covariance = field(default_factory=ORIGIN_COVARIANCE.copy)
    T_ref_base: Transform = field(default_factory=_identity)
    covariance: Covariance = field(default_factory=_certain)

    @property
    def T_odom_base(self) -> Transform:
        """The pose."""
        return compose(self.T_odom_ref, self.T_ref_base)

    @property
    def covariance_odom_base(self) -> Covariance:
        """Of the pose, in the axes of odom."""
        return compose_covariance(
            self.covariance_ref, self.T_odom_ref, self.covariance, self.T_ref_base
        )

    def moved(self, T_ref_base: Transform, covariance: Covariance) -> ChainedPose:
        """Another pose, from the same reference."""
        return ChainedPose(self.T_odom_ref, self.covariance_ref, T_ref_base, covariance)

    def disturbed(self, covariance: Covariance) -> ChainedPose:
        """The same pose after a motion that is nothing but noise, in the axes of the base."""
        return self.moved(
            self.T_ref_base,
            compose_covariance(self.covariance, self.T_ref_base, covariance, np.eye(4)),
        )

    def as_reference(self) -> ChainedPose:
        """The same pose, for motions since it."""
        return ChainedPose(self.T_odom_base, self.covariance_odom_base)

    def twist_to(
        self, later: ChainedPose, seconds: float
    ) -> tuple[NDArray[np.float64], Covariance]:
        """The velocity that leads to another pose from the same reference.

        Returns:
            The twist (6,), m/s and rad/s in the axes of the base, and its covariance (6, 6).
        """
        T_base_ref = inverse(self.T_ref_base)
        covariance = compose_covariance(
            inverse_covariance(self.covariance, self.T_ref_base),
            T_base_ref,
            later.covariance,
            later.T_ref_base,
        )
        return (
            body_twist(compose(T_base_ref, later.T_ref_base), seconds),
            covariance / seconds**2,
        )
