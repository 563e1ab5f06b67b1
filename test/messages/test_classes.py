# SPDX-License-Identifier: Apache-2.0
"""Builders return messages of the library of their header, equal in both."""

from __future__ import annotations

from array import array

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rclpy.serialization import serialize_message
from scipy.spatial.transform import Rotation
from std_msgs.msg import Header

from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.geometry.motion import transform
from vlm3_ros.messages.cameras import camera_info_message
from vlm3_ros.messages.classes import RCLPY, ROSBAGS, classes_of, ros2_types, stamp_nanoseconds
from vlm3_ros.messages.clouds import cloud_message
from vlm3_ros.messages.depth_images import compressed_depth_message, depth_message
from vlm3_ros.messages.images import compressed_image_message, image_message, jpeg_image_message
from vlm3_ros.messages.motions import odometry_message, pose_message, tf_message
from vlm3_ros.messages.scans import scan_message
from vlm3_ros.tasks.scan import PlanarScan, ScanLimits

RANDOM = np.random.default_rng(0)
IMAGE = RANDOM.integers(0, 256, (5, 7, 3), np.uint8)
DEPTH = np.array([[1.5, np.nan, 3.0], [0.25, 70.0, 6.0]])
T = transform(Rotation.from_euler("xyz", [0.1, -0.2, 0.3]), [1.0, -2.0, 3.0])
COVARIANCE = np.arange(36.0).reshape(6, 6)
TWIST = np.array([1.0, 2.0, 3.0, 0.1, 0.2, 0.3])
SCAN = PlanarScan(-1.0, 0.5, np.array([1.0, np.inf, 2.5], np.float32))
CLOUD = (RANDOM.normal(size=(4, 3)), IMAGE[0, :4], RANDOM.uniform(size=4))

BUILDERS = {
    "CameraInfo": lambda h: camera_info_message(h, PinholeCamera(640, 480, 500, 510, 320.5, 239)),
    "Image": lambda h: image_message(h, IMAGE),
    "16-bit Image": lambda h: image_message(h, IMAGE[..., 0].astype(np.uint16) * 257, "mono16"),
    "JPEG": lambda h: jpeg_image_message(h, IMAGE),
    "CompressedImage": lambda h: compressed_image_message(h, b"some bytes", "png"),
    "depth in metres": lambda h: depth_message(h, DEPTH),
    "depth in millimetres": lambda h: depth_message(h, DEPTH, "16UC1"),
    "compressed depth": lambda h: compressed_depth_message(h, DEPTH),
    "PointCloud2": lambda h: cloud_message(h, *CLOUD),
    "empty PointCloud2": lambda h: cloud_message(h, *(values[:0] for values in CLOUD)),
    "TFMessage": lambda h: tf_message(h, "base_link", T),
    "PoseStamped": lambda h: pose_message(h, T),
    "Odometry": lambda h: odometry_message(h, "base_link", T, COVARIANCE, TWIST, 2 * COVARIANCE),
    "LaserScan": lambda h: scan_message(h, SCAN, ScanLimits(0.1, 1.0, 0.2, 20.0)),
}


@pytest.mark.parametrize("name", BUILDERS)
def test_both_libraries_build_the_same_message(name):
    build, types = BUILDERS[name], ros2_types()
    live = build(RCLPY.header(12_000_000_034, "camera"))
    recorded = build(ROSBAGS.header(12_000_000_034, "camera"))
    assert classes_of(live) is RCLPY
    assert classes_of(recorded) is ROSBAGS
    expected = types.serialize_cdr(recorded, recorded.__msgtype__)
    # Read and written again, because rclpy leaves padding bytes undefined.
    received = types.deserialize_cdr(serialize_message(live), recorded.__msgtype__)
    assert types.serialize_cdr(received, recorded.__msgtype__) == expected


@pytest.mark.parametrize("classes", [RCLPY, ROSBAGS], ids=["rclpy", "rosbags"])
@given(stamp_ns=st.integers(0, 2**31 * 10**9 - 1))
def test_stamps_are_exact(classes, stamp_ns):
    header = classes.header(stamp_ns, "camera")
    assert stamp_nanoseconds(header) == stamp_ns
    assert 0 <= header.stamp.nanosec < 10**9
    assert header.frame_id == "camera"


def test_rclpy_gets_sequences_that_it_takes_unchecked():
    cloud = cloud_message(Header(), *CLOUD)
    assert isinstance(cloud.data, array)
    assert cloud.data.typecode == "B"


def test_sequences_may_be_views():
    ranges = np.arange(6, dtype=np.float32)[::2]
    scan = scan_message(Header(), PlanarScan(0.0, 1.0, ranges), ScanLimits(0.1, 1.0, 0.2, 20.0))
    assert scan.ranges.tolist() == [0.0, 2.0, 4.0]
