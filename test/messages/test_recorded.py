# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import cv2
import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from vlm3_ros.errors import MessageError
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.messages.cameras import camera_info_message
from vlm3_ros.messages.classes import ROSBAGS, ros2_types, stamp_nanoseconds
from vlm3_ros.messages.depth_images import (
    compressed_depth_message,
    depth_from_message,
    depth_message,
    is_depth_message,
)
from vlm3_ros.messages.images import jpeg_image_message
from vlm3_ros.messages.motions import odometry_message, tf_message

DEPTHS = arrays.arrays(
    np.float32,
    arrays.array_shapes(min_dims=2, max_dims=2, max_side=7),
    elements=st.one_of(
        st.floats(2**-10, 65.5, width=32),
        st.sampled_from([0.0, -1.0, np.nan, np.inf, -np.inf]),
    ),
)


@given(DEPTHS)
def test_metres_come_back_exactly(depth: np.ndarray) -> None:
    expected = np.where(np.isfinite(depth) & (depth > 0), depth, np.nan)
    found = depth_from_message(depth_message(ROSBAGS.header(0, "camera"), depth, "32FC1"))
    assert np.array_equal(found, expected, equal_nan=True)


@given(DEPTHS)
@pytest.mark.parametrize("compressed", [False, True])
def test_millimetres_come_back_to_half_a_millimetre(compressed: bool, depth: np.ndarray) -> None:
    expected = np.where(np.isfinite(depth) & (depth > 0.0005), depth, np.nan)
    if compressed:
        message = compressed_depth_message(ROSBAGS.header(0, "camera"), depth)
    else:
        message = depth_message(ROSBAGS.header(0, "camera"), depth, "16UC1")
    found = depth_from_message(message)
    np.testing.assert_allclose(found, expected, atol=0.000_51, rtol=1e-6)


def test_depth_beyond_16_bits_is_none_not_wrapped() -> None:
    far = np.array([[65.535, 65.536, 131.072]])
    found = depth_from_message(depth_message(ROSBAGS.header(0, "camera"), far, "16UC1"))
    np.testing.assert_allclose(found, [[65.535, np.nan, np.nan]], rtol=1e-6)


def test_big_endian_rows_with_padding_are_read() -> None:
    message = depth_message(ROSBAGS.header(0, "camera"), np.zeros((2, 3)), "16UC1")
    rows = np.zeros((2, 10), np.uint8)
    rows[:, :6] = np.array([[1000, 2000, 3000], [4000, 5000, 0]], ">u2").view(np.uint8)
    message.is_bigendian, message.step, message.data = 1, 10, rows.ravel()
    np.testing.assert_allclose(depth_from_message(message), [[1, 2, 3], [4, 5, np.nan]])


def test_compressed_depth_is_a_png_behind_twelve_bytes() -> None:
    """As compressed_depth_image_transport reads it: ConfigHeader, then a PNG of millimetres."""
    message = compressed_depth_message(ROSBAGS.header(0, "camera"), np.array([[1.5, 0.25]]))
    assert message.format == "16UC1; compressedDepth png"
    pixels = cv2.imdecode(message.data[12:], cv2.IMREAD_UNCHANGED)
    assert np.array_equal(pixels, [[1500, 250]])


def test_damaged_depth_is_refused() -> None:
    short = depth_message(ROSBAGS.header(0, "camera"), np.ones((4, 5)), "32FC1")
    short.data = short.data[:-1]
    with pytest.raises(MessageError, match="5x4 32FC1 with step 20 has 79 bytes"):
        depth_from_message(short)
    cut = compressed_depth_message(ROSBAGS.header(0, "camera"), np.ones((4, 5)))
    cut.data = cut.data[:30]
    with pytest.raises(MessageError, match="damaged"):
        depth_from_message(cut)
    colour = jpeg_image_message(ROSBAGS.header(0, "camera"), np.zeros((8, 8, 3), np.uint8))
    assert not is_depth_message(colour)
    with pytest.raises(MessageError, match="format 'jpeg' is not a 16UC1 depth image"):
        depth_from_message(colour)


@given(st.integers(0, 2**31 * 10**9 - 1))
def test_stamps_are_exact(stamp_ns: int) -> None:
    stamped = camera_info_message(
        ROSBAGS.header(stamp_ns, "camera"), PinholeCamera(4, 3, 2, 2, 1, 1)
    )
    assert stamp_nanoseconds(stamped.header) == stamp_ns
    assert 0 <= ROSBAGS.header(stamp_ns, "").stamp.nanosec < 10**9


def test_camera_info_holds_the_camera() -> None:
    camera = PinholeCamera(640, 480, 500.0, 510.0, 320.5, 239.0)
    info = camera_info_message(ROSBAGS.header(7, "optical"), camera)
    assert (info.width, info.height, info.distortion_model) == (640, 480, "plumb_bob")
    assert np.array_equal(info.k.reshape(3, 3), camera.K)
    assert np.array_equal(info.p.reshape(3, 4)[:, :3], camera.K)
    assert not info.p.reshape(3, 4)[:, 3].any()
    assert not info.d.any()


def test_a_transform_survives_serialization() -> None:
    T_map_base = np.eye(4)
    T_map_base[:3, :3] = Rotation.from_euler("xyz", [10, -20, 30], degrees=True).as_matrix()
    T_map_base[:3, 3] = 1, -2, 3
    types = ros2_types()
    message = tf_message(ROSBAGS.header(5, "map"), "base_link", T_map_base)
    again = types.deserialize_cdr(
        types.serialize_cdr(message, message.__msgtype__), message.__msgtype__
    ).transforms[0]
    t, q = again.transform.translation, again.transform.rotation
    np.testing.assert_allclose(
        Rotation.from_quat([q.x, q.y, q.z, q.w]).as_matrix(), T_map_base[:3, :3]
    )
    assert [t.x, t.y, t.z] == [1, -2, 3]
    assert (again.header.frame_id, again.child_frame_id) == ("map", "base_link")


def test_odometry_holds_pose_twist_and_covariances() -> None:
    covariance = np.arange(36.0).reshape(6, 6)
    T_odom_base = np.eye(4)
    T_odom_base[:3, 3] = 4, 5, 6
    odom = odometry_message(
        ROSBAGS.header(9, "odom"),
        "base_link",
        T_odom_base,
        covariance,
        [1, 2, 3, 0.1, 0.2, 0.3],
        2 * covariance,
    )
    assert (odom.header.frame_id, odom.child_frame_id) == ("odom", "base_link")
    assert odom.pose.pose.position.z == 6
    assert odom.twist.twist.linear.y == 2
    assert odom.twist.twist.angular.z == 0.3
    assert np.array_equal(odom.pose.covariance, np.arange(36.0))
    assert np.array_equal(odom.twist.covariance, 2 * np.arange(36.0))
