# SPDX-License-Identifier: Apache-2.0
"""Depth images brought to the rectified image of another camera.

Depth is never interpolated: between a surface and what is behind it there is none.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.geometry.lens import LensCamera
from vlm3_ros.geometry.motion import Transform

_MAX_FOOTPRINT = 8
"""Most target pixels, along each axis, that a source pixel fills: more lies too close to tell."""

_CORNERS = np.array([(-0.5, -0.5), (-0.5, 0.5), (0.5, -0.5), (0.5, 0.5)])


def rectified_depth(depth: NDArray[np.float32], lens: LensCamera) -> NDArray[np.float32]:
    """Rectify a depth image as its colour image: each pixel takes the nearest raw one.

    Args:
        depth: metres along the raw camera's Z, shape (lens.height, lens.width), NaN where unknown.
        lens: of the raw image.

    Returns:
        Metres along the rectified camera's Z, same shape, NaN where unknown or outside.
    """
    if lens.is_pinhole:
        return depth
    columns, rows, slant = _nearest_raw(lens)
    return np.where(columns >= 0, depth[rows, columns] * slant, np.float32(np.nan))


def registered_depth(
    depth: NDArray[np.float32],
    camera: PinholeCamera,
    T_target_camera: Transform,
    target: PinholeCamera,
) -> NDArray[np.float32]:
    """Show a depth image from another camera's place.

    Each pixel is a square at its depth, parallel to its image; it fills the target pixels whose
    centres lie within its outline, and the nearest square counts (z-buffer). So surfaces stay
    closed if the target has the finer pixels, and what the first camera did not see stays unknown.

    Args:
        depth: metres along Z of `camera`, shape (camera.height, camera.width), NaN where unknown.
        camera: of the depth image.
        T_target_camera: takes points of its optical frame to that of the target, shape (4, 4).
        target: of the image to register to.

    Returns:
        Metres along Z of `target`, shape (target.height, target.width), NaN where unknown.
    """
    rows, columns = np.nonzero(np.isfinite(depth))
    z = depth[rows, columns].astype(float)
    pixels = np.stack([columns, rows], -1).astype(float)
    rotation, shift = T_target_camera[:3, :3], T_target_camera[:3, 3]

    def seen(offset: NDArray[np.float64]) -> NDArray[np.float64]:
        return camera.unproject(pixels + offset, z) @ rotation.T + shift

    distance = seen(np.zeros(2))[:, 2]
    corners = np.stack([target.project(seen(offset)) for offset in _CORNERS])
    low, high = np.ceil(corners.min(axis=0)), np.ceil(corners.max(axis=0))
    # A NaN corner lies behind the target.
    fits = (distance > 0) & (high - low <= _MAX_FOOTPRINT).all(axis=1)
    fits &= (high > 0).all(axis=1) & (low < (target.width, target.height)).all(axis=1)
    first, size = low[fits].astype(int), (high - low)[fits].astype(int)
    distance = distance[fits]
    nearest = np.full((target.height, target.width), np.inf)
    for right in range(int(size[:, 0].max(initial=0))):
        for down in range(int(size[:, 1].max(initial=0))):
            u, v = first[:, 0] + right, first[:, 1] + down
            inside = (right < size[:, 0]) & (down < size[:, 1])
            inside &= (u >= 0) & (v >= 0) & (u < target.width) & (v < target.height)
            np.minimum.at(nearest, (v[inside], u[inside]), distance[inside])
    return np.where(np.isfinite(nearest), nearest, np.nan).astype(np.float32)


@lru_cache(maxsize=4)
def _nearest_raw(
    lens: LensCamera,
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """Column and row of the raw pixel nearest to each rectified one, and the factor on its depth.

    All of shape (height, width); the column is -1 where the raw image shows nothing.
    """
    grid = lens.rectified.pixel_grid()
    raw = np.rint(lens.distort_pixels(grid))
    inside = lens.rectified_mask() & (raw >= 0).all(axis=-1)
    inside &= (raw < (lens.width, lens.height)).all(axis=-1)
    columns = np.where(inside, raw[..., 0], -1).astype(np.intp)
    rows = np.where(inside, raw[..., 1], 0).astype(np.intp)
    # Z of the same point in raw axes, where the rectified ray has Z = 1.
    slant = (lens.rectified.rays(grid) @ lens.R)[..., 2]
    return columns, rows, (1 / np.where(inside, slant, 1)).astype(np.float32)
