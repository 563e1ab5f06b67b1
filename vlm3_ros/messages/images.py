# SPDX-License-Identifier: Apache-2.0
"""Colour images as sensor_msgs/Image and sensor_msgs/CompressedImage, and back."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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

_USE_COLOUR = "use the topic of the camera's colour images"
_NAME_COLOURS = "publish one of colour, such as rgb8, bgr8 or mono8"

MAX_PIXELS = 2**26
"""Largest image that is decoded, in pixels: a PNG of a few bytes can claim all memory."""

_PAIRED = ("uyvy", "yuv422", "yuyv", "yuv422_yuy2", "nv12", "nv21")
"""Encodings in which neighbouring pixels share their colours."""

_CODECS = ("JPEG", "PNG", "TIFF", "WEBP")
_GREY_16 = ("I;16", "I;16B", "I;16L")

_DEPTH = ("16UC1", "32FC1")
"""Encodings of depth images (REP-118)."""

_DARK = 2**12
"""16-bit images whose largest value is below this are black: 16 of 256 grey levels are left."""


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
    writes them. 16-bit channels are scaled to 8 bit. The pixels of a compressed image stay as they
    are stored, as in compressed_image_transport: an EXIF orientation does not turn them, because
    the calibration is that of the sensor. A step or a height of 0 is what the data's length says.

    Returns:
        RGB, shape (height, width, 3), uint8, C-contiguous; it may share the message's memory.

    Raises:
        MessageError: if the message does not hold a complete colour image.
    """
    if hasattr(message, "encoding"):
        return _unpacked(cast("Image", message))
    return _decompressed(cast("CompressedImage", message))


def check_colour_format(message: Image | CompressedImage) -> None:
    """Check that a message's kind of image can be colour, without decoding it.

    Raises:
        MessageError: naming the encoding or format.
    """
    if hasattr(message, "encoding"):
        _pixel_bytes(cast("Image", message).encoding)
        return
    kind = message.format
    _check_no_depth(kind)
    with _opened(bytes(memoryview(message.data)), kind):
        pass


def stored_encoding(image_format: str) -> str:
    """The encoding in the format of a compressed image: "rgb8" in "rgb8; jpeg compressed bgr8"."""
    return image_format.partition(";")[0].strip()


