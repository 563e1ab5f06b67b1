# SPDX-License-Identifier: Apache-2.0
"""Sparse optical flow between two images, without any model.

OpenCV's pyramidal Lucas-Kanade method on Shi-Tomasi corners.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

FLOW_WIDTH = 320
"""Width in px to which larger images are shrunk: less noise and less work."""

MIN_CORNERS = 12
"""Fewer corners say nothing about motion: a blank wall, darkness."""

_CORNERS, _QUALITY, _DISTANCE = 100, 0.01, 7
"""Number of corners, their minimum quality and their minimum distance, px."""

_WINDOW = 31
"""Side of the window around a corner, px: OpenCV's default of 21 follows noise more often."""

_BORDER = 15
"""Side of the square around a corner that must be visible, px."""


def image_flow(
    image1: NDArray[np.uint8],
    image2: NDArray[np.uint8],
    visible: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64] | None:
    """Measure how far corners of the first image have moved in the second one.

    Args:
        image1: RGB, shape (height, width, 3), uint8.
        image2: of the same shape.
        visible: mask of valid pixels of the first image, shape (height, width); None if all are
            valid. The border of the valid part of a rectified image never moves.

    Returns:
        Distance of each corner in px of an image that is at most `FLOW_WIDTH` wide, infinite for
        corners that were lost; None if there are fewer than `MIN_CORNERS` corners.
    """
    scale = min(1.0, FLOW_WIDTH / image1.shape[1])
    small1, small2 = _small(image1, scale), _small(image2, scale)
    mask = None
    if visible is not None:
        height, width = small1.shape
        mask = cv2.resize(visible.astype(np.uint8), (width, height), interpolation=cv2.INTER_AREA)
        mask = cv2.erode(mask, np.ones((_BORDER, _BORDER)), borderValue=1)
    corners = cv2.goodFeaturesToTrack(small1, _CORNERS, _QUALITY, _DISTANCE, mask=mask)
    if corners is None or len(corners) < MIN_CORNERS:
        return None
    moved, found, _ = cv2.calcOpticalFlowPyrLK(
        small1, small2, corners, corners.copy(), winSize=(_WINDOW, _WINDOW)
    )
    shifts = np.linalg.norm(np.asarray(moved) - corners, axis=-1)
    # Corners that left the image have moved. Without them only the robot's bumper might remain.
    return np.where(np.asarray(found) > 0, shifts, np.inf)[:, 0]


def _small(image: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return np.asarray(small, dtype=np.uint8)
