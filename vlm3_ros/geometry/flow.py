"""How far an image has moved since another one, without any model: sparse optical flow.

Lucas and Kanade's pyramid on Shi and Tomasi's corners, both OpenCV's.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from vlm3_ros.geometry.camera import PinholeCamera

MIN_CORNERS = 12
"""Corners without which an image tells nothing about motion: a blank wall, the dark."""

_WIDTH = 320
_CORNERS, _QUALITY, _DISTANCE = 100, 0.01, 7
"""The best corners of an image of that width, not closer than this, px."""

_BORDER = 15
"""Side of the square around a corner that must be visible, px."""


def image_flow(
    image1: NDArray[np.uint8],
    image2: NDArray[np.uint8],
    camera: PinholeCamera,
    visible: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64] | None:
    """Angles by which corners of the first image have moved in the second one.

    Args:
        image1: RGB, shape (camera.height, camera.width, 3), uint8.
        image2: of the same shape.
        camera: of both.
        visible: pixels of the first image that show something, shape (camera.height,
            camera.width), None for all: the edge of what a rectified image shows never moves.

    Returns:
        Radians at the image centre, one for each corner that was found again; None with fewer
        than `MIN_CORNERS`.
    """
    scale = min(1.0, _WIDTH / camera.width)
    small1, small2 = _small(image1, scale), _small(image2, scale)
    mask = None
    if visible is not None:
        height, width = small1.shape
        mask = cv2.resize(visible.astype(np.uint8), (width, height), interpolation=cv2.INTER_AREA)
        mask = cv2.erode(mask, np.ones((_BORDER, _BORDER)), borderValue=1)
    corners = cv2.goodFeaturesToTrack(small1, _CORNERS, _QUALITY, _DISTANCE, mask=mask)
    if corners is None or len(corners) < MIN_CORNERS:
        return None
    moved, found, _ = cv2.calcOpticalFlowPyrLK(small1, small2, corners, corners.copy())
    shifts = np.linalg.norm((np.asarray(moved) - corners)[np.asarray(found) > 0], axis=-1)
    if len(shifts) < MIN_CORNERS:
        return None
    return shifts / (scale * np.sqrt(camera.fx * camera.fy))


def _small(image: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return np.asarray(small, dtype=np.uint8)
