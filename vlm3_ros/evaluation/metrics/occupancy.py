# SPDX-License-Identifier: Apache-2.0
"""A map from above of what a robot has seen: each cell is occupied, free or unknown.

Cells are columns of voxels, as in Nav2's VoxelLayer: a ray clears the voxels that it crosses, not
those above or below it, and ends `RAY_END` cells before its point, because rays that graze a wall
cross its cells. Each frame counts for a voxel as a hit if a point lies in it, otherwise as a pass
if a ray crosses it. The counts give log-odds with the increments of OctoMap (Hornung et al. 2013).
A cell is occupied if one of its voxels is, and free if none is and rays have crossed it below the
upper end of the band. Heights are over the robot's base, along its z axis, as in depth_node's
`scan`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import distance_transform_edt

from vlm3_ros.evaluation.metrics.declared import Metric
from vlm3_ros.geometry.motion import Transform

MIN_HEIGHT, MAX_HEIGHT = 0.3, 1.5
"""Metres over the base; obstacles lie between, floor and ceiling do not."""

MAX_RANGE = 5.0
"""Metres from the camera; farther points are not drawn."""

CELL = 0.1
"""Metres; larger if the map would become too large."""

LAYER = 0.1
"""Height of a voxel, metres."""

RAY_END = 2
"""Cells that a ray leaves out before its point, as in nav2_costmap_2d's voxel_layer.cpp."""

MAX_CELLS = 2000
"""Along a side of the map."""

NEAR = (0.25, 0.5)
"""Metres within which an occupied cell counts as the same obstacle."""

_LOG_ODDS_HIT, _LOG_ODDS_PASSED = np.log(0.7 / 0.3), np.log(0.4 / 0.6)


@dataclass(frozen=True)
class Sight:
    """Points seen from one pose.

    `points`: in the robot's base, metres, shape (n, 3), NaN where unknown. `camera`: position in
    the base, shape (3,). `T_world_base`: shape (4, 4), z of the world up.
    """

    points: NDArray[np.float64]
    camera: NDArray[np.float64]
    T_world_base: Transform


