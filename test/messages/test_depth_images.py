# SPDX-License-Identifier: Apache-2.0
"""Depth images: read back byte by byte, by rosbags-image and by `depth_from_message`."""

from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rclpy.serialization import deserialize_message, serialize_message
from rosbags.image import image_to_cvimage
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from vlm3_ros.errors import MessageError
from vlm3_ros.messages.classes import RCLPY, ROSBAGS
from vlm3_ros.messages.depth_images import (
    compressed_depth_message,
    depth_from_message,
    depth_message,
    is_depth_message,
)
from vlm3_ros.messages.images import image_message, jpeg_image_message

HEADERS = {"rclpy": RCLPY.header(0, "camera"), "rosbags": ROSBAGS.header(0, "camera")}
HEADER = HEADERS["rosbags"]

DEPTHS = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=7),
    elements=st.one_of(
        st.floats(2**-10, 65.5, width=32),
        st.sampled_from([0.0, -1.0, np.nan, np.inf, -np.inf]),
    ),
)

both_libraries = pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)


def sent(depth: np.ndarray) -> Image:
    message = depth_message(Header(frame_id="camera"), depth)
    return deserialize_message(serialize_message(message), Image)


@pytest.mark.parametrize("part", [np.s_[:1, :2], np.s_[1:2, :1]])
def test_the_step_of_one_row_of_a_larger_array(part):
    depth = np.array([[1.5, 2.5, 3.0], [4.0, 5.0, 6.25]], np.float32)[part]
    message = sent(depth)
    assert message.step == len(message.data) == 4 * depth.shape[1]
    np.testing.assert_array_equal(depth_from_message(message), depth)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_layout(dtype):
    message = sent(np.array([[1.5, np.nan, 3.0], [4.0, 5.0, 6.25]], dtype))
    assert (message.height, message.width, message.step) == (2, 3, 12)
    assert message.encoding == "32FC1"
    assert not message.is_bigendian
    assert message.header.frame_id == "camera"
    values = struct.unpack("<6f", bytes(message.data))
    assert np.isnan(values[1])
    assert (values[0], *values[2:]) == (1.5, 3.0, 4.0, 5.0, 6.25)


@given(
    depth=hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=9),
        elements=st.one_of(st.floats(0, 1000, width=32), st.just(np.nan)),
    )
)
def test_comes_back_through_rosbags_image(depth):
    np.testing.assert_array_equal(image_to_cvimage(sent(depth)), depth)


def test_a_view_of_an_array_is_sent_as_seen():
    depth = np.arange(48, dtype=np.float32).reshape(6, 8)[::2, 1::3]
    np.testing.assert_array_equal(image_to_cvimage(sent(depth)), depth)


@both_libraries
@given(depth=DEPTHS)
def test_metres_come_back_exactly(header, depth):
    expected = np.where(np.isfinite(depth) & (depth > 0), depth, np.nan)
    read = depth_from_message(depth_message(header, depth))
    assert np.array_equal(read, expected, equal_nan=True)


@both_libraries
@given(depth=DEPTHS)
@pytest.mark.parametrize("compressed", [False, True])
def test_millimetres_come_back_to_half_a_millimetre(header, compressed, depth):
    expected = np.where(np.isfinite(depth) & (depth > 0.0005), depth, np.nan)
    if compressed:
        message = compressed_depth_message(header, depth)
    else:
        message = depth_message(header, depth, "16UC1")
    np.testing.assert_allclose(depth_from_message(message), expected, atol=0.000_51, rtol=1e-6)


@both_libraries
def test_depth_beyond_16_bits_is_unknown_not_wrapped(header):
    far = np.array([[65.534, 65.535, 65.536, 131.072]])
    read = depth_from_message(depth_message(header, far, "16UC1"))
    np.testing.assert_allclose(read, [[65.534, np.nan, np.nan, np.nan]], rtol=1e-6)


@pytest.mark.parametrize("encoding", ["16UC1", "mono16"])
def test_saturated_values_are_no_depth(encoding):
    message = depth_message(HEADER, np.ones((1, 3)), "16UC1")
    message.encoding, message.data = encoding, np.array([65535, 65534, 0], "<u2").view(np.uint8)
    np.testing.assert_allclose(depth_from_message(message), [[np.nan, 65.534, np.nan]], rtol=1e-6)


def test_mono16_is_grey():
    """A thermal camera sends it; REP-118's depth is 16UC1."""
    message = depth_message(HEADER, np.ones((1, 3)), "16UC1")
    assert is_depth_message(message)
    message.encoding = "mono16"
    assert not is_depth_message(message)


def test_big_endian_rows_with_padding_are_read():
    message = depth_message(HEADER, np.zeros((2, 3)), "16UC1")
    rows = np.zeros((2, 10), np.uint8)
    rows[:, :6] = np.array([[1000, 2000, 3000], [4000, 5000, 0]], ">u2").view(np.uint8)
    message.is_bigendian, message.step, message.data = 1, 10, rows.ravel()
    np.testing.assert_allclose(depth_from_message(message), [[1, 2, 3], [4, 5, np.nan]])


def test_compressed_depth_is_a_png_after_twelve_bytes():
    """As compressed_depth_image_transport reads it: ConfigHeader, then a PNG of millimetres."""
    message = compressed_depth_message(HEADER, np.array([[1.5, 0.25]]))
    assert message.format == "16UC1; compressedDepth png"
    pixels = cv2.imdecode(message.data[12:], cv2.IMREAD_UNCHANGED)
    assert np.array_equal(pixels, [[1500, 250]])


@both_libraries
def test_damaged_depth_is_refused(header):
    short = depth_message(header, np.ones((4, 5)))
    short.data = short.data[:-1]
    with pytest.raises(MessageError, match="5x4 32FC1 with step 20 has 79 bytes"):
        depth_from_message(short)
    cut = compressed_depth_message(header, np.ones((4, 5)))
    cut.data = cut.data[:30]
    with pytest.raises(MessageError, match="damaged"):
        depth_from_message(cut)


@both_libraries
def test_colour_is_refused_as_depth(header):
    picture = np.zeros((8, 8, 3), np.uint8)
    jpeg, raw = jpeg_image_message(header, picture), image_message(header, picture)
    assert not is_depth_message(jpeg)
    assert not is_depth_message(raw)
    with pytest.raises(MessageError, match="format 'jpeg' is not a 16UC1 depth image"):
        depth_from_message(jpeg)
    with pytest.raises(MessageError, match="encoding 'rgb8' is not a depth image"):
        depth_from_message(raw)
