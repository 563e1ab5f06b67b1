"""From the depths of a few pixels to a depth image."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import LinearNDInterpolator


def densify(pixels: ArrayLike, depth: ArrayLike, width: int, height: int) -> NDArray[np.float32]:
    """Interpolate sparse depths over an image.

    Inverse depth is interpolated, since it is linear in the pixel on every plane of the scene.

    Args:
        pixels: (u, v), shape (n, 2).
        depth: metres, shape (n,); cells that are not finite and positive are left out.

    Returns:
        Shape (height, width), float32, metres; NaN outside the hull of the known pixels, and
        everywhere when they span no area.
    """
    pixels, depth = np.asarray(pixels, dtype=float), np.asarray(depth, dtype=float)
    known = np.isfinite(depth) & (depth > 0)
    points = pixels[known]
    if len(points) < 3 or np.linalg.matrix_rank(points - points.mean(0)) < 2:
        return np.full((height, width), np.nan, np.float32)
    inverse = LinearNDInterpolator(points, 1 / depth[known])
    u, v = np.meshgrid(np.arange(width), np.arange(height))
    return (1 / inverse(u, v)).astype(np.float32)
