# SPDX-License-Identifier: Apache-2.0
"""Pictures in messages (sensor_msgs/Image, sensor_msgs/CompressedImage) as RGB arrays.

The messages may be those of rclpy or of `rosbags`: bags are evaluated where no ROS is installed.
"""

from __future__ import annotations

import io
import re
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

try:
    from rosbags.image import ImageError, image_to_cvimage
    from rosbags.image.image import Format, to_cvtype
except ModuleNotFoundError as error:  # rosdep has no key for it
    raise ModuleNotFoundError(
        "rosbags-image is missing: pip install rosbags-image", name=error.name
    ) from error

from vlm3_ros.errors import MessageError

if TYPE_CHECKING:
    from sensor_msgs.msg import CompressedImage, Image

MAX_PIXELS = 2**26
"""Largest picture that is decoded, in pixels: a few bytes of PNG can ask for all memory."""

_PAIRED = ("uyvy", "yuv422", "yuyv", "yuv422_yuy2", "nv12", "nv21")
"""Encodings whose neighbouring pixels share their colours."""

_CODECS = ("JPEG", "PNG", "TIFF", "WEBP")
_GREY_BITS = {"L": 8, "I;16": 16, "I": 16}
"""Bits of Pillow's grey modes, as a PNG has them."""


def rgb_from_message(message: Image | CompressedImage) -> NDArray[np.uint8]:
    """The picture in a message.

    All colour encodings of sensor_msgs/image_encodings.hpp that rosbags-image knows, of either
    byte order and with rows of any step; JPEG, PNG, TIFF and WebP as compressed_image_transport
    writes them. 16-bit channels are scaled to 8 bit.

    Returns:
        shape (height, width, 3), uint8 RGB, C-contiguous; it may share the message's memory.

    Raises:
        MessageError: when the message holds no whole colour picture.
    """
    if hasattr(message, "encoding"):
        return _unpacked(cast("Image", message))
    return _decompressed(cast("CompressedImage", message))


def _unpacked(message: Image) -> NDArray[np.uint8]:
    if message.width == 0 or message.height == 0:
        raise MessageError(f"the image is empty ({message.width}x{message.height})")
    rows, row_bytes = message.height, _row_bytes(message.encoding, message.width)
    if _is_half_sampled(message.encoding):
        rows += rows // 2
    # OpenCV 4.6, that of Ubuntu 24.04, writes beyond its buffers there.
    is_odd = message.width % 2 or (rows != message.height and message.height % 2)
    if is_odd and message.encoding in _PAIRED:
        raise MessageError(
            f"{message.width}x{message.height} is no size for {message.encoding}, whose pixels "
            "share colours in pairs"
        )
    if message.step < row_bytes:
        raise MessageError(
            f"the step of {message.step} bytes is smaller than a row: {message.width} px of "
            f"{message.encoding} take {row_bytes} bytes"
        )
    _check_size(message.width, message.height)
    data = np.frombuffer(message.data, np.uint8)
    if data.size < message.step * rows:
        raise MessageError(
            f"the data are cut off: {data.size} bytes of {message.step * rows} "
            f"(step {message.step} x {rows} rows)"
        )
    # rosbags-image takes rows without padding, and the planes of a picture for its height.
    packed = data[: message.step * rows].reshape(rows, message.step)[:, :row_bytes]
    return _as_rgb(packed, message.width, message.encoding, bool(message.is_bigendian))


def _row_bytes(encoding: str, width: int) -> int:
    try:
        _, colours, dtype, channels = to_cvtype(encoding)
    except ImageError:
        raise MessageError(f"the encoding {encoding!r} is unknown") from None
    if colours == Format.GENERIC:
        raise MessageError(f"the encoding {encoding!r} does not say its colours")
    return width * channels * np.dtype(dtype).itemsize


def _is_half_sampled(encoding: str) -> bool:
    """Whether a plane of half the height follows the picture."""
    return encoding in ("nv12", "nv21")


def _as_rgb(
    rows: NDArray[np.uint8], width: int, encoding: str, is_bigendian: bool = False
) -> NDArray[np.uint8]:
    packed = SimpleNamespace(
        width=width,
        height=len(rows),
        encoding=encoding,
        is_bigendian=is_bigendian,
        data=np.ascontiguousarray(rows),
    )
    try:
        rgb = image_to_cvimage(cast(Any, packed), "rgb8")
    except cv2.error as error:
        raise MessageError(f"{width}x{len(rows)} is no size for {encoding}: {error.err}") from None
    return np.ascontiguousarray(rgb)


def _decompressed(message: CompressedImage) -> NDArray[np.uint8]:
    if "compressedDepth" in message.format:
        raise MessageError(f"the format {message.format!r} is a depth image, not a picture")
    if not len(message.data):
        raise MessageError("the data are empty")
    # Pillow, for OpenCV makes half a picture of half a JPEG without a word.
    try:
        with Pillow.open(io.BytesIO(message.data), formats=_CODECS) as picture:
            _check_size(*picture.size)
            picture.load()
    except Pillow.UnidentifiedImageError:
        raise MessageError(
            f"the data (format {message.format!r}) are none of {', '.join(_CODECS)}"
        ) from None
    except Pillow.DecompressionBombError:
        raise MessageError(f"the image is larger than {MAX_PIXELS} px") from None
    except MessageError:
        raise
    except Exception as error:  # decoders raise anything on broken data
        raise MessageError(f"the data (format {message.format!r}) are corrupt: {error}") from None
    if picture.mode not in _GREY_BITS:
        return np.asarray(picture.convert("RGB"))
    bits = _GREY_BITS[picture.mode]
    grey = np.asarray(picture).astype(f"uint{bits}")
    # compressed_image_transport stores a Bayer pattern as a grey picture.
    pattern = re.match("bayer_[rgb]{4}", message.format)
    encoding = f"{pattern.group()}{bits}" if pattern else f"mono{bits}"
    return _as_rgb(grey, picture.width, encoding)


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise MessageError(f"an image of {width}x{height} is larger than {MAX_PIXELS} px")
