# SPDX-License-Identifier: Apache-2.0
"""Spread the depths of a few pixels to a depth image, guided by the colour image."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import solve_banded
from scipy.sparse import csr_matrix
from scipy.spatial import Delaunay

from vlm3_ros.geometry.images import lab_image

WORK_WIDTH = 256
"""Width in px at which answers are spread; larger images are shrunk to it."""

MAX_DISTANCE = 1.5
"""Largest distance from an answered pixel that gets a depth, in mean distances of asked pixels."""

_COLOUR_SCALE = 1.5
"""Difference of colour (CIELAB) between neighbouring pixels that damps an answer e-fold."""

_LEAST_TIE = 1e-6
"""Minimum tie between neighbouring pixels: a wild pattern is a surface, too."""

_REACH = 0.5
"""Distance over which an answer spreads on one colour, in mean distances of asked pixels."""

_PASSES = 2

_DEPTH_TOLERANCE = 0.02
"""Relative error up to which an answer lies on the plane of its neighbours."""

_FLATTENING = 3e-3
"""Weight that pulls slopes to zero, in agreeing neighbours: with few, slopes are uncertain."""


def densify(image: NDArray[np.uint8], pixels: ArrayLike, depth: ArrayLike) -> NDArray[np.float32]:
    """Spread sparse depths over an image, stopping at edges of colour.

    Every answer represents a piece of a plane, fitted robustly to the answers around it, so that
    an edge of colour within a surface does no harm. Inverse depth is used, since on a plane it is
    linear in the pixel. A pixel gets the mean of the planes, weighted by how easily their answers
    spread to it: the filter of Min et al., "Fast Global Image Smoothing Based on Weighted Least
    Squares" (2014), guided by the colours.

    Args:
        image: RGB, shape (height, width, 3), uint8.
        pixels: the asked (u, v), shape (n, 2), in the image.
        depth: metres, shape (n,); unanswered unless finite and positive.

    Returns:
        Shape (height, width), float32, metres. NaN if a pixel is farther than `MAX_DISTANCE` from
        all answers, or if unanswered pixels spread to it more than answers do; all NaN if the
        answered pixels span no area.
    """
    height, width = image.shape[:2]
    pixels, depth = np.asarray(pixels, dtype=float), np.asarray(depth, dtype=float)
    known = np.isfinite(depth) & (depth > 0)
    points, inverse = pixels[known], 1 / depth[known]
    if len(points) < 3 or np.linalg.matrix_rank(points - points.mean(0)) < 2:
        return np.full((height, width), np.nan, np.float32)
    slopes, bounds = _planes(points, inverse)

    scale = min(1.0, WORK_WIDTH / width)
    colours = lab_image(image, scale)
    spacing = np.sqrt(height * width / len(pixels)) * scale
    rows, columns = _cells(pixels, scale, colours.shape)
    # Planes are inverse = offset + slope_u u + slope_v v; channel 0 is the weight of their means.
    spread = np.zeros((*colours.shape[:2], 7))
    offset = inverse - (slopes * points).sum(-1)
    planes = np.column_stack([np.ones(len(points)), offset, slopes, bounds])
    np.add.at(spread[..., :6], (rows[known], columns[known]), planes)
    np.add.at(spread[..., 6], (rows[~known], columns[~known]), 1)
    spread = _spread(spread, colours, (_REACH * spacing) ** 2)
    answered, unanswered = spread[..., 0], spread[..., 6]
    mean = spread[..., 1:6] / np.maximum(answered, np.finfo(float).tiny)[..., None]
    empty = np.ones(colours.shape[:2], np.uint8)
    empty[rows[known], columns[known]] = 0
    distance = cv2.distanceTransform(empty, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    mean[(unanswered >= answered) | (distance > MAX_DISTANCE * spacing)] = np.nan

    v, u = np.arange(height), np.arange(width)
    (nearest_v, _), (_, nearest_u) = (
        _cells(np.column_stack([axis, axis]), scale, colours.shape) for axis in (v, u)
    )
    mean = mean[:, nearest_u]
    dense = np.empty((height, width), np.float32)
    # Row by row: all at once would need ten times the memory.
    for row, near_row in zip(v, nearest_v, strict=True):
        offset, slope_u, slope_v, least, most = mean[near_row].T
        dense[row] = 1 / np.clip(offset + slope_u * u + slope_v * row, least, most)
    return dense


def _planes(
    points: NDArray[np.float64], inverse: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fit a plane of inverse depth to the surroundings of each answer.

    Each triangle around an answer proposes a slope. The neighbours that agree with the best one
    refine it, so that neighbours beyond an edge of depth do not count.

    Returns:
        Slopes per pixel, shape (n, 2), and minimum and maximum inverse depth, shape (n, 2).
    """
    triangulation = Delaunay(points)
    corners = triangulation.simplices
    n, count = len(points), len(corners)
    triangles = csr_matrix(
        (np.ones(3 * count), (corners.ravel(), np.repeat(np.arange(count), 3))), (n, count)
    )
    near = triangles @ triangles.T
    around, is_triangle = _padded(triangles)
    sides = points[corners[:, 1:]] - points[corners[:, :1]]
    rises = inverse[corners[:, 1:]] - inverse[corners[:, :1]]
    proposed = (np.linalg.pinv(sides) @ rises[..., None])[around][..., 0] * is_triangle[..., None]

    others, is_other = _padded(near @ near)
    steps, rise = points[others] - points[:, None], inverse[others] - inverse[:, None]
    squares = (steps**2).sum(-1)
    usual = np.median(squares[is_other & (squares > 0)])
    weights = is_other * np.exp(-squares / (2 * usual))
    tolerance = _DEPTH_TOLERANCE * np.hypot(inverse[others], inverse[:, None])
    off = (rise[:, None] - np.einsum("nmi,nki->nmk", proposed, steps)) / tolerance[:, None]
    cost = (weights[:, None] * np.minimum(off**2, 9)).sum(-1)
    slopes = proposed[np.arange(n), cost.argmin(-1)]
    for _ in range(2):
        off = (rise - np.einsum("ni,nki->nk", slopes, steps)) / tolerance
        agreeing = weights / (1 + (off / 1.5) ** 2) ** 2
        normal = np.einsum("nk,nki,nkj->nij", agreeing, steps, steps)
        normal += _FLATTENING * usual * np.eye(2)
        right = np.einsum("nk,nki,nk->ni", agreeing, steps, rise)
        slopes = np.linalg.solve(normal, right[..., None])[..., 0]

    ring, is_ring = _padded(near)
    values = np.where(is_ring, inverse[ring], inverse[:, None])
    least, most = values.min(-1), values.max(-1)
    # Outside of all answers there are none: extrapolate by as much as they differ inside.
    border = np.unique(triangulation.convex_hull)
    mirrored = 2 * inverse[border, None] - np.column_stack([most, least])[border]
    least[border] = np.maximum(np.minimum(least[border], mirrored[:, 0]), least[border] / 2)
    most[border] = np.maximum(most[border], mirrored[:, 1])
    return slopes, np.column_stack([least, most])