def pixel_rows(
    message: Image, pixel_bytes: int, planes: Callable[[int], int] = lambda height: height
) -> NDArray[np.uint8]:
    """Return the rows of an image without their padding.

    A step or height of 0, which some drivers leave unset, is what the length of the data says if
    the rows have no padding.

    Args:
        message: the image.
        pixel_bytes: bytes per pixel.
        planes: rows that are stored for an image of a height.

    Returns:
        Shape (rows, row bytes), C-contiguous; it may share the message's memory.

    Raises:
        MessageError: if the image is empty, cut off or too large.
    """
    width, height, encoding = message.width, message.height, message.encoding
    data = np.frombuffer(memoryview(message.data), np.uint8)
    row_bytes = width * pixel_bytes
    step = message.step or row_bytes
    if width and not height and step >= row_bytes:
        rows = len(data) // step
        height = next((h for h in (rows, rows * 2 // 3) if h and planes(h) * step == len(data)), 0)
    if width == 0 or height == 0:
        raise MessageError(f"the image is empty ({message.width}x{message.height})")
    _check_size(width, height)
    rows = planes(height)
    if not message.step and len(data) != rows * row_bytes:
        raise MessageError(
            f"the step is 0, and {len(data)} bytes are not {width}x{height} px of {encoding} "
            f"without padding, which take {rows * row_bytes} bytes: set the step"
        )
    if step < row_bytes:
        raise MessageError(
            f"the step of {step} bytes is smaller than a row: {width} px of {encoding} take "
            f"{row_bytes} bytes"
        )
    if len(data) < step * rows:
        raise MessageError(
            f"the data are cut off: {len(data)} bytes of {step * rows} (step {step} x {rows} rows)"
        )
    return np.ascontiguousarray(data[: step * rows].reshape(rows, step)[:, :row_bytes])


def _unpacked(message: Image) -> NDArray[np.uint8]:
    encoding, width = message.encoding, message.width
    if not width and not message.height:  # an unset encoding would hide it
        raise MessageError("the image is empty (0x0)")
    pixel_bytes, is_half_sampled = _pixel_bytes(encoding), encoding in ("nv12", "nv21")

    def planes(height: int) -> int:
        # OpenCV 4.6 (Ubuntu 24.04) writes beyond its buffers for such sizes.
        if encoding in _PAIRED and (width % 2 or (is_half_sampled and height % 2)):
            raise MessageError(
                f"{width}x{height} is not a valid size for {encoding}, whose pixels share colours "
                "in pairs"
            )
        # A plane of half the height follows the image.
        return height + height // 2 if is_half_sampled else height

    rows = pixel_rows(message, pixel_bytes, planes)
    return _as_rgb(rows, width, encoding, bool(message.is_bigendian))


def _pixel_bytes(encoding: str) -> int:
    if encoding in _DEPTH:
        raise MessageError(f"the encoding {encoding!r} is that of a depth image: {_USE_COLOUR}")
    try:
        _, colours, dtype, channels = to_cvtype(encoding)
    except ImageError:
        raise MessageError(f"the encoding {encoding!r} is unknown: {_NAME_COLOURS}") from None
    if colours == Format.GENERIC:
        raise MessageError(f"the encoding {encoding!r} does not define colours: {_NAME_COLOURS}")
    return channels * np.dtype(dtype).itemsize


def _as_rgb(
    rows: NDArray[np.uint8], width: int, encoding: str, is_bigendian: bool = False
) -> NDArray[np.uint8]:
    if encoding.endswith("16"):
        check_brightness(
            rows.view(">u2" if is_bigendian else "<u2"),
            f"let its driver scale them to 16, or send {encoding.removesuffix('16')}8",
        )
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


def check_brightness(values: NDArray[np.integer], remedy: str) -> None:
    """Refuse 16-bit images that are black if 65535 is white.

    Drivers send values of 10 or 12 bits in 16 without saying which: a scale would be a guess.

    Args:
        values: of the image.
        remedy: what the user can do.

    Raises:
        MessageError: with the largest value.
    """
    brightest = int(values.max(initial=0))
    if brightest < _DARK:
        raise MessageError(
            f"the image is black: its brightest value is {brightest} of 65535. If the camera has "
            f"{max(brightest.bit_length(), 10)} bits, {remedy}"
        )


def decode_picture(data: bytes, image_format: str) -> Pillow.Image:
    """Decode the data of a compressed image; `image_format` is for messages.

    Raises:
        MessageError: if the data are no complete JPEG, PNG, TIFF or WebP, or too large.
    """
    with _opened(data, image_format) as picture:
        _check_size(*picture.size)
        check_16_bit_colours(picture)
        picture.load()
    return picture


@contextmanager
def _opened(data: bytes, image_format: str) -> Iterator[Pillow.Image]:
    """A picture whose header is read."""
    if not data:
        raise MessageError("the data are empty")
    # Pillow, because OpenCV decodes half a JPEG to half an image without an error.
    try:
        with Pillow.open(io.BytesIO(data), formats=_CODECS) as picture:
            yield picture
    except Pillow.UnidentifiedImageError:
        raise MessageError(
            f"the data (format {image_format!r}) are none of {', '.join(_CODECS)}: publish one of "
            "these, or raw images"
        ) from None
    except Pillow.DecompressionBombError:
        raise MessageError(f"the image is larger than {MAX_PIXELS} px") from None
    except MessageError:
        raise
    except Exception as error:  # decoders raise any exception on broken data
        raise MessageError(f"the data (format {image_format!r}) are corrupt: {error}") from None


def check_16_bit_colours(picture: Pillow.Image) -> None:
    """As `check_brightness`, of colours of 16 bits, of which Pillow keeps the upper 8.

    Args:
        picture: that is open, but not loaded.
    """
    has_16_bits = any(";16" in str(tile[3]) for tile in getattr(picture, "tile", ()))
    if has_16_bits and picture.mode in ("RGB", "RGBA"):
        colours = np.asarray(picture.convert("RGB")).astype(np.uint16)
        check_brightness(colours << 8, "scale them to 16, or send 8")


def is_16_bit_grey(message: Image | CompressedImage) -> bool:
    """Whether an image is of 16-bit grey values: mono16, also as PNG or TIFF."""
    if hasattr(message, "encoding"):
        return bool(message.encoding == "mono16")
    try:
        with _opened(bytes(memoryview(message.data)), message.format) as picture:
            return holds_16_bits(picture)
    except MessageError:
        return False


def holds_16_bits(picture: Pillow.Image) -> bool:
    """Whether a picture holds 16-bit grey values."""
    # Older versions of Pillow call a 16-bit PNG "I".
    return picture.mode in _GREY_16 or (picture.mode == "I" and picture.format == "PNG")


def _decompressed(message: CompressedImage) -> NDArray[np.uint8]:
    kind = message.format
    _check_no_depth(kind)
    picture = decode_picture(bytes(memoryview(message.data)), kind)
    is_16_bit = holds_16_bits(picture)
    if picture.mode in ("I", "F") and not is_16_bit:
        raise MessageError(
            f"the data (format {kind!r}) hold one channel of 32 bits, not colour: {_USE_COLOUR}"
        )
    if not is_16_bit and picture.mode != "L":
        return np.asarray(picture.convert("RGB"))
    bits = 16 if is_16_bit else 8
    grey = np.asarray(picture).astype(f"<u{bits // 8}")
    # compressed_image_transport stores a Bayer pattern as a grey image.
    pattern = re.match("bayer_[rgb]{4}", kind)
    encoding = f"{pattern.group()}{bits}" if pattern else f"mono{bits}"
    return _as_rgb(grey.view(np.uint8), picture.width, encoding)


def _check_no_depth(image_format: str) -> None:
    if "compressedDepth" in image_format or stored_encoding(image_format) in _DEPTH:
        raise MessageError(f"the format {image_format!r} is that of a depth image: {_USE_COLOUR}")


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise MessageError(f"an image of {width}x{height} is larger than {MAX_PIXELS} px")
