# SPDX-License-Identifier: Apache-2.0
"""Pictures of depth answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from vlm3_ros.evaluation.pictures.figures import add_panel, add_text, new_figure, save_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap, LogNorm
    from matplotlib.figure import Figure

_ERROR_COLOURS = "RdBu"
_ERROR_RANGE = 0.5
_NOTHING = "#d9d9d9"
_PANEL_WIDTH, _GAP, _LEFT, _MARGIN = 3.2, 0.06, 0.5, 0.2  # inches
_HEAD, _SCALE_WIDTH = 0.62, 0.9


@dataclass(frozen=True)
class DepthFrame:
    """An image with asked pixels, their answers and the truth.

    Attributes:
        title: one or two short lines next to the image.
        image: RGB, shape (height, width, 3), uint8.
        pixels: asked (u, v), shape (n, 2).
        depth: answers in metres, shape (n,), NaN where unanswered.
        dense: depth of every pixel, shape (height, width), metres, NaN where unsupported; None
            with too few answers.
        truth: shape (height, width), metres, not finite where unknown or sky; None if unknown.
        is_metric: whether all depths are in metres. Otherwise they have an unknown scale, and are
            drawn with the median of the other frames.
    """

    title: str
    image: NDArray[np.uint8]
    pixels: NDArray[np.float64]
    depth: NDArray[np.floating[Any]]
    dense: NDArray[np.float32] | None
    truth: NDArray[np.float32] | None
    is_metric: bool = True


def draw_depth_frames(
    frames: Sequence[DepthFrame], path: Path | str | BinaryIO, title: str
) -> None:
    """Draw one row per frame as a PNG, all depths on one scale in metres.

    From left to right: the image, the asked pixels as dots in the colour of their depth, the
    dense depth, the true depth, the relative error. A column that no frame has is left out.

    Args:
        frames: at least one.
        path: PNG file to write, or an open file.
        title: of the picture.
    """
    columns = ["image", "asked pixels"]
    columns += ["dense"] if any(f.dense is not None for f in frames) else []
    columns += ["ground truth"] if any(f.truth is not None for f in frames) else []
    columns += ["relative error"] if {"dense", "ground truth"} <= set(columns) else []

    heights = [_PANEL_WIDTH * f.image.shape[0] / f.image.shape[1] for f in frames]
    scales = 2 if "relative error" in columns else 1
    width = _LEFT + _MARGIN + len(columns) * (_PANEL_WIDTH + _GAP) + scales * _SCALE_WIDTH
    height = _HEAD + sum(heights) + _GAP * len(frames) + _MARGIN
    figure = new_figure(width, height)
    add_text(figure, _LEFT, height - 0.12, title, 12, "bold")
    is_metric = [frame.is_metric for frame in frames]
    frames = _fitted(frames)
    norm = _depth_scale(frames)
    top = height - _HEAD
    for row, (frame, panel_height) in enumerate(zip(frames, heights, strict=True)):
        for column, name in enumerate(columns):
            left = _LEFT + column * (_PANEL_WIDTH + _GAP)
            axes = add_panel(figure, left, top - panel_height, _PANEL_WIDTH, panel_height)
            _draw_panel(axes, frame, name, norm)
            if row == 0:
                axes.set_title(name, fontsize=10, pad=4)
            if column == 0:
                axes.set_ylabel(frame.title, fontsize=9, labelpad=4)
        top -= panel_height + _GAP
    bottom = top + _GAP
    left = _LEFT + len(columns) * (_PANEL_WIDTH + _GAP) + 0.12
    scale_box = (left, bottom, 0.16, height - _HEAD - bottom)
    bar_label = "depth along Z in m" if any(is_metric) else "depth along Z, in medians"
    if any(is_metric) and not all(is_metric):
        bar_label += "; fitted where the scale is unknown"
    _depth_bar(figure, scale_box, norm, bar_label)
    if scales == 2:
        _error_bar(figure, (left + _SCALE_WIDTH, *scale_box[1:]))
    save_png(figure, path)


def _draw_panel(axes: Axes, frame: DepthFrame, name: str, norm: LogNorm) -> None:
    axes.set_facecolor(_NOTHING)
    height, width = frame.image.shape[:2]
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)
    if name == "image":
        axes.imshow(frame.image, aspect="auto")
    elif name == "asked pixels":
        _draw_dots(axes, frame, norm)
    elif name == "dense" and frame.dense is not None:
        axes.imshow(_finite(frame.dense), norm=norm, cmap=_depth_colours(), aspect="auto")
    elif name == "ground truth" and frame.truth is not None:
        axes.imshow(_finite(frame.truth), norm=norm, cmap=_depth_colours(), aspect="auto")
    elif name == "relative error" and frame.dense is not None and frame.truth is not None:
        truth = _finite(frame.truth)
        axes.imshow(
            (frame.dense - truth) / truth,
            vmin=-_ERROR_RANGE,
            vmax=_ERROR_RANGE,
            cmap=_ERROR_COLOURS,
            aspect="auto",
        )


def _draw_dots(axes: Axes, frame: DepthFrame, norm: LogNorm) -> None:
    height, width = frame.image.shape[:2]
    grey = frame.image.mean(axis=2) * 0.55 + 60
    axes.imshow(grey, cmap="gray", vmin=0, vmax=255, aspect="auto")
    count = max(1, len(frame.pixels))
    # A dot covers half of the grid spacing, up to a limit for few pixels.
    spacing = np.sqrt(width * height / count) / width * _PANEL_WIDTH * 72
    area = float(np.clip((0.55 * spacing) ** 2, 4, 120))
    answered = np.isfinite(frame.depth)
    u, v = frame.pixels[:, 0], frame.pixels[:, 1]
    axes.scatter(
        u[answered],
        v[answered],
        c=frame.depth[answered],
        norm=norm,
        cmap=_depth_colours(),
        s=area,
        linewidths=0.4,
        edgecolors="black",
    )
    axes.scatter(u[~answered], v[~answered], c="white", marker="x", s=area, linewidths=1)
    if count <= 12 and frame.is_metric:
        for x, y, depth in zip(u, v, frame.depth, strict=True):
            _label(axes, x, y, f"{depth:.2f} m" if np.isfinite(depth) else "no answer")


def _label(axes: Axes, u: float, v: float, text: str) -> None:
    on_right = u > np.mean(axes.get_xlim())
    axes.annotate(
        text,
        (u, v),
        xytext=(-8 if on_right else 8, 0),
        textcoords="offset points",
        ha="right" if on_right else "left",
        va="center",
        fontsize=8,
        bbox={"boxstyle": "round,pad=0.2", "facecolor": "white", "alpha": 0.85, "linewidth": 0},
    )


def _fitted(frames: Sequence[DepthFrame]) -> list[DepthFrame]:
    """Give depths of unknown scale the median of those in metres, or 1 if there is none."""
    metric = [_known_depth(frame) for frame in frames if frame.is_metric]
    middle = np.median(np.concatenate([*metric, np.zeros(0)]) if any(map(len, metric)) else [1.0])

    def fitted(frame: DepthFrame) -> DepthFrame:
        known = _known_depth(frame)
        if frame.is_metric or not len(known):
            return frame
        factor = np.float32(middle / np.median(known))
        return replace(
            frame,
            depth=frame.depth * factor,
            dense=None if frame.dense is None else frame.dense * factor,
            truth=None if frame.truth is None else frame.truth * factor,
        )

    return [fitted(frame) for frame in frames]


def _known_depth(frame: DepthFrame) -> NDArray[np.floating[Any]]:
    """The true depths or, if unknown, the answers, shape (n,)."""
    depth = frame.depth if frame.truth is None else frame.truth
    return depth[np.isfinite(depth) & (depth > 0)]


def _depth_scale(frames: Sequence[DepthFrame]) -> LogNorm:
    """One scale for all frames, from the true depths or, if unknown, from the answers."""
    from matplotlib.colors import LogNorm

    pooled = np.concatenate([_known_depth(frame) for frame in frames])
    if not pooled.size:
        return LogNorm(0.5, 20)
    near, far = np.percentile(pooled, [1, 99])
    return LogNorm(near / 1.05, max(far, near * 1.5) * 1.05)


@lru_cache(maxsize=1)
def _depth_colours() -> Colormap:
    """Near is red, far is blue; without both ends, which are nearly black."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    return ListedColormap(colormaps["turbo_r"](np.linspace(0.06, 0.94, 256)))


