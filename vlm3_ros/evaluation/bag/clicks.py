# SPDX-License-Identifier: Apache-2.0
"""Clicked pixels of a bag's image: the answered points and the true ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from vlm3_ros.evaluation.bag.answers import Click
from vlm3_ros.evaluation.bag.frames import BagFrame, BagFrames
from vlm3_ros.evaluation.scores.base import Scores
from vlm3_ros.evaluation.tables import TextTable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDTH = 7.0  # inches
_COLOURS = ("#e4572e", "#2c6fae", "#2a7f3f", "#8a4fbf")


@dataclass(frozen=True)
class ScoredClick:
    """A click with an answer, and the truth.

    `pixel`: (u, v) of the answered point in the rectified image. `true_point`: metres in the
    optical frame, shape (3,), NaN if the bag has no depth there.
    """

    click: Click
    frame: BagFrame
    pixel: NDArray[np.float64]
    true_point: NDArray[np.float64]

    @property
    def error(self) -> float:
        """Metres from the true point to the answered one, NaN if unknown."""
        return float(np.linalg.norm(self.click.point - self.true_point))


@dataclass(frozen=True)
class ScoredClicks(Scores):
    """All clicks of a bag."""

    clicks: Sequence[ScoredClick]

    @override
    def to_json(self) -> list[dict[str, Any]]:
        return clicks_json(self.clicks)

    @override
    def tables(self, groups: Mapping[str, ScoredClicks]) -> list[TextTable]:
        return [clicks_table(self.clicks)]


def score_clicks(frames: BagFrames, clicks: Sequence[Click]) -> list[ScoredClick]:
    """Compare answered clicks with the bag's depth at their pixels.

    Args:
        frames: of the bag, which is read for the clicked images.
        clicks: refused ones are left out.
    """
    stamps = {click.stamp_ns for click in clicks if click.stamp_ns is not None}
    clicked = {frame.stamp_ns: frame for frame in frames.at(stamps)}
    return [
        _score(click, clicked[click.stamp_ns])
        for click in clicks
        if click.stamp_ns is not None and click.stamp_ns in clicked
    ]


def clicks_table(scored: Sequence[ScoredClick]) -> TextTable:
    """Return a table of clicks with answer and truth."""
    return TextTable(
        "clicked pixels of the last image",
        ("pixel", "answered x y z, m", "true x y z, m", "error, m", "std, m"),
        tuple(
            (
                _pair(s.click.pixel),
                _triple(s.click.point),
                _triple(s.true_point),
                "" if np.isnan(s.error) else f"{s.error:.2f}",
                "" if s.click.uncertainty is None else f"{s.click.uncertainty:.2f}",
            )
            for s in scored
        ),
        "clicked_pixel in, clicked_point out, in the camera's optical frame",
        has_baselines=False,
    )


def clicks_json(scored: Sequence[ScoredClick]) -> list[dict[str, Any]]:
    """Return the clicks for metrics.json; unknown values are null."""
    return [
        {
            "pixel": list(s.click.pixel),
            "stamp_ns": s.click.stamp_ns,
            "point_m": s.click.point.tolist(),
            "true_point_m": None if np.isnan(s.error) else s.true_point.tolist(),
            "error_m": None if np.isnan(s.error) else s.error,
            "uncertainty_m": s.click.uncertainty,
        }
        for s in scored
    ]


def plot_clicks(scored: Sequence[ScoredClick]) -> Figure:
    """Draw the clicked image, and at each pixel the answered point and the true one.

    Args:
        scored: at least one; clicks on the first one's image are drawn.
    """
    from matplotlib.figure import Figure

    frame = scored[0].frame
    height, width = frame.image.shape[:2]
    figure = Figure(
        figsize=(_WIDTH, _WIDTH * height / width + 0.5), layout="constrained", facecolor="white"
    )
    axes = figure.subplots()
    axes.imshow(frame.image)
    axes.set(xticks=[], yticks=[])
    axes.set_title("clicked_pixel and clicked_point: x y z in the optical frame, m", fontsize=10)
    shown = [s for s in scored if s.frame.stamp_ns == frame.stamp_ns]
    for index, s in enumerate(shown):
        colour = _COLOURS[index % len(_COLOURS)]
        axes.plot(*s.pixel, "+", color="white", markersize=16, markeredgewidth=4)
        axes.plot(*s.pixel, "+", color=colour, markersize=15, markeredgewidth=2)
        text = _triple(s.click.point)
        if not np.isnan(s.error):
            text += f"\ntrue {_triple(s.true_point)}"
        axes.annotate(
            text,
            (s.pixel[0], s.pixel[1]),
            xytext=(0, 12),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=8.5,
            color=colour,
            bbox={"boxstyle": "round,pad=0.3", "facecolor": "white", "edgecolor": colour},
        )
    return figure


def _score(click: Click, frame: BagFrame) -> ScoredClick:
    pixel = frame.camera.project(click.point)
    true_point = np.full(3, np.nan)
    if frame.depth is not None:
        # At the edge of the image, rounding may lead out of it.
        last = (frame.camera.width - 1, frame.camera.height - 1)
        u, v = np.clip(np.rint(pixel).astype(int), 0, last)
        true_point = frame.camera.unproject(pixel, frame.depth[v, u])
    return ScoredClick(click, frame, pixel, true_point)


def _pair(pixel: tuple[float, float]) -> str:
    return f"{pixel[0]:.0f}, {pixel[1]:.0f}"


def _triple(point: NDArray[np.float64]) -> str:
    return " ".join(f"{number:.2f}" for number in point) if np.isfinite(point).all() else "unknown"
