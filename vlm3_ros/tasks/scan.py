# SPDX-License-Identifier: Apache-2.0
"""Turn depths of pixels into a planar scan, like that of a level laser scanner."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.geometry.motion import Transform


@dataclass(frozen=True)
class ScanLimits:
    """Limits on the heights and ranges of points in a scan, metres.

    Heights are along z of the scan's frame, ranges in its x-y plane from its origin.
    """

    min_height: float
    max_height: float
    min_range: float
    max_range: float


@dataclass(frozen=True)
class PlanarScan:
    """Ranges by angle about z of the scan's frame, counterclockwise from x, all around.

    `angle_min` and `angle_increment`: radians. `ranges`: shape (beams,), float32, metres; as in
    REP-117 -inf if something is nearer than the minimum range, inf if all is beyond the maximum
    range, and NaN if nothing is known.
    """

    angle_min: float
    angle_increment: float
    ranges: NDArray[np.float32]


def planar_scan(
    camera: PinholeCamera,
    pixels: ArrayLike,
    depth: ArrayLike,
    columns: int,
    rows: int,
    T_scan_camera: Transform,
    limits: ScanLimits,
    extents: NDArray[np.float64] | None = None,
) -> PlanarScan:
    """Return the nearest range in every direction, within a band of heights.

    A depth represents a cell: as wide as its column of the image (or its row, if the camera lies on
    its side), or as its `extents`, at this depth everywhere. A beam ends at the nearest cell whose
    centre lies in the band. So there are no gaps between columns, and no direction is filled
    without an answer: a direction whose answers lie on the floor or are missing is unknown, not
    free.

    Args:
        camera: of the rectified image.
        pixels: (u, v), shape (n, 2).
        depth: metres along Z, shape (n,); NaN if unknown.
        columns, rows: number of cells across the image's width and height.
        T_scan_camera: shape (4, 4), takes points of the optical frame to the scan's frame, whose z
            is up.
        limits: on heights and ranges.
        extents: how far the cells of the pixels reach to the left, right, up and down, px, shape
            (n, 4), if the pixels are not the centres of a grid; see `cell_extents`.

    Returns:
        The scan, with so many beams that the narrowest column is one beam wide. The number depends
        only on the camera and `columns`.
    """
    pixels, depth = np.asarray(pixels, float).reshape(-1, 2), np.asarray(depth, float).ravel()
    count = _beams(camera, columns)
    step = 2 * math.pi / count
    ranges = np.full(count, np.nan)

    R, origin = T_scan_camera[:3, :3], T_scan_camera[:3, 3]
    middles = camera.unproject(pixels, depth) @ R.T + origin
    with np.errstate(invalid="ignore"):
        counted = (limits.min_height <= middles[:, 2]) & (middles[:, 2] <= limits.max_height)
    is_upright = abs(R[2, 0]) <= abs(R[2, 1]) + 1e-9  # u is level, rather than v
    if extents is None:
        half = camera.width / columns / 2, camera.height / rows / 2
        extents = np.broadcast_to(np.repeat(half, 2), (len(pixels), 4))
    ends, level = (extents[:, :2], (1, 0)) if is_upright else (extents[:, 2:], (0, 1))
    edges = [
        (camera.unproject(pixels[counted] + shift[counted], depth[counted]) @ R.T + origin)[:, :2]
        for shift in (np.outer(ends[:, 1], level), -np.outer(ends[:, 0], level))
    ]
    if not counted.any():
        return PlanarScan(-math.pi, step, ranges.astype(np.float32))

    # Beams between the edges of each cell, in one list; at least the nearest beam.
    first, last = (np.arctan2(edge[:, 1], edge[:, 0]) for edge in edges)
    width = (last - first + math.pi) % (2 * math.pi) - math.pi
    first, width = np.where(width < 0, last, first), np.abs(width)
    start = np.ceil((first + math.pi) / step - 1e-9).astype(int)
    end = np.floor((first + width + math.pi) / step + 1e-9).astype(int)
    middle = np.rint((first + width / 2 + math.pi) / step).astype(int)
    start, end = np.where(end < start, middle, start), np.where(end < start, middle, end)
    beams = end - start + 1
    cells = np.repeat(np.arange(len(beams)), beams)
    within = np.arange(len(cells)) - np.repeat(np.cumsum(beams) - beams, beams)
    numbers = start[cells] + within

    met = _met(numbers * step - math.pi, edges[0][cells], edges[1][cells])
    met = np.where(met < limits.min_range, -np.inf, np.where(met > limits.max_range, np.inf, met))
    np.fmin.at(ranges, numbers % count, met)
    return PlanarScan(-math.pi, step, ranges.astype(np.float32))


def _beams(camera: PinholeCamera, columns: int) -> int:
    edges = np.linspace(-0.5, camera.width - 0.5, columns + 1)
    angles = np.arctan((edges - camera.cx) / camera.fx)
    return math.ceil(2 * math.pi / float(np.diff(angles).min()))


def _met(
    angles: NDArray[np.float64], starts: NDArray[np.float64], ends: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the ranges at which beams (angles (n,)) meet segments (ends (n, 2)).

    For a beam that misses its segment, the range of the nearest end.
    """
    along = ends - starts
    x, y = np.cos(angles), np.sin(angles)
    across = x * along[:, 1] - y * along[:, 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (y * starts[:, 0] - x * starts[:, 1]) / across
    share = np.clip(np.where(np.isfinite(share), share, 0.5), 0, 1)
    return np.linalg.norm(starts + share[:, None] * along, axis=1)