def _padded(table: csr_matrix) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Return the column indices of each row of a sparse matrix, and the mask of real ones."""
    counts = np.diff(table.indptr)
    is_real = np.arange(counts.max()) < counts[:, None]
    columns = np.zeros(is_real.shape, dtype=np.intp)
    columns[is_real] = table.indices
    return columns, is_real


def _cells(
    pixels: NDArray[np.floating], scale: float, shape: tuple[int, ...]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return row and column of source pixels in the smaller image."""
    columns, rows = np.rint((pixels + 0.5) * scale - 0.5).astype(int).T
    return np.clip(rows, 0, shape[0] - 1), np.clip(columns, 0, shape[1] - 1)


def _spread(
    values: NDArray[np.float64], colours: NDArray[np.float32], smoothness: float
) -> NDArray[np.float64]:
    """Smooth along rows and columns in turn (Min et al. 2014, algorithm 1).

    Args:
        values: shape (rows, columns, channels).
        colours: shape (rows, columns, 3).
        smoothness: lambda of the paper, square pixels.
    """
    for done in range(_PASSES):
        share = 1.5 * 4 ** (_PASSES - 1 - done) / (4**_PASSES - 1) * smoothness
        for _ in range(2):  # along rows, then along columns with the axes swapped
            values = _smooth_rows(values, colours, share).swapaxes(0, 1)
            colours = colours.swapaxes(0, 1)
    return values


def _smooth_rows(
    values: NDArray[np.float64], colours: NDArray[np.float32], smoothness: float
) -> NDArray[np.float64]:
    """Solve one system for all rows: the end of a row is not tied to the start of the next."""
    rows, columns, channels = values.shape
    difference = np.linalg.norm(np.diff(colours, axis=1), axis=-1)
    ties = np.zeros((rows, columns))
    ties[:, :-1] = smoothness * np.maximum(np.exp(-difference / _COLOUR_SCALE), _LEAST_TIE)
    right = ties.ravel()
    left = np.concatenate([[0.0], right[:-1]])
    banded = np.stack([-left, 1 + left + right, -right])
    solution = solve_banded((1, 1), banded, values.reshape(-1, channels), check_finite=False)
    return solution.reshape(rows, columns, channels)
