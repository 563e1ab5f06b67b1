# SPDX-License-Identifier: Apache-2.0
"""Depth images, read back byte by byte and through rosbags-image."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rclpy.serialization import deserialize_message, serialize_message
from rosbags.image import image_to_cvimage
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from vlm3_ros.messages.depth_images import depth_message


def sent(depth: np.ndarray) -> Image:
    message = depth_message(Header(frame_id="camera"), depth)
    return deserialize_message(serialize_message(message), Image)


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


def test_part_of_an_array_is_sent_as_seen():
    depth = np.arange(48, dtype=np.float32).reshape(6, 8)[::2, 1::3]
    np.testing.assert_array_equal(image_to_cvimage(sent(depth)), depth)
