# SPDX-License-Identifier: Apache-2.0
"""Whether errors match their stated standard deviations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import norm

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
"""Levels of the central intervals."""

WITHIN_STD = float(norm.cdf(1) - norm.cdf(-1))
"""Share of normal errors below their standard deviation: 0.683."""


@dataclass(frozen=True)
class Calibration:
    """How often the truth lies in the central intervals of normal distributions.

    Attributes:
        pixels: answers with a standard deviation.
        within_std: share of errors below their standard deviation; WITHIN_STD is right.
        coverage: observed share inside the interval of each of LEVELS; the level is right.
        deviation: mean absolute difference of observed share and level.
        scale: factor on the standard deviations that makes `within_std` right.
    """

    pixels: int
    within_std: float
    coverage: tuple[float, ...]
    deviation: float
    scale: float


def calibrate(predicted: ArrayLike, truth: ArrayLike, std: ArrayLike) -> Calibration | None:
    """Compare errors with standard deviations.

    Args:
        predicted, truth, std: in the same unit, shape (n,); entries with a NaN are skipped.

    Returns:
        None if there is nothing to compare.
    """
    values = np.stack([np.asarray(array, float) for array in (predicted, truth, std)])
    p, g, s = values[:, np.isfinite(values).all(axis=0)]
    if not len(p):
        return None
    error = np.abs(p - g)
    in_stds = np.divide(error, s, where=s > 0, out=np.where(error > 0, np.inf, 0.0))
    coverage = np.array([(in_stds <= norm.ppf((1 + level) / 2)).mean() for level in LEVELS])
    return Calibration(
        pixels=len(error),
        within_std=float((in_stds <= 1).mean()),
        coverage=tuple(coverage.tolist()),
        deviation=float(np.abs(coverage - LEVELS).mean()),
        scale=float(np.quantile(in_stds, WITHIN_STD, method="inverted_cdf")),
    )


@dataclass(frozen=True)
class ScaleCheck:
    """Effect of a factor on standard deviations, on answers that it was not fitted to.

    `before`, `after`: without and with the factor.
    """

    scale: float
    before: Calibration
    after: Calibration

    @property
    def helps(self) -> bool:
        """Whether coverage comes closer to the levels."""
        return self.after.deviation < self.before.deviation


def calibration_json(calibration: Calibration) -> dict[str, Any]:
    """Return a calibration as JSON."""
    return {
        "pixels": calibration.pixels,
        "within_std": calibration.within_std,
        "within_std_expected": WITHIN_STD,
        "levels": LEVELS,
        "coverage": calibration.coverage,
        "deviation": calibration.deviation,
        "scale": calibration.scale,
    }


def draw_reliability(curves: Mapping[str, Calibration], path: Path | str, title: str) -> None:
    """Draw observed against expected coverage, one curve per calibration, as a PNG.

    Args:
        curves: by name in the legend.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 5), dpi=110, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="black", linewidth=0.8, linestyle=":", label="right")
    for name, calibration in curves.items():
        shares = [0.0, *calibration.coverage]
        axes.plot(
            [0.0, *LEVELS],
            shares,
            "o-",
            markersize=3.5,
            label=f"{name}: {calibration.within_std:.0%} within std",
        )
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("central interval of the answer's distribution")
    axes.set_ylabel("share of true depths inside")
    axes.set_aspect("equal")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False, loc="upper left")
    figure.savefig(path)
