# SPDX-License-Identifier: Apache-2.0
"""Checks, encoding and digests of images, for all engines."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlm3_ros.engines.base import EngineError
from vlm3_ros.engines.settings import ImageEncoding
from vlm3_ros.geometry.camera import ImageLimits

QWEN3_VL_LIMITS = ImageLimits(multiple=32, min_pixels=65_536, max_pixels=16_777_216)
"""Sizes that Qwen3-VL's image processor does not resize."""

_KEY_SCHEME = "vlm3_ros image 1"
"""Change it whenever the same bytes come to mean another image to the model."""

_PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")


def load_limits(folder: Path) -> ImageLimits:
    """Read the image sizes that a checkpoint does not resize from the files of its processor.

    Return those of Qwen3-VL if the folder holds no such file.

    Raises:
        EngineError: if a file describes another kind of processor; names the file.
    """
    for path in (folder / name for name in _PROCESSOR_FILES):
        if not path.exists():
            continue
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            processor = content.get("image_processor", content)
            return ImageLimits(
                multiple=processor["patch_size"] * processor["merge_size"],
                min_pixels=processor["size"]["shortest_edge"],
                max_pixels=processor["size"]["longest_edge"],
            )
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise EngineError(f"{path} does not describe Qwen3-VL's image processor") from error
    return QWEN3_VL_LIMITS


def check_images(images: Sequence[NDArray[np.uint8]], limits: ImageLimits) -> None:
    """Raise an EngineError unless all images enter the model without resizing."""
    if not images:
        raise EngineError("a question needs at least one image")
    for image in images:
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise EngineError(
                f"an image must be of shape (height, width, 3) and uint8, not {image.shape} and "
                f"{image.dtype}"
            )
        height, width, _ = image.shape
        if (
            width % limits.multiple
            or height % limits.multiple
            or not limits.min_pixels <= width * height <= limits.max_pixels
        ):
            raise EngineError(
                f"an image of {width}x{height} px would be resized: the model takes sides that "
                f"are multiples of {limits.multiple} px and {limits.min_pixels} to "
                f"{limits.max_pixels} px in all (see vlm3_ros.geometry.camera.unify_focal)"
            )


@dataclass(frozen=True)
class EncodedImage:
    """An image as it travels to a server.

    Attributes:
        url: data URL that holds it.
        key: digest of exactly what the URL holds. Servers may cache images under this key, and
            nothing but the key binds a cached image to its content.
        area: of the image, px.
    """

    url: str
    key: str
    area: int


def encode_image(
    image: NDArray[np.uint8], encoding: ImageEncoding = "png", jpeg_quality: int = 90
) -> EncodedImage:
    """Encode an RGB image, shape (height, width, 3).

    Args:
        image: the image.
        encoding: png is lossless; jpeg is smaller.
        jpeg_quality: 1 to 100, with colours at full resolution.
    """
    buffer = io.BytesIO()
    if encoding == "png":
        Image.fromarray(image).save(buffer, "PNG", compress_level=1)
    else:
        Image.fromarray(image).save(buffer, "JPEG", quality=jpeg_quality, subsampling=0)
    height, width, _ = image.shape
    content = buffer.getvalue()
    meaning = f"{_KEY_SCHEME} {encoding} {width}x{height} ".encode()
    return EncodedImage(
        url=f"data:image/{encoding};base64,{base64.b64encode(content).decode('ascii')}",
        key=hashlib.sha256(meaning + content).hexdigest(),
        area=width * height,
    )


def image_digest(image: NDArray[np.uint8]) -> str:
    """Return a hash of the size and the pixels of an RGB image, shape (height, width, 3)."""
    height, width, _ = image.shape
    content = np.ascontiguousarray(image).tobytes()
    return hashlib.sha256(f"{width}x{height} ".encode() + content).hexdigest()
