# SPDX-License-Identifier: Apache-2.0
"""Find clear sky in an image, by colour: the pixels that have no depth."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

WORK_WIDTH = 160
"""Width in px to which larger images are shrunk."""

_BLUE = 0.15
"""Least difference of blue and red, as a share of the brightest channel."""

_DARK = 60
"""Brightness of 255 below which nothing counts as sky."""

_SMOOTH = 2.5
"""Largest change of brightness per pixel of the shrunk image within the sky."""

_MIN_AREA, _MIN_TOP = 0.02, 0.1
"""Least share of the image, and of its upper border."""

_LOWEST = 0.6
"""Share of the image's height that sky does not reach below; a blue wall does."""


def sky_mask(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Mask of the pixels of clear sky.

    Sky is blue, without texture, connected to the upper border, and ends above the lower part of
    the image. Clouds and grey sky look like ceilings and walls: they do not count.

    Args:
        image: RGB, shape (height, width, 3), uint8.

    Returns:
        Shape (height, width).
    """
    height, width = image.shape[:2]
    shrink = min(1.0, WORK_WIDTH / width)
    size = max(1, round(width * shrink)), max(1, round(height * shrink))
    shrunk = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    small = cv2.GaussianBlur(shrunk, (0, 0), 1.0)
    grey = np.ascontiguousarray(small.mean(-1))
    change = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)) / 8
    red, green, blue = np.moveaxis(small, -1, 0)
    brightness = small.max(-1)
    alike = (blue - red > _BLUE * brightness) & (blue >= green - 2) & (brightness > _DARK)
    regions = cv2.connectedComponents((alike & (change < _SMOOTH)).astype(np.uint8), None, 4)[1]
    lower = regions[round(_LOWEST * len(regions)) :]
    sky = np.zeros(regions.shape, bool)
    for number in np.setdiff1d(regions[0], [0]):
        region = regions == number
        area = np.count_nonzero(region)
        is_large = area >= _MIN_AREA * region.size and region[0].mean() >= _MIN_TOP
        if is_large and np.count_nonzero(lower == number) <= 0.01 * area:
            sky |= region
    # The border of the sky is an edge, so it is not smooth.
    grown = cv2.dilate(sky.astype(np.uint8), np.ones((5, 5), np.uint8)) & alike
    return cv2.resize(grown.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0
