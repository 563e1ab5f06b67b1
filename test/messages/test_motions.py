# SPDX-License-Identifier: Apache-2.0
"""Transforms, poses and odometry, built and read with the classes of both libraries."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from vlm3_ros.errors import MessageError
from vlm3_ros.geometry.motion import transform
from vlm3_ros.messages.classes import RCLPY, ROSBAGS, ros2_types
from vlm3_ros.messages.motions import (
    odometry_message,
    pose_from_message,
    pose_message,
    tf_message,
    transform_from_message,
)

T_MAP_BASE = transform(Rotation.from_euler("xyz", [10, -20, 30], degrees=True), [1, -2, 3])

both_libraries = pytest.mark.parametrize("classes", [RCLPY, ROSBAGS], ids=["rclpy", "rosbags"])


def test_a_transform_survives_serialization():
    types = ros2_types()
    message = tf_message(ROSBAGS.header(5, "map"), "base_link", T_MAP_BASE)
    again = types.deserialize_cdr(
        types.serialize_cdr(message, message.__msgtype__), message.__msgtype__
    ).transforms[0]
    t, q = again.transform.translation, again.transform.rotation
    np.testing.assert_allclose(
        Rotation.from_quat([q.x, q.y, q.z, q.w]).as_matrix(), T_MAP_BASE[:3, :3]
    )
    assert [t.x, t.y, t.z] == [1, -2, 3]
    assert (again.header.frame_id, again.child_frame_id) == ("map", "base_link")


@both_libraries
def test_transforms_and_poses_are_read_back(classes):
    header = classes.header(5, "map")
    (stamped,) = tf_message(header, "base_link", T_MAP_BASE).transforms
    np.testing.assert_allclose(transform_from_message(stamped.transform), T_MAP_BASE, atol=1e-12)
    pose = pose_message(header, T_MAP_BASE)
    assert pose.header.frame_id == "map"
    np.testing.assert_allclose(pose_from_message(pose.pose), T_MAP_BASE, atol=1e-12)


@both_libraries
@pytest.mark.parametrize(
    ("place", "quaternion"),
    [
        ([0.0, 0.0, np.nan], [0.0, 0.0, 0.0, 1.0]),
        ([np.inf, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]),
        ([0.0, 0.0, 0.0], [0.0, 0.0, np.nan, 1.0]),
        ([0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]),
        ([0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1e-320]),
    ],
)
def test_values_that_are_no_pose_are_refused(classes, place, quaternion):
    pose = pose_message(classes.header(0, "map"), np.eye(4)).pose
    pose.position.x, pose.position.y, pose.position.z = place
    q = pose.orientation
    q.x, q.y, q.z, q.w = quaternion
    with pytest.raises(MessageError, match="no rigid motion"):
        pose_from_message(pose)


@both_libraries
def test_odometry_holds_pose_twist_and_covariances(classes):
    covariance = np.arange(36.0).reshape(6, 6)
    T_odom_base = np.eye(4)
    T_odom_base[:3, 3] = 4, 5, 6
    twist = [1, 2, 3, 0.1, 0.2, 0.3]
    odom = odometry_message(
        classes.header(9, "odom"), "base_link", T_odom_base, covariance, twist, 2 * covariance
    )
    assert (odom.header.frame_id, odom.child_frame_id) == ("odom", "base_link")
    assert odom.pose.pose.position.z == 6
    assert odom.twist.twist.linear.y == 2
    assert odom.twist.twist.angular.z == 0.3
    assert np.array_equal(odom.pose.covariance, np.arange(36.0))
    assert np.array_equal(odom.twist.covariance, 2 * np.arange(36.0))
