# SPDX-License-Identifier: Apache-2.0
"""Transforms, poses and odometry as messages."""

from __future__ import annotations

import numpy as np
from geometry_msgs.msg import (
    Point,
    Pose,
    PoseWithCovariance,
    Quaternion,
    Transform,
    TransformStamped,
    Twist,
    TwistWithCovariance,
    Vector3,
)
from nav_msgs.msg import Odometry
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from std_msgs.msg import Header

from vlm3_ros.geometry.motion import Covariance, transform


def transform_from_message(message: Transform) -> NDArray[np.float64]:
    """T_parent_child, shape (4, 4), of a geometry_msgs/Transform."""
    r, t = message.rotation, message.translation
    return transform(Rotation.from_quat([r.x, r.y, r.z, r.w]), [t.x, t.y, t.z])


def transform_message(
    header: Header, child: str, T_parent_child: NDArray[np.float64]
) -> TransformStamped:
    """A transform for TF; the parent is the frame of the header."""
    return TransformStamped(
        header=header,
        child_frame_id=child,
        transform=Transform(
            translation=Vector3(**_xyz(T_parent_child[:3, 3])), rotation=_quaternion(T_parent_child)
        ),
    )


def pose_message(T_frame_body: NDArray[np.float64]) -> Pose:
    """The pose of a body in a frame."""
    return Pose(position=Point(**_xyz(T_frame_body[:3, 3])), orientation=_quaternion(T_frame_body))


def odometry_message(
    header: Header,
    child: str,
    T_odom_base: NDArray[np.float64],
    covariance: Covariance,
    twist: NDArray[np.float64],
    covariance_twist: Covariance,
) -> Odometry:
    """Pose in the frame of the header, twist in that of the child.

    Args:
        T_odom_base: shape (4, 4), metres.
        covariance: of it, shape (6, 6), see `vlm3_ros.geometry.motion`.
        twist: m/s and rad/s, shape (6,).
        covariance_twist: shape (6, 6).
    """
    velocity = Twist(linear=Vector3(**_xyz(twist[:3])), angular=Vector3(**_xyz(twist[3:])))
    return Odometry(
        header=header,
        child_frame_id=child,
        pose=PoseWithCovariance(pose=pose_message(T_odom_base), covariance=covariance.ravel()),
        twist=TwistWithCovariance(twist=velocity, covariance=covariance_twist.ravel()),
    )


def _xyz(vector: NDArray[np.float64]) -> dict[str, float]:
    return dict(zip("xyz", vector.tolist(), strict=True))


def _quaternion(T: NDArray[np.float64]) -> Quaternion:
    x, y, z, w = Rotation.from_matrix(T[:3, :3]).as_quat().tolist()
    return Quaternion(x=x, y=y, z=z, w=w)
