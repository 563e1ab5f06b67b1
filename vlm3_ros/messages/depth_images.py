# SPDX-License-Identifier: Apache-2.0
"""Depth as sensor_msgs/Image and sensor_msgs/CompressedImage (REP-118), and back.

Compressed depth comes from two plugins of image_transport: `compressedDepth` (PNG after a header of
12 bytes; 32FC1 as quantised inverse depth) and `compressed` (PNG or TIFF of the plain values).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from vlm3_ros.errors import MessageError
from vlm3_ros.messages.images import (
    compressed_image_message,
    decode_picture,
    encode_image,
    holds_16_bits,
    image_message,
    pixel_rows,
    stored_encoding,
)

if TYPE_CHECKING:
    from sensor_msgs.msg import CompressedImage, Image
    from std_msgs.msg import Header

DepthEncoding = Literal["16UC1", "32FC1"]

_DTYPES = {"16UC1": "u2", "mono16": "u2", "32FC1": "f4"}

_SATURATED = 65535
"""Largest 16-bit value: what drivers send for everything beyond their range."""

_CONFIG_HEADER = struct.Struct("<iff")
"""compressed_depth_image_transport's ConfigHeader before the PNG: format and two parameters."""

_PNG = b"\x89PNG\r\n\x1a\n"


def depth_message(
    header: Header, depth: NDArray[np.floating], encoding: DepthEncoding = "32FC1"
) -> Image:
    """Build an uncompressed depth image.

    Args:
        header: of the source image.
        depth: metres along Z, shape (height, width).
        encoding: "32FC1" keeps the values, with NaN for unknown depth; "16UC1" holds millimetres
            up to 65.534 m and 0 for unknown depth.
    """
    if encoding == "32FC1":
        return image_message(header, depth.astype(np.float32, copy=False), encoding)
    return image_message(header, millimetres(depth), encoding)


def compressed_depth_message(header: Header, depth: NDArray[np.floating]) -> CompressedImage:
    """Build a 16UC1 PNG as image_transport's `compressedDepth` sends it.

    Args:
        header: of the source image.
        depth: metres along Z, shape (height, width); see `millimetres`.
    """
    png = encode_image(".png", millimetres(depth))
    data = _CONFIG_HEADER.pack(0, 0.0, 0.0) + png
    return compressed_image_message(header, data, "16UC1; compressedDepth png")


def millimetres(depth: NDArray[np.floating]) -> NDArray[np.uint16]:
    """Metres as whole millimetres, rounded; 0 where unknown, not positive or above 65.534 m."""
    scaled = np.round(np.nan_to_num(depth * 1000.0, nan=0, posinf=0, neginf=0))
    return np.where((scaled > 0) & (scaled < _SATURATED), scaled, 0).astype(np.uint16)


def is_depth_message(message: Image | CompressedImage) -> bool:
    """Whether an image holds depth, by its encoding or format.

    False for mono16, which is grey (REP-118 has 16UC1 for depth). `depth_from_message` reads it
    nevertheless, for topics that somebody named as depth.
    """
    if hasattr(message, "encoding"):
        return message.encoding in ("16UC1", "32FC1")
    is_from_plugin = "compressedDepth" in message.format
    return is_from_plugin or stored_encoding(message.format) in ("16UC1", "32FC1")


def check_depth_format(message: Image | CompressedImage) -> None:
    """Check that a message's kind of depth can be read, before any work on its topic.

    Raises:
        MessageError: naming the encoding or format, and what to do.
    """
    if hasattr(message, "encoding"):
        if message.encoding not in _DTYPES:
            raise MessageError(
                f"an image with encoding '{message.encoding}' is not a depth image: use 32FC1 "
                "(metres) or 16UC1 (millimetres)"
            )
        return
    kind = message.format
    if stored_encoding(kind) == "compressedDepth":
        raise MessageError(
            f"depth in the format '{kind}' does not say whether its values are millimetres: set "
            "the format to '16UC1; compressedDepth png'"
        )
    if stored_encoding(kind) not in (*_DTYPES, "png", "tiff", ""):
        raise MessageError(
            f"a compressed image of format '{kind}' is not a depth image that can be read: use "
            "compressedDepth (png), or raw images"
        )
    if "rvl" in kind:
        raise MessageError(
            f"depth in the format '{kind}' is compressed with RVL, which is not read: set the "
            "publisher's parameter compressedDepth.format to png, or use raw images"
        )
    if "jpeg" in kind or bytes(memoryview(message.data)[:2]) == b"\xff\xd8":
        raise MessageError(
            f"depth in the format '{kind}' is a JPEG, which keeps 8 of 16 bits: the depth is lost; "
            "set the publisher's parameter compressed.format to png, or use compressedDepth"
        )


def depth_from_message(message: Image | CompressedImage) -> NDArray[np.float32]:
    """Decode a depth image to metres along Z, shape (height, width), NaN where unknown.

    Args:
        message: Image (16UC1 or mono16 in millimetres, 32FC1 in metres) or CompressedImage
            (`compressedDepth` png; `compressed` png or tiff of these encodings).

    Raises:
        MessageError: if it is not such an image or is damaged.
    """
    check_depth_format(message)
    if hasattr(message, "encoding"):
        pixels = _raw_depth(cast("Image", message))
    else:
        pixels = _compressed_depth(cast("CompressedImage", message))
    if pixels.dtype == np.uint16:
        metres = np.where(pixels < _SATURATED, pixels, 0) * np.float32(0.001)
    else:
        metres = pixels
    return np.where(np.isfinite(metres) & (metres > 0), metres, np.float32(np.nan))


def _raw_depth(message: Image) -> NDArray[Any]:
    dtype = np.dtype(_DTYPES[message.encoding])
    rows = pixel_rows(message, dtype.itemsize)
    return rows.view(dtype.newbyteorder(">" if message.is_bigendian else "<")).astype(dtype)


def _compressed_depth(message: CompressedImage) -> NDArray[Any]:
    """Values of a compressed depth image: uint16 millimetres or float32 metres."""
    data, kind = bytes(memoryview(message.data)), message.format
    is_float = stored_encoding(kind) == "32FC1"
    # Some publishers write the format of compressedDepth, but not its header.
    has_header = data[_CONFIG_HEADER.size :].startswith(_PNG)
    picture = decode_picture(data[_CONFIG_HEADER.size :] if has_header else data, kind)
    if is_float and picture.mode == "F":
        return np.asarray(picture, np.float32)
    if not holds_16_bits(picture):
        raise MessageError(
            f"a depth image of format '{kind}' holds no 16-bit values (Pillow's mode "
            f"{picture.mode}), so its depth is lost"
        )
    values = np.asarray(picture).astype(np.uint16)
    if not is_float:
        return values
    if not has_header:
        raise MessageError(
            f"a depth image of format '{kind}' lacks compressedDepth's header, whose parameters "
            "turn its values to metres"
        )
    _, a, b = _CONFIG_HEADER.unpack(data[: _CONFIG_HEADER.size])
    if not (np.isfinite([a, b]).all() and a > 0):
        raise MessageError(
            f"a depth image of format '{kind}' has the quantisation parameters {a:g} and {b:g} in "
            "its header: they must be finite, the first one positive"
        )
    # decodeCompressedDepthImage in compressed_depth_image_transport/src/codec.cpp; 0 is unknown.
    inverse = np.where(values > 0, values - np.float32(b), np.float32(np.nan))
    with np.errstate(divide="ignore"):
        return (np.float32(a) / inverse).astype(np.float32)
