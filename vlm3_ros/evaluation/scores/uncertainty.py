# SPDX-License-Identifier: Apache-2.0
"""Whether stated uncertainties match the errors, of depths and of motions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from vlm3_ros.engines.base import AnswerUncertainty
from vlm3_ros.evaluation.metrics.calibration import (
    WITHIN_STD,
    Calibration,
    calibrate,
    calibration_json,
)
from vlm3_ros.evaluation.scores.base import Scores
from vlm3_ros.evaluation.scores.depth import ScoredView
from vlm3_ros.evaluation.tables import TextTable


def view_calibration(views: Sequence[ScoredView], std_scale: float = 1.0) -> Calibration | None:
    """Compare errors of depth with their standard deviations, these scaled by a factor.

    Returns:
        None if the engine states no standard deviations.
    """
    return calibrate(
        np.concatenate([view.predicted for view in views]),
        np.concatenate([view.truth for view in views]),
        np.concatenate([view.std for view in views]) * std_scale,
    )


@dataclass(frozen=True)
class DepthUncertainty(Scores):
    """Errors of depth against their standard deviations.

    Attributes:
        name: of the data that `calibration` is from.
        calibration: of the answers as they are.
        checks: calibrations on other data, by name.
        check_json: what metrics.json says of the checks.
    """

    name: str
    calibration: Calibration
    checks: Mapping[str, Calibration] = field(default_factory=dict)
    check_json: Mapping[str, Any] = field(default_factory=dict)

    @property
    def curves(self) -> dict[str, Calibration]:
        """All calibrations by name."""
        return {self.name: self.calibration, **self.checks}

    @override
    def to_json(self) -> dict[str, Any]:
        content = calibration_json(self.calibration)
        return {**content, "check": self.check_json} if self.check_json else content

    @override
    def tables(self, groups: Mapping[str, DepthUncertainty]) -> list[TextTable]:
        return [
            TextTable(
                "standard deviations of depth",
                ("", "errors below std", "coverage off by", "right factor", "pixels"),
                tuple(
                    (
                        name,
                        f"{curve.within_std:.1%}",
                        f"{curve.deviation:.3f}",
                        f"{curve.scale:.3g}",
                        str(curve.pixels),
                    )
                    for name, curve in self.curves.items()
                ),
                f"Right: {WITHIN_STD:.1%} of the errors below their standard deviation. Coverage: "
                "of intervals, mean difference to what they promise.",
                has_baselines=False,
            )
        ]


@dataclass(frozen=True)
class MotionUncertainty(Scores):
    """Errors of motions against the covariance that they were given.

    Attributes:
        nees: of each motion, see `vlm3_ros.evaluation.metrics.consistency`, shape (n,), NaN where
            unanswered.
        assumed: standard deviations of the checkpoint's profile, which the covariance was made
            from; None if it came from elsewhere.
        measured: standard deviations that these answers had.
        nees_measured: `nees` under the measured ones.
        check_json: what metrics.json says of the measured ones on other pairs.
    """

    nees: NDArray[np.float64]
    assumed: AnswerUncertainty | None = None
    measured: AnswerUncertainty | None = None
    nees_measured: NDArray[np.float64] | None = None
    check_json: Mapping[str, Any] = field(default_factory=dict)

    @override
    def to_json(self) -> dict[str, Any]:
        content: dict[str, Any] = {**nees_json(self.nees), "motions": self._motions}
        if self.assumed:
            content["assumed"] = asdict(self.assumed)
        if self.measured and self.nees_measured is not None:
            content["measured"] = {**asdict(self.measured), **nees_json(self.nees_measured)}
        return {**content, "check": self.check_json} if self.check_json else content

    @override
    def tables(self, groups: Mapping[str, MotionUncertainty]) -> list[TextTable]:
        title = f"uncertainty of motions: {self._motions} motions"
        note = "NEES: squared error by the covariance, per degree of freedom; right: 1 on average."
        nees_columns = ("NEES", "median")
        if self.assumed is None:
            row = ("as given", *_nees_cells(self.nees))
            return [TextTable(title, ("", *nees_columns), (row,), note, has_baselines=False)]
        rows = [("assumed", *_std_cells(self.assumed), *_nees_cells(self.nees))]
        if self.measured and self.nees_measured is not None:
            cells = (*_std_cells(self.measured), *_nees_cells(self.nees_measured))
            rows.append(("measured", *cells))
        columns = ("", "distance", "direction", "rotation", "matches", *nees_columns)
        note = f"Standard deviations. {note}"
        return [TextTable(title, columns, tuple(rows), note, has_baselines=False)]

    @property
    def _motions(self) -> int:
        return int(np.isfinite(self.nees).sum())


def nees_json(nees: NDArray[np.float64]) -> dict[str, Any]:
    """Return mean and median of the NEES."""
    return {"nees": {"mean": float(np.nanmean(nees)), "median": float(np.nanmedian(nees))}}


def _nees_cells(nees: NDArray[np.float64]) -> tuple[str, str]:
    return f"{np.nanmean(nees):.2f}", f"{np.nanmedian(nees):.2f}"


def _std_cells(uncertainty: AnswerUncertainty) -> tuple[str, ...]:
    return (
        f"{uncertainty.distance_relative:.0%}",
        f"{uncertainty.direction_deg:.1f}°",
        f"{uncertainty.rotation_deg:.1f}°",
        f"{uncertainty.match_deg:.1f}°",
    )
