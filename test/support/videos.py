# SPDX-License-Identifier: Apache-2.0
"""Small videos, for tests."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

FRAMES, RATE = 10, 10


def write_video(path: Path, size: tuple[int, int] = (64, 48), codec: str = "mp4v") -> Path:
    """Red above blue, ever brighter; `size`: width and height; ten frames a second."""
    width, height = size
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), RATE, size)
    assert writer.isOpened()
    for index in range(FRAMES):
        image = np.zeros((height, width, 3), np.uint8)
        half = height // 2
        image[:half, :, 2] = image[half:, :, 0] = 100 + 15 * index
        writer.write(image)
    writer.release()
    return path
