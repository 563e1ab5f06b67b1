# SPDX-License-Identifier: Apache-2.0
"""How far an image has moved since another one, without any model: sparse optical flow.

Lucas and Kanade's pyramid on Shi and Tomasi's corners, both OpenCV's.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

FLOW_WIDTH = 320
"""Pixels across to which larger images are shrunk: less noise, and less work."""

MIN_CORNERS = 12
"""Corners without which an image tells nothing about motion: a blank wall, the dark."""

_CORNERS, _QUALITY, _DISTANCE = 100, 0.01, 7
"""The best corners of an image of that width, not closer than this, px."""

_WINDOW = 31
"""Side of what is followed around a corner, px: OpenCV's default of 21 follows noise more."""

_BORDER = 15
"""Side of the square around a corner that must be visible, px."""


def image_flow(
    image1: NDArray[np.uint8],
    image2: NDArray[np.uint8],
    visible: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64] | None:
    """How far corners of the first image have moved in the second one.

    Args:
        image1: RGB, shape (height, width, 3), uint8.
        image2: of the same shape.
        visible: pixels of the first image that show something, shape (height, width), None for
            all: the edge of what a rectified image shows never moves.

    Returns:
        Pixels of images that are `FLOW_WIDTH` across (or less, if these are), one for each corner,
        infinite for those that were not found again; None with fewer than `MIN_CORNERS`.
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
    # What left the image is what moved: without it, only the robot's own bumper might be left.
    return np.where(np.asarray(found) > 0, shifts, np.inf)[:, 0]


def _small(image: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return np.asarray(small, dtype=np.uint8)
