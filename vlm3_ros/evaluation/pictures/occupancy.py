# SPDX-License-Identifier: Apache-2.0
"""Pictures of occupancy maps from above."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vlm3_ros.evaluation.bag.occupancy import PUBLISHED, ROW_GUESS, BagOccupancy
from vlm3_ros.evaluation.metrics.occupancy import (
    MAX_HEIGHT,
    MAX_RANGE,
    MIN_HEIGHT,
    NEAR,
    OccupancyGrid,
    away,
)
from vlm3_ros.evaluation.pictures.figures import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_UNKNOWN, _FREE, _OCCUPIED = "#d9d9d9", "#ffffff", "#303030"
_REAL, _WRONG, _MISSED = "#2c6fae", "#e08214", "#c7302b"
_TRUE_PATH, _PUBLISHED_PATH = "#2a7f3f", "#7b3294"
_PANEL = 3.4
"""Longer side of a panel, inches."""


def plot_occupancy(occupancy: BagOccupancy) -> Figure:
    """Plot the true map and those of the answers: their real, wrong and missing cells."""
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    shown = {name: grid for name, grid in occupancy.maps.items() if name != ROW_GUESS}
    left, right, low, high = _seen_range([occupancy.truth, *shown.values()])
    width, height = right - left, high - low
    scale = _PANEL / max(width, height)
    panels = 1 + len(shown)
    columns = 2 if panels > 2 else panels
    rows = -(-panels // columns)
    figure = new_figure(
        columns * (width * scale + 0.9),
        rows * (height * scale + 0.9) + 1.1,
        ConstrainedLayoutEngine(h_pad=0.1),
    )
    all_axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    _draw_truth(all_axes[0], occupancy)
    for axes, (name, grid) in zip(all_axes[1:], shown.items(), strict=False):
        _draw_map(axes, occupancy, name, grid)
    for axes in all_axes[panels:]:
        axes.set_visible(False)
    for axes in all_axes[:panels]:
        axes.set_aspect("equal")
        axes.set_xlim(left, right)
        axes.set_ylim(low, high)
        axes.spines[:].set_visible(False)
        axes.tick_params(labelsize=8, length=2)
    for axes in all_axes[::columns]:
        axes.set_ylabel("y in m", fontsize=9)
    for axes in all_axes[max(0, panels - columns) : panels]:
        axes.set_xlabel("x in m", fontsize=9)
        axes.tick_params(labelbottom=True)
    patches = [
        Patch(facecolor=_OCCUPIED, label="occupied"),
        Patch(facecolor=_FREE, edgecolor="#888888", label="free"),
        Patch(facecolor=_UNKNOWN, label="never seen"),
        Patch(facecolor=_REAL, label=f"on the map, within {NEAR[0]:g} m of an obstacle"),
        Patch(facecolor=_WRONG, label="on the map, nothing there"),
        Patch(facecolor=_MISSED, label="missed: free on the map"),
        Line2D([], [], color=_TRUE_PATH, label="true path"),
        Line2D([], [], color=_PUBLISHED_PATH, label="published path"),
    ]
    figure.suptitle(
        f"Obstacles {MIN_HEIGHT:g} to {MAX_HEIGHT:g} m above the base, up to {MAX_RANGE:g} m away; "
        f"cells of {occupancy.truth.cell:g} m",
        fontsize=11,
    )
    figure.legend(handles=patches, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return figure


def _draw_truth(axes: Axes, occupancy: BagOccupancy) -> None:
    truth = occupancy.truth
    _paint(axes, truth, {_FREE: truth.free, _OCCUPIED: truth.occupied})
    _draw_path(axes, occupancy.true_way, _TRUE_PATH)
    axes.set_title("true depth, true poses", fontsize=10)


def _draw_map(axes: Axes, occupancy: BagOccupancy, name: str, grid: OccupancyGrid) -> None:
    truth, scores = occupancy.truth, occupancy.scores[name]
    is_near = away(truth.occupied, truth.cell) <= NEAR[0]
    _paint(
        axes,
        grid,
        {
            _FREE: grid.free,
            _MISSED: grid.free & truth.occupied,
            _REAL: grid.occupied & is_near,
            _WRONG: grid.occupied & ~is_near,
        },
    )
    _draw_path(axes, occupancy.true_way, _TRUE_PATH)
    if name == PUBLISHED:
        _draw_path(axes, occupancy.published_way, _PUBLISHED_PATH)
    axes.set_title(
        f"{name}\nfound {scores.found[NEAR[0]]:.0%}, real {scores.real[NEAR[0]]:.0%} "
        f"(within {NEAR[0]:g} m)\n{scores.called_free:.0%} of obstacles called free",
        fontsize=9,
    )


def _paint(axes: Axes, grid: OccupancyGrid, layers: dict[str, NDArray[np.bool_]]) -> None:
    """Paint cells in the colours of their layers, the last one on top."""
    from matplotlib.colors import to_rgb

    image = np.full((*grid.free.shape, 3), to_rgb(_UNKNOWN))
    for colour, mask in layers.items():
        image[mask] = to_rgb(colour)
    (x, y), (rows, columns) = grid.lower, grid.free.shape
    extent = (x, x + columns * grid.cell, y, y + rows * grid.cell)
    axes.imshow(image, origin="lower", extent=extent, interpolation="nearest")


def _draw_path(axes: Axes, path: NDArray[np.float64], colour: str) -> None:
    axes.plot(*path.T, color=colour, linewidth=1.6)
    axes.plot(*path[0], "o", color=colour, markersize=5)
    axes.plot(*path[-1], "s", color=colour, markersize=5)


def _seen_range(grids: list[OccupancyGrid]) -> tuple[float, float, float, float]:
    """Range of x, then of y, of the cells that any map knows, with a margin; metres."""
    known = np.any([grid.seen for grid in grids], axis=0)
    grid = grids[0]
    edges: list[float] = []
    for axis, start in ((0, grid.lower[0]), (1, grid.lower[1])):
        cells = np.flatnonzero(known.any(axis=axis))
        if not cells.size:
            cells = np.array([0, known.shape[1 - axis]])
        edges += [start + (cells[0] - 2) * grid.cell, start + (cells[-1] + 3) * grid.cell]
    return edges[0], edges[1], edges[2], edges[3]
