# SPDX-License-Identifier: Apache-2.0
"""The files that many formats share: images, depth as 16-bit PNG, tables of numbers, JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vlm3_ros.errors import DatasetError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
"""Of files that are taken for images, in lower case."""

MAX_MEDIAN_DEPTH, MIN_MEDIAN_DEPTH = 200.0, 0.01
"""Metres: a median beyond these means that depth is in another unit."""


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read an image as it is stored: an EXIF rotation is left, since truth is about these pixels.

    Returns:
        RGB, shape (height, width, 3), uint8; of 16 bits per channel the upper 8.

    Raises:
        DatasetError: naming the file that is missing, broken or truncated.
    """
    # Not with OpenCV, which reads half an image from half a JPEG without an error.
    from PIL import Image

    try:
        with Image.open(path) as picture:
            if picture.mode.startswith("I;16"):  # Pillow's own conversion makes nearly all white
                return np.repeat((np.array(picture) >> 8).astype(np.uint8)[..., None], 3, axis=2)
            if picture.mode in ("I", "F"):
                raise DatasetError(f"{path}: it is not an image of 8 or 16 bits per channel")
            return np.array(picture.convert("RGB"))
    except DatasetError:
        raise
    except FileNotFoundError:
        raise DatasetError(f"{path}: there is no such image") from None
    except Exception as error:  # decoders raise anything on broken files
        raise DatasetError(f"{path}: the image cannot be read: {error}") from error


def read_png_depth(path: Path, metres_per_unit: float = 0.001) -> NDArray[np.float32]:
    """Read depth from a 16-bit PNG, 0 where unknown.

    Returns:
        Metres along Z, shape (height, width), NaN where unknown.

    Raises:
        DatasetError: naming the file that is missing, broken or no depth.
    """
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise DatasetError(f"{path}: it cannot be read: {error.strerror}") from error
    pixels = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
    if pixels is None:
        raise DatasetError(f"{path}: it is damaged, or not an image")
    if pixels.ndim != 2 or pixels.dtype != np.uint16:
        raise DatasetError(f"{path}: it is not depth, which is grey with 16 bits per pixel")
    return np.where(pixels > 0, pixels * metres_per_unit, np.nan).astype(np.float32)


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        DatasetError: naming the file that is missing or broken.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DatasetError(f"{path}: it cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path}: it is not JSON: {error}") from error


def table_rows(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Read the rows of a table of words; `#` begins a comment.

    Yields:
        The file and line for messages, and the words.

    Raises:
        DatasetError: naming the file that cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DatasetError(f"{path}: it cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: it is not text: {error}") from error
    for number, line in enumerate(lines, 1):
        if words := line.partition("#")[0].replace(",", " ").split():
            yield f"{path}:{number}", words
