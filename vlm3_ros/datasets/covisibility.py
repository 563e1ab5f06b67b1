# SPDX-License-Identifier: Apache-2.0
"""What two images both show, by measured depth and poses: matches and covisibility.

Depth cameras have errors and holes, and the points of a LiDAR are sparse. So holes are filled with
the nearest known depth, and depths are equal within `SAME_DEPTH`.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import distance_transform_edt

from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.geometry.epipolar import transferred_pixels
from vlm3_ros.geometry.motion import Transform, inverse

MIN_COVISIBILITY = 0.25
"""Share of each view that the other one must show (paper, appendix A)."""

SAME_DEPTH = 0.05
"""Largest relative difference of depth at which two images show the same point."""

HOLE = 0.03
"""Largest distance, as a share of the width, over which an unknown depth is filled."""

_FEW = 500
"""Pixels for which looking around each is quicker than filling the whole image."""

_WIDTH = 160
"""Approximate width at which covisibility is measured; images are reduced to it in blocks."""

_POINTS = 800
"""Approximate number of pixels per frame at which covisibility is measured."""


def pixels_shown(
    cameras: tuple[PinholeCamera, PinholeCamera],
    depths: tuple[NDArray[np.float32], NDArray[np.float32]],
    T_cam1_cam2: Transform,
    pixels1: ArrayLike,
    fills_holes: bool = False,
) -> NDArray[np.float64]:
    """Find pixels of the first image in the second one, by depth and motion.

    Args:
        cameras: of both images.
        depths: metres along Z, shape (height, width) each, NaN where unknown.
        T_cam1_cam2: shape (4, 4), in the same unit.
        pixels1: (u, v), shape (n, 2); the depth of the nearest pixel counts.
        fills_holes: whether unknown depth of the second image is filled, see `filled`.

    Returns:
        (u, v), shape (n, 2); NaN where the depth is unknown, or the point lies outside of the
        second image or is hidden there: the depths differ.
    """
    camera1, camera2 = cameras
    pixels1 = np.asarray(pixels1, dtype=float).reshape(-1, 2)
    u, v = np.rint(pixels1).astype(int).T
    depth1 = np.where(np.isfinite(depths[0]), depths[0], np.float32(np.nan))[v, u]
    pixels2 = transferred_pixels(T_cam1_cam2, camera1, pixels1, depth1, camera2)
    points = camera1.unproject(pixels1, depth1)
    T_cam2_cam1 = inverse(T_cam1_cam2)
    expected = points @ T_cam2_cam1[2, :3] + T_cam2_cam1[2, 3]
    limits = (camera2.width - 1, camera2.height - 1)
    inside = np.all((pixels2 >= 0) & (pixels2 <= limits), axis=1)
    u, v = np.rint(np.where(inside[:, None], pixels2, 0)).astype(int).T
    depth2 = depths[1][v, u]
    if fills_holes:
        in_hole = np.flatnonzero(inside & ~np.isfinite(depth2))
        depth2[in_hole] = _filled_at(depths[1], u[in_hole], v[in_hole])
    is_same = np.abs(depth2 / expected - 1) < SAME_DEPTH
    return np.where((inside & is_same)[:, None], pixels2, np.nan)


@dataclass(frozen=True)
class ReducedFrame:
    """A frame at reduced size, as needed to find pairs.

    `depth`: metres, holes filled, shape (camera.height, camera.width). `pixels`: a sample of pixels
    with known depth, shape (n, 2). `T_world_camera`: None if unknown.
    """

    camera: PinholeCamera
    depth: NDArray[np.float32]
    pixels: NDArray[np.float64]
    T_world_camera: Transform | None


def reduced_frame(
    camera: PinholeCamera, depth: NDArray[np.float32], T_world_camera: Transform | None
) -> ReducedFrame:
    """Reduce a frame; `depth`: metres, shape (camera.height, camera.width), NaN where unknown."""
    step = max(1, round(camera.width / _WIDTH))
    height, width = camera.height // step, camera.width // step
    blocks = depth[: height * step, : width * step].reshape(height, step, width, step)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # blocks without any depth
        small = np.nanmedian(blocks, axis=(1, 3)).astype(np.float32)
    cropped = PinholeCamera(width * step, height * step, camera.fx, camera.fy, camera.cx, camera.cy)
    rows, columns = np.nonzero(np.isfinite(small))
    known = np.stack([columns, rows], -1).astype(float)
    return ReducedFrame(
        cropped.resized(width, height),
        filled(small),
        known[:: max(1, len(known) // _POINTS)],
        T_world_camera,
    )


def filled(depth: NDArray[np.float32]) -> NDArray[np.float32]:
    """Fill holes in depth from the nearest known pixel within `HOLE`; NaN beyond."""
    unknown = ~np.isfinite(depth)
    if unknown.all() or not unknown.any():
        return depth
    distance, nearest = distance_transform_edt(unknown, return_indices=True)
    whole: NDArray[np.float32] = depth[tuple(nearest)]
    return np.where(distance <= HOLE * depth.shape[1], whole, np.float32(np.nan))


def _filled_at(
    depth: NDArray[np.float32], columns: NDArray[np.int64], rows: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Take unknown pixels from `filled(depth)`, shape (n,); a few need no look at all of it."""
    if len(columns) > _FEW:
        return filled(depth)[rows, columns]
    reach = HOLE * depth.shape[1]
    values = np.full(len(columns), np.nan, np.float32)
    for i, (column, row) in enumerate(zip(columns.tolist(), rows.tolist(), strict=True)):
        left, top = max(0, column - int(reach)), max(0, row - int(reach))
        window = depth[top : row + int(reach) + 1, left : column + int(reach) + 1]
        known = np.flatnonzero(np.isfinite(window))
        down, right = np.divmod(known, window.shape[1])
        squares = (down + top - row) ** 2 + (right + left - column) ** 2
        if len(known) and squares.min() <= reach**2:
            values[i] = window.flat[known[squares.argmin()]]
    return values


def covisibility(first: ReducedFrame, second: ReducedFrame) -> float:
    """Share of a frame that the other one shows, the smaller of both directions; in [0, 1]."""
    return min(_shown_share(first, second), _shown_share(second, first))


def _shown_share(first: ReducedFrame, second: ReducedFrame) -> float:
    if not len(first.pixels):
        return 0.0
    assert first.T_world_camera is not None and second.T_world_camera is not None
    shown = pixels_shown(
        (first.camera, second.camera),
        (first.depth, second.depth),
        inverse(first.T_world_camera) @ second.T_world_camera,
        first.pixels,
    )
    return float(np.isfinite(shown[:, 0]).mean())
