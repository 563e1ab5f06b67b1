# SPDX-License-Identifier: Apache-2.0
"""Resize images for the model."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from vlm3_ros.geometry.camera import GeometryError, UnifiedCamera

PADDING = 128
"""Grey level of the padding: the mean that Qwen3-VL's image processor subtracts."""


def unify_image(image: NDArray[np.uint8], unified: UnifiedCamera) -> NDArray[np.uint8]:
    """Resize (and pad) a source image to the view that `unify_focal` chose.

    Args:
        image: RGB, shape (source height, source width, 3), uint8.
        unified: the camera of that image.

    Returns:
        RGB, shape (view height, view width, 3), uint8, C-contiguous.

    Raises:
        GeometryError: if the image does not have the size of the source camera.
    """
    source, view = unified.source, unified.view
    if image.shape != (source.height, source.width, 3):
        raise GeometryError(
            f"the image has shape {image.shape}, its camera is {source.width}x{source.height}"
        )
    size = (unified.content_width, unified.content_height)
    # Two steps: if one axis grows, cv2's area averaging shifts the other one, which shrinks.
    smaller = (min(size[0], source.width), min(size[1], source.height))
    content = cv2.resize(image, smaller, interpolation=cv2.INTER_AREA)
    content = cv2.resize(content, size, interpolation=cv2.INTER_LINEAR)
    right, bottom = view.width - unified.content_width, view.height - unified.content_height
    if not right and not bottom:
        return np.ascontiguousarray(content)
    return cv2.copyMakeBorder(
        content, 0, bottom, 0, right, cv2.BORDER_CONSTANT, value=(PADDING,) * 3
    ).astype(np.uint8, copy=False)


def lab_image(image: NDArray[np.uint8], scale: float) -> NDArray[np.float32]:
    """Shrink an image, remove its noise, and convert it to perceptual colours.

    Args:
        image: RGB, shape (height, width, 3), uint8.
        scale: factor on its sides, at most 1.

    Returns:
        CIELAB, shape (rows, columns, 3), float32; a just noticeable difference is about 2.
    """
    height, width = image.shape[:2]
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.medianBlur(cv2.resize(image, size, interpolation=cv2.INTER_AREA), 3)
    return np.asarray(cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2LAB))
