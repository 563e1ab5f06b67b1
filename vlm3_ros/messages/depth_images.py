# SPDX-License-Identifier: Apache-2.0
"""Depth as sensor_msgs/Image and sensor_msgs/CompressedImage (REP-118), and back."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from vlm3_ros.errors import MessageError
from vlm3_ros.messages.images import compressed_image_message, encode_image, image_message

if TYPE_CHECKING:
    from sensor_msgs.msg import CompressedImage, Image
    from std_msgs.msg import Header

DepthEncoding = Literal["16UC1", "32FC1"]

_DTYPES = {"16UC1": "u2", "mono16": "u2", "32FC1": "f4"}

_DEPTH_ENCODINGS = ("16UC1", "32FC1")
"""Of REP-118. mono16 is a grey picture, such as a thermal one, unless the user says otherwise."""

_SATURATED = 65535
"""Of 16-bit depth: what lies beyond the range of the sensor or of the format."""

_CONFIG_HEADER = struct.Struct("<iff")
"""compressed_depth_image_transport's ConfigHeader before the PNG: format and two parameters."""


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
    """Whether an image holds depth, by its encoding or format."""
    if hasattr(message, "encoding"):
        return message.encoding in _DEPTH_ENCODINGS
    return "compressedDepth" in message.format


def depth_from_message(message: Image | CompressedImage) -> NDArray[np.float32]:
    """Decode a depth image to metres along Z, shape (height, width), NaN where unknown.

    65535 in 16 bits is saturated and so unknown.

    Args:
        message: Image (16UC1 or mono16 in millimetres or 32FC1 in metres) or CompressedImage
            (`compressedDepth`, PNG of 16-bit millimetres).

    Raises:
        MessageError: if it is not such an image or is damaged.
    """
    decode = _raw_depth if hasattr(message, "encoding") else _compressed_depth
    pixels = decode(message)
    is_integer = pixels.dtype == np.uint16
    metres = pixels.astype(np.float32) * (0.001 if is_integer else 1)
    known = np.isfinite(metres) & (metres > 0)
    if is_integer:
        known &= pixels != _SATURATED
    return np.where(known, metres, np.float32(np.nan))


def _raw_depth(message: Image) -> NDArray[Any]:
    if message.encoding not in _DTYPES:
        raise MessageError(f"an image with encoding '{message.encoding}' is not a depth image")
    dtype = np.dtype(_DTYPES[message.encoding])
    height, width, step = message.height, message.width, message.step
    data = np.frombuffer(memoryview(message.data), np.uint8)
    row_bytes = width * dtype.itemsize
    if step < row_bytes or len(data) < height * step or not height or not width:
        raise MessageError(
            f"a depth image of {width}x{height} {message.encoding} with step {step} has "
            f"{len(data)} bytes"
        )
    rows = np.ascontiguousarray(data[: height * step].reshape(height, step)[:, :row_bytes])
    return rows.view(dtype.newbyteorder(">" if message.is_bigendian else "<")).astype(dtype)


def _compressed_depth(message: CompressedImage) -> NDArray[Any]:
    if "compressedDepth" not in message.format or "16UC1" not in message.format:
        raise MessageError(
            f"a compressed image of format '{message.format}' is not a 16UC1 depth image"
        )
    png = np.frombuffer(memoryview(message.data), np.uint8)[_CONFIG_HEADER.size :]
    pixels = cv2.imdecode(png, cv2.IMREAD_UNCHANGED) if png.size else None
    if pixels is None or pixels.dtype != np.uint16 or pixels.ndim != 2:
        raise MessageError("a compressed depth image is damaged or not a 16-bit PNG")
    return pixels
