# SPDX-License-Identifier: Apache-2.0
"""Files of a training set, written so that an interruption leaves no half of one."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vlm3_ros.messages.depth_images import millimetres


def write_whole(path: Path, content: bytes) -> None:
    """Write a file and its folder; it appears when it is whole.

    Raises:
        OSError: when it cannot be written; names the file, leaves nothing behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        part.write_bytes(content)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_lines(path: Path, contents: Iterable[Any]) -> None:
    """Write a line of JSON for each."""
    write_whole(path, "".join(json_line(content) for content in contents).encode())


def json_line(content: Any) -> str:
    """One line of JSON, with its end."""
    return json.dumps(content, allow_nan=False) + "\n"


def jpeg(image: NDArray[np.uint8], quality: int) -> bytes:
    """A JPEG file of an RGB image, shape (height, width, 3), uint8."""
    return cv2.imencode(".jpg", image[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, quality))[1].tobytes()


def depth_png(depth: NDArray[np.floating]) -> bytes:
    """A 16-bit PNG of millimetres of a depth image in metres; 0 where unknown or above 65.535 m."""
    return cv2.imencode(".png", millimetres(depth))[1].tobytes()
