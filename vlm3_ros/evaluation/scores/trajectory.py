# SPDX-License-Identifier: Apache-2.0
"""Scores of a trajectory against the true one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from typing_extensions import override

from vlm3_ros.evaluation.metrics.trajectories import (
    Trajectory,
    TrajectoryErrors,
    absolute_pose_error,
    aligned,
    relative_pose_error,
)
from vlm3_ros.evaluation.scores.base import Scores
from vlm3_ros.evaluation.tables import TextTable
from vlm3_ros.geometry.motion import inverse


@dataclass(frozen=True)
class TrajectoryScores(Scores):
    """A trajectory of the base against the true one, at the same times.

    Attributes:
        estimate: after its SE(3) alignment.
        truth: at the same times.
        ape: of `estimate` (Umeyama without scale).
        ape_from_start: with the first pose put on the true one instead: the drift since then.
        rpe: from each pose to the next.
        length_m: of the true trajectory.
        chains: parts that resets cut the trajectory into; the scores are those of the longest.
    """

    estimate: Trajectory = field(repr=False)
    truth: Trajectory = field(repr=False)
    ape: TrajectoryErrors
    ape_from_start: TrajectoryErrors
    rpe: TrajectoryErrors
    length_m: float
    chains: int

    @override
    def to_json(self) -> dict[str, Any]:
        return {
            "ape_rmse_m": self.ape.translation_m.rmse,
            "ape_rotation_rmse_deg": self.ape.rotation_deg.rmse,
            "ape_from_start_rmse_m": self.ape_from_start.translation_m.rmse,
            "rpe_rmse_m": self.rpe.translation_m.rmse,
            "rpe_rotation_rmse_deg": self.rpe.rotation_deg.rmse,
            "alignment": "SE(3)",
            "poses": len(self.estimate.poses),
            "chains": self.chains,
            "length_m": self.length_m,
        }

    @override
    def tables(self, groups: Mapping[str, TrajectoryScores]) -> list[TextTable]:
        rows = (
            ("APE after SE(3) alignment", self.ape),
            ("APE from the first pose on", self.ape_from_start),
            ("RPE from pose to pose", self.rpe),
        )
        parts = f"; longest of {self.chains} parts" if self.chains > 1 else ""
        return [
            TextTable(
                f"trajectory: {len(self.estimate.poses)} poses, {self.length_m:.1f} m{parts}",
                ("", "RMSE", "median", "max", "rotation RMSE"),
                tuple(
                    (
                        name,
                        f"{errors.translation_m.rmse:.3f} m",
                        f"{errors.translation_m.median:.3f} m",
                        f"{errors.translation_m.max:.3f} m",
                        f"{errors.rotation_deg.rmse:.2f}°",
                    )
                    for name, errors in rows
                ),
                "The scale is not aligned.",
                has_baselines=False,
            )
        ]

    @override
    def verdict(self) -> str:
        return f"Trajectory: APE {self.ape.translation_m.rmse:.2f} m over {self.length_m:.1f} m."


def trajectory_scores(estimate: Trajectory, truth: Trajectory, chains: int) -> TrajectoryScores:
    """Score a trajectory.

    Args:
        estimate: at least two poses.
        truth: associated with the estimate, of equal length.
        chains: see `TrajectoryScores`.
    """
    started = truth.poses[0] @ inverse(estimate.poses[0]) @ estimate.poses
    best = aligned(estimate, truth)
    places = truth.poses[:, :3, 3]
    return TrajectoryScores(
        estimate=best,
        truth=truth,
        ape=absolute_pose_error(best, truth),
        ape_from_start=absolute_pose_error(Trajectory(estimate.stamps_ns, started), truth),
        rpe=relative_pose_error(estimate, truth),
        length_m=float(np.linalg.norm(np.diff(places, axis=0), axis=1).sum()),
        chains=chains,
    )