def _depth_bar(
    figure: Figure, box: tuple[float, float, float, float], norm: LogNorm, label: str
) -> None:
    from matplotlib.cm import ScalarMappable

    bar = figure.colorbar(ScalarMappable(norm, _depth_colours()), cax=add_panel(figure, *box))
    near, far = float(norm.vmin or 0.1), float(norm.vmax or 100)
    ticks = np.outer(10.0 ** np.arange(-2, 4), [1, 1.5, 2, 3, 5, 7]).ravel()
    ticks = ticks[(ticks >= near) & (ticks <= far)]
    if len(ticks) < 4:
        ticks = np.geomspace(near, far, 5)
    bar.set_ticks(list(ticks), labels=[f"{tick:.2g}" for tick in ticks])
    bar.minorticks_off()
    bar.ax.invert_yaxis()
    bar.ax.tick_params(labelsize=8, length=2)
    bar.outline.set_visible(False)
    bar.set_label(label, fontsize=9, labelpad=2)


def _error_bar(figure: Figure, box: tuple[float, float, float, float]) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    bar = figure.colorbar(
        ScalarMappable(Normalize(-_ERROR_RANGE, _ERROR_RANGE), _ERROR_COLOURS),
        cax=add_panel(figure, *box),
    )
    ticks = np.linspace(-_ERROR_RANGE, _ERROR_RANGE, 5)
    bar.set_ticks(list(ticks), labels=["-50 %", "-25 %", "0", "+25 %", "+50 %"])
    bar.ax.tick_params(labelsize=8, length=2)
    bar.outline.set_visible(False)
    bar.set_label("too near (red), too far (blue)", fontsize=9, labelpad=2)


def _finite(depth: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(np.nan))