@dataclass(frozen=True)
class OccupancyGrid:
    """Counts of frames by voxel.

    `lower`: least x and y in the world, metres, shape (2,). `cell`: side of a cell, metres. `hits`
    and `passes`: shape (layers, cells along y, cells along x); the first layer is all below the
    band of heights, where nothing counts as a hit.
    """

    lower: NDArray[np.float64]
    cell: float
    hits: NDArray[np.int32]
    passes: NDArray[np.int32]

    @property
    def occupied(self) -> NDArray[np.bool_]:
        """Mask of occupied cells, shape (cells along y, cells along x)."""
        return np.asarray(np.logical_or.reduce([odds > 0 for odds in self._log_odds()]))

    @property
    def free(self) -> NDArray[np.bool_]:
        """Mask of free cells, shape (cells along y, cells along x)."""
        is_crossed = np.logical_or.reduce([odds < 0 for odds in self._log_odds()])
        return np.asarray(is_crossed & ~self.occupied)

    @property
    def seen(self) -> NDArray[np.bool_]:
        """Mask of cells with any hit or pass, shape (cells along y, cells along x)."""
        return np.asarray((self.hits + self.passes).any(axis=0))

    def add(self, sight: Sight) -> None:
        """Count the points and rays of a sight; those outside of the grid are left out."""
        points = sight.points[np.isfinite(sight.points).all(axis=1)]
        rays = points - sight.camera
        ranges = np.linalg.norm(rays[:, :2], axis=1)
        is_hit = (points[:, 2] >= MIN_HEIGHT) & (ranges <= MAX_RANGE)
        hit = np.unique(self._indices(points[is_hit], sight.T_world_base))
        crossed = sight.camera + self._on_the_way(rays, ranges)
        passed = np.unique(self._indices(crossed, sight.T_world_base))
        self.hits.flat[hit] += 1
        self.passes.flat[np.setdiff1d(passed, hit)] += 1

    def _on_the_way(
        self, rays: NDArray[np.float64], ranges: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Places on rays, shape (n, 3), every half cell up to their ends, shape (m, 3)."""
        steps = np.arange(0, MAX_RANGE, self.cell / 2)
        share = steps / np.maximum(ranges, 1e-9)[:, None]
        end = 1 - RAY_END * self.cell / np.maximum(np.linalg.norm(rays, axis=1), 1e-9)
        ray, step = np.nonzero(share < end[:, None])
        return np.asarray(share[ray, step, None] * rays[ray])

    def _indices(self, points: NDArray[np.float64], T_world_base: Transform) -> NDArray[np.int64]:
        """Flat indices of the voxels of points in the base, shape (n, 3), below the band's end."""
        points = points[points[:, 2] <= MAX_HEIGHT]
        places = (points @ T_world_base[:3, :3].T + T_world_base[:3, 3])[:, :2]
        column, row = np.floor((places - self.lower) / self.cell).astype(np.int64).T
        layers, rows, columns = self.hits.shape
        layer = np.floor((points[:, 2] - MIN_HEIGHT) / LAYER).astype(np.int64) + 1
        layer = np.clip(layer, 0, layers - 1)
        inside = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
        return np.asarray(((layer * rows + row) * columns + column)[inside])

    def _log_odds(self) -> Iterator[NDArray[np.float64]]:
        """Log-odds of the voxels, layer by layer."""
        for hits, passes in zip(self.hits, self.passes, strict=True):
            yield hits * _LOG_ODDS_HIT + passes * _LOG_ODDS_PASSED


@dataclass(frozen=True)
class OccupancyScores:
    """A map against the true one.

    `cells`: number of occupied cells of the map. `found`: share of the truly occupied cells with
    an occupied cell of the map near them, by the distance in metres that counts as near. `real`:
    share of the map's occupied cells with a truly occupied one near them. `called_free`: share of
    the truly occupied cells that are free on the map: a robot would run into them. NaN if there
    is no such cell.
    """

    cells: Annotated[int, Metric("cells", "d")]
    found: Annotated[dict[float, float], Metric("found {:g} m", ".3f", "found/{:g}_m", "{:g} m")]
    real: Annotated[dict[float, float], Metric("real {:g} m", ".3f", "real/{:g}_m", "{:g} m")]
    called_free: Annotated[float, Metric("as free", ".3f")]


def empty_grid(places: ArrayLike) -> OccupancyGrid:
    """Build a grid that covers all that can be seen from places.

    Args:
        places: (x, y) in the world, metres, shape (n, 2), n at least 1.
    """
    places = np.asarray(places, dtype=float)
    lower, upper = places.min(axis=0) - MAX_RANGE, places.max(axis=0) + MAX_RANGE
    cell = max(CELL, float((upper - lower).max()) / MAX_CELLS)
    lower = np.floor(lower / cell) * cell  # the same cells for any set of places
    columns, rows = np.ceil((upper - lower) / cell).astype(int)
    shape = (1 + round((MAX_HEIGHT - MIN_HEIGHT) / LAYER), rows, columns)
    return OccupancyGrid(lower, cell, np.zeros(shape, np.int32), np.zeros(shape, np.int32))


def occupancy_grid(places: ArrayLike, sights: Sequence[Sight]) -> OccupancyGrid:
    """Draw a map of sights; maps of the same `places` (see `empty_grid`) have the same cells."""
    grid = empty_grid(places)
    for sight in sights:
        grid.add(sight)
    return grid


def occupancy_scores(grid: OccupancyGrid, truth: OccupancyGrid) -> OccupancyScores:
    """Compare a map with the true one of the same cells."""
    to_drawn, to_true = away(grid.occupied, grid.cell), away(truth.occupied, truth.cell)
    return OccupancyScores(
        found={near: _share(to_drawn[truth.occupied] <= near) for near in NEAR},
        real={near: _share(to_true[grid.occupied] <= near) for near in NEAR},
        called_free=_share(grid.free[truth.occupied]),
        cells=int(grid.occupied.sum()),
    )


def away(occupied: NDArray[np.bool_], cell: float) -> NDArray[np.float64]:
    """Metres from each cell's centre to that of the nearest occupied cell; inf without one."""
    if not occupied.any():
        return np.full(occupied.shape, np.inf)
    return np.asarray(distance_transform_edt(~occupied)) * cell


def _share(is_so: NDArray[np.bool_]) -> float:
    return float(is_so.mean()) if is_so.size else float("nan")
