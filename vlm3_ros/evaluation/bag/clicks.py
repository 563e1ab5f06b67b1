# SPDX-License-Identifier: Apache-2.0
"""Clicked pixels of a bag's image: where the model says they are, and where they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vlm3_ros.evaluation.bag.answers import Click
from vlm3_ros.evaluation.bag.frames import BagFrame, BagFrames
from vlm3_ros.evaluation.tables import TextTable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDTH = 7.0  # inches
_COLOURS = ("#e4572e", "#2c6fae", "#2a7f3f", "#8a4fbf")


@dataclass(frozen=True)
class ScoredClick:
    """A click with an answer, and what is true of it.

    `pixel`: (u, v) of the rectified image where the answered point is seen. `true_point`: metres in
    the optical frame, shape (3,), NaN where the bag does not tell.
    """

    click: Click
    frame: BagFrame
    pixel: NDArray[np.float64]
    true_point: NDArray[np.float64]

    @property
    def error(self) -> float:
        """Metres from the true point to the answered one, NaN where it is unknown."""
        return float(np.linalg.norm(self.click.point - self.true_point))


def score_clicks(frames: BagFrames, clicks: Sequence[Click]) -> list[ScoredClick]:
    """Clicks that were answered, beside the bag's depth at their pixels.

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
    """Each click with its answer and the truth."""
    return TextTable(
        "clicked pixels of the last image",
        ("pixel", "answered x y z, m", "true x y z, m", "off by, m", "std, m"),
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
    """The same for metrics.json; null where something is unknown."""
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
    """The clicked image, at each pixel the point that was answered, and the true one.

    Args:
        scored: one or more; those of the first one's image are drawn.
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
        # On the image's very edge rounding may lead out of it.
        last = (frame.camera.width - 1, frame.camera.height - 1)
        u, v = np.clip(np.rint(pixel).astype(int), 0, last)
        true_point = frame.camera.unproject(pixel, frame.depth[v, u])
    return ScoredClick(click, frame, pixel, true_point)


def _pair(pixel: tuple[float, float]) -> str:
    return f"{pixel[0]:.0f}, {pixel[1]:.0f}"


def _triple(point: NDArray[np.float64]) -> str:
    return " ".join(f"{number:.2f}" for number in point) if np.isfinite(point).all() else "unknown"
