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
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from vlm3_ros.errors import MessageError
from vlm3_ros.messages.classes import RCLPY, ROSBAGS
from vlm3_ros.messages.depth_images import (
    check_depth_format,
    compressed_depth_message,
    depth_from_message,
    depth_message,
    is_depth_message,
)
from vlm3_ros.messages.images import (
    compressed_image_message,
    encode_image,
    image_message,
    jpeg_image_message,
)

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
    with pytest.raises(MessageError, match=r"cut off: 79 bytes of 80 \(step 20 x 4 rows\)"):
        depth_from_message(short)
    cut = compressed_depth_message(header, np.ones((4, 5)))
    cut.data = cut.data[:30]
    with pytest.raises(MessageError, match="are corrupt"):
        depth_from_message(cut)


@both_libraries
def test_colour_is_refused_as_depth(header):
    picture = np.zeros((8, 8, 3), np.uint8)
    jpeg, raw = jpeg_image_message(header, picture), image_message(header, picture)
    assert not is_depth_message(jpeg)
    assert not is_depth_message(raw)
    with pytest.raises(MessageError, match="format 'jpeg' is not a depth image"):
        depth_from_message(jpeg)
    with pytest.raises(MessageError, match="encoding 'rgb8' is not a depth image"):
        depth_from_message(raw)


def compressed(
    data: bytes | np.ndarray, kind: str, header: Header | None = None
) -> CompressedImage:
    return compressed_image_message(header or HEADER, bytes(data), kind)


MILLIMETRES = np.array([[1000, 4000, 0], [65535, 1, 250]], np.uint16)
METRES = [[1, 4, np.nan], [np.nan, 0.001, 0.25]]


@pytest.mark.parametrize("kind", ["16UC1; png compressed ", "16UC1; tiff compressed ", "16UC1"])
def test_16_bit_depth_of_the_compressed_transport_is_read(kind):
    suffix = ".tiff" if "tiff" in kind else ".png"
    message = compressed(encode_image(suffix, MILLIMETRES), kind)
    assert is_depth_message(message)
    np.testing.assert_allclose(depth_from_message(message), METRES, rtol=1e-6)


@pytest.mark.parametrize("kind", ["16UC1; compressedDepth", "16UC1; compressedDepth png", "16UC1"])
@pytest.mark.parametrize("head", [struct.pack("<iff", 0, 0, 0), b""])
def test_compressed_depth_is_read_with_and_without_its_header(kind, head):
    message = compressed(head + encode_image(".png", MILLIMETRES), kind)
    assert is_depth_message(message)
    np.testing.assert_allclose(depth_from_message(message), METRES, rtol=1e-6)


@pytest.mark.parametrize("kind", ["mono16; png compressed ", "png"])
def test_16_bit_grey_is_depth_only_if_somebody_says_so(kind):
    message = compressed(encode_image(".png", MILLIMETRES), kind)
    assert not is_depth_message(message)
    np.testing.assert_allclose(depth_from_message(message), METRES, rtol=1e-6)
    raw = image_message(HEADER, MILLIMETRES, "mono16")
    assert not is_depth_message(raw)
    np.testing.assert_allclose(depth_from_message(raw), METRES, rtol=1e-6)


def quantised(depth: np.ndarray, depth_max: float, quantisation: float) -> bytes:
    """As encodeCompressedDepthImage of compressed_depth_image_transport, in its float32."""
    a = np.float32(quantisation) * (np.float32(quantisation) + np.float32(1))
    b = np.float32(1) - a / np.float32(depth_max)
    with np.errstate(invalid="ignore"):
        inverse = np.where(depth < depth_max, a / depth.astype(np.float32) + b, 0)
    return struct.pack("<iff", 0, a, b) + encode_image(".png", inverse.astype(np.uint16))


@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=6),
        elements=st.one_of(st.floats(0.75, 12, width=32), st.sampled_from([np.nan, np.inf])),
    ),
    st.sampled_from([(10.0, 100.0), (12.5, 200.0)]),
)
def test_quantised_inverse_depth_is_decoded(depth, parameters):
    depth_max, quantisation = parameters
    kind = "32FC1; compressedDepth png"
    message = compressed(quantised(depth, depth_max, quantisation), kind)
    assert is_depth_message(message)
    read = depth_from_message(message)
    known = depth < depth_max
    assert np.isnan(read[~known]).all()
    # The encoder rounds down: up to one step of the inverse depth is lost.
    step = depth[known] ** 2 / (quantisation * (quantisation + 1))
    assert (read[known] >= depth[known] * (1 - 1e-4)).all()
    assert (read[known] <= depth[known] + 1.05 * step + 1e-3).all()


def test_float_depth_as_tiff_is_read():
    depth = np.array([[1.5, np.nan], [0.0, 80.25]], np.float32)
    message = compressed(encode_image(".tiff", depth), "32FC1; tiff compressed ")
    assert is_depth_message(message)
    np.testing.assert_array_equal(depth_from_message(message), [[1.5, np.nan], [np.nan, 80.25]])


def test_a_png_without_a_format_is_read_where_it_is_named_as_depth():
    for kind in ("", "png"):
        depth = depth_from_message(compressed(encode_image(".png", MILLIMETRES), kind))
        np.testing.assert_allclose(depth, METRES, rtol=1e-6)


GREY = np.full((4, 6), 90, np.uint8)


@pytest.mark.parametrize(
    ("data", "kind", "text"),
    [
        (encode_image(".jpg", GREY), "16UC1; jpeg compressed mono8", "a JPEG, which keeps 8 of 16"),
        (encode_image(".jpg", GREY), "16UC1; compressedDepth", "a JPEG, which keeps 8 of 16"),
        (bytes(62), "16UC1; compressedDepth rvl", "compressed with RVL, which is not read: set"),
        (bytes(62), "32FC1; compressedDepth rvl", "compressed with RVL"),
        (
            encode_image(".png", MILLIMETRES),
            "compressedDepth",
            "does not say whether its values are",
        ),
        (bytes(62), "zstd", "'zstd' is not a depth image that can be read: use compressedDepth"),
        (encode_image(".png", GREY), "16UC1; png compressed ", "holds no 16-bit values"),
        (bytes(62), "16UC1; compressedDepth png", "are none of JPEG, PNG"),
        (b"", "16UC1; compressedDepth png", "are empty"),
        (encode_image(".png", MILLIMETRES), "32FC1; compressedDepth png", "lacks .* header"),
        (
            struct.pack("<iff", 0, 0, 0) + encode_image(".png", MILLIMETRES),
            "32FC1; compressedDepth png",
            "quantisation parameters 0 and 0",
        ),
    ],
)
@both_libraries
def test_depth_that_cannot_be_read_is_named(header, data, kind, text):
    with pytest.raises(MessageError, match=text):
        depth_from_message(compressed(data, kind, header))


@pytest.mark.parametrize(
    "kind", ["16UC1; jpeg compressed mono8", "16UC1; compressedDepth rvl", "zstd"]
)
def test_what_cannot_be_read_is_known_from_the_format(kind):
    with pytest.raises(MessageError):
        check_depth_format(compressed(b"", kind))


def test_a_step_of_zero_is_told_by_the_length():
    message = depth_message(HEADER, np.ones((4, 5)))
    message.step = 0
    np.testing.assert_array_equal(depth_from_message(message), np.ones((4, 5)))
