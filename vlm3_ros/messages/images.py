# SPDX-License-Identifier: Apache-2.0
"""Colour images as sensor_msgs/Image and sensor_msgs/CompressedImage, and back."""

from __future__ import annotations

import io
import math
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
from vlm3_ros.messages.classes import classes_of

if TYPE_CHECKING:
    from sensor_msgs.msg import CompressedImage, Image
    from std_msgs.msg import Header

MAX_PIXELS = 2**26
"""Largest image that is decoded, in pixels: a PNG of a few bytes can claim all memory."""

_PAIRED = ("uyvy", "yuv422", "yuyv", "yuv422_yuy2", "nv12", "nv21")
"""Encodings in which neighbouring pixels share their colours."""

_CODECS = ("JPEG", "PNG", "TIFF", "WEBP")
_GREY_BITS = {"L": 8, "I;16": 16, "I": 16}
"""Bits per pixel of Pillow's grey modes, as a PNG stores them."""


def image_message(header: Header, pixels: NDArray[Any], encoding: str = "rgb8") -> Image:
    """Build an uncompressed sensor_msgs/Image.

    Args:
        header: of the image.
        pixels: shape (height, width) or (height, width, channels), of the dtype of the encoding.
        encoding: see sensor_msgs/image_encodings.hpp.
    """
    classes = classes_of(header)
    pixels = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("<"))
    # Not strides[0]: NumPy leaves any value there if there is only one row.
    step = pixels.itemsize * math.prod(pixels.shape[1:])
    return classes.message(
        "sensor_msgs/msg/Image",
        {"data": pixels.view(np.uint8).ravel()},
        header=header,
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        is_bigendian=0,
        step=step,
    )


def compressed_image_message(header: Header, data: bytes, image_format: str) -> CompressedImage:
    """Build a sensor_msgs/CompressedImage of encoded bytes, such as those of a JPEG file.

    Args:
        header: of the image.
        data: the bytes.
        image_format: "jpeg", "png" or another format of image_transport.
    """
    classes = classes_of(header)
    return classes.message(
        "sensor_msgs/msg/CompressedImage",
        {"data": np.frombuffer(data, np.uint8)},
        header=header,
        format=image_format,
    )


def jpeg_image_message(
    header: Header, image: NDArray[np.uint8], quality: int = 90
) -> CompressedImage:
    """Build a JPEG sensor_msgs/CompressedImage of an RGB image, shape (height, width, 3), uint8."""
    data = encode_image(".jpg", image[..., ::-1], cv2.IMWRITE_JPEG_QUALITY, quality)
    return compressed_image_message(header, data, "jpeg")


def encode_image(suffix: str, pixels: NDArray[Any], *parameters: int) -> bytes:
    """Encode pixels (BGR order) as OpenCV does for a file name with this suffix.

    Raises:
        MessageError: if OpenCV cannot encode them.
    """
    encoded, data = cv2.imencode(suffix, pixels, parameters)
    if not encoded:
        raise MessageError(f"an image of shape {pixels.shape} could not be encoded as {suffix}")
    return data.tobytes()


def rgb_from_message(message: Image | CompressedImage) -> NDArray[np.uint8]:
    """Decode the colour image in a message.

    Supports the colour encodings of sensor_msgs/image_encodings.hpp that rosbags-image knows, in
    either byte order and with any step, and JPEG, PNG, TIFF and WebP as compressed_image_transport
    writes them. 16-bit channels are scaled to 8 bit.

    Returns:
        RGB, shape (height, width, 3), uint8, C-contiguous; it may share the message's memory.

    Raises:
        MessageError: if the message does not hold a complete colour image.
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
    # OpenCV 4.6 (Ubuntu 24.04) writes beyond its buffers for such sizes.
    is_odd = message.width % 2 or (rows != message.height and message.height % 2)
    if is_odd and message.encoding in _PAIRED:
        raise MessageError(
            f"{message.width}x{message.height} is not a valid size for {message.encoding}, "
            "whose pixels share colours in pairs"
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
    # rosbags-image wants rows without padding, and a height that includes all planes.
    packed = data[: message.step * rows].reshape(rows, message.step)[:, :row_bytes]
    return _as_rgb(packed, message.width, message.encoding, bool(message.is_bigendian))


def _row_bytes(encoding: str, width: int) -> int:
    try:
        _, colours, dtype, channels = to_cvtype(encoding)
    except ImageError:
        raise MessageError(f"the encoding {encoding!r} is unknown") from None
    if colours == Format.GENERIC:
        raise MessageError(f"the encoding {encoding!r} does not define colours")
    return width * channels * np.dtype(dtype).itemsize


def _is_half_sampled(encoding: str) -> bool:
    """Whether a plane of half the height follows the image."""
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
        raise MessageError(
            f"{width}x{len(rows)} is not a valid size for {encoding}: {error.err}"
        ) from None
    return np.ascontiguousarray(rgb)


def _decompressed(message: CompressedImage) -> NDArray[np.uint8]:
    if "compressedDepth" in message.format:
        raise MessageError(f"the format {message.format!r} is a depth image, not a colour image")
    if not len(message.data):
        raise MessageError("the data are empty")
    # Pillow, because OpenCV decodes half a JPEG to half an image without an error.
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
    except Exception as error:  # decoders raise any exception on broken data
        raise MessageError(f"the data (format {message.format!r}) are corrupt: {error}") from None
    if picture.mode not in _GREY_BITS:
        return np.asarray(picture.convert("RGB"))
    bits = _GREY_BITS[picture.mode]
    grey = np.asarray(picture).astype(f"uint{bits}")
    # compressed_image_transport stores a Bayer pattern as a grey image.
    pattern = re.match("bayer_[rgb]{4}", message.format)
    encoding = f"{pattern.group()}{bits}" if pattern else f"mono{bits}"
    return _as_rgb(grey, picture.width, encoding)


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise MessageError(f"an image of {width}x{height} is larger than {MAX_PIXELS} px")
