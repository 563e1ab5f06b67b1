"""Images as the model sees them."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from vlm3_ros.geometry.camera import GeometryError, UnifiedCamera

PADDING = 128
"""Grey level of the padding: the mean that Qwen3-VL's processor subtracts."""


def unify_image(image: NDArray[np.uint8], unified: UnifiedCamera) -> NDArray[np.uint8]:
    """Resize (and pad) a source image to the view that `unify_focal` chose.

    Args:
        image: RGB, shape (source height, source width, 3), uint8.
        unified: the camera of that image.

    Returns:
        RGB, shape (view height, view width, 3), uint8, C-contiguous.

    Raises:
        GeometryError: when the image has another size than the source camera.
    """
    source, view = unified.source, unified.view
    if image.shape != (source.height, source.width, 3):
        raise GeometryError(
            f"the image has shape {image.shape}, its camera is {source.width}x{source.height}"
        )
    size = (unified.content_width, unified.content_height)
    # Two steps: where one axis grows, cv2's area averaging shifts the one that shrinks.
    smaller = (min(size[0], source.width), min(size[1], source.height))
    content = cv2.resize(image, smaller, interpolation=cv2.INTER_AREA)
    content = cv2.resize(content, size, interpolation=cv2.INTER_LINEAR)
    right, bottom = view.width - unified.content_width, view.height - unified.content_height
    if not right and not bottom:
        return np.ascontiguousarray(content)
    return cv2.copyMakeBorder(
        content, 0, bottom, 0, right, cv2.BORDER_CONSTANT, value=(PADDING,) * 3
    ).astype(np.uint8, copy=False)
