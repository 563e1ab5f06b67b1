# SPDX-License-Identifier: Apache-2.0
"""Transforms, poses and odometry as messages, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from vlm3_ros.errors import MessageError
from vlm3_ros.geometry.motion import Covariance, transform
from vlm3_ros.messages.classes import MessageClasses, classes_of

if TYPE_CHECKING:
    from geometry_msgs.msg import Pose, PoseStamped, Transform
    from nav_msgs.msg import Odometry
    from std_msgs.msg import Header
    from tf2_msgs.msg import TFMessage


def tf_message(header: Header, child: str, T_parent_child: NDArray[np.float64]) -> TFMessage:
    """Build a tf2_msgs/TFMessage with one transform; the parent is the frame of the header."""
    classes = classes_of(header)
    transform_stamped = classes.message(
        "geometry_msgs/msg/TransformStamped",
        header=header,
        child_frame_id=child,
        transform=classes.message(
            "geometry_msgs/msg/Transform",
            translation=_vector(classes, T_parent_child[:3, 3]),
            rotation=_quaternion(classes, T_parent_child),
        ),
    )
    return classes.message("tf2_msgs/msg/TFMessage", transforms=[transform_stamped])


def pose_message(header: Header, T_frame_body: NDArray[np.float64]) -> PoseStamped:
    """Build a geometry_msgs/PoseStamped of a body in the frame of the header."""
    classes = classes_of(header)
    pose = _pose(classes, T_frame_body)
    return classes.message("geometry_msgs/msg/PoseStamped", header=header, pose=pose)


def odometry_message(
    header: Header,
    child: str,
    T_odom_base: NDArray[np.float64],
    covariance: Covariance,
    twist: ArrayLike,
    covariance_twist: Covariance,
) -> Odometry:
    """Build a nav_msgs/Odometry (REP-105).

    Args:
        header: of the pose; its frame is odom.
        child: frame of the base, in which the twist is given.
        T_odom_base: shape (4, 4), metres.
        covariance: of the pose, shape (6, 6), see `vlm3_ros.geometry.motion`.
        twist: (vx, vy, vz, wx, wy, wz), m/s and rad/s.
        covariance_twist: shape (6, 6).
    """
    classes = classes_of(header)
    velocity = np.asarray(twist, dtype=float)
    return classes.message(
        "nav_msgs/msg/Odometry",
        header=header,
        child_frame_id=child,
        pose=classes.message(
            "geometry_msgs/msg/PoseWithCovariance",
            pose=_pose(classes, T_odom_base),
            covariance=covariance.ravel(),
        ),
        twist=classes.message(
            "geometry_msgs/msg/TwistWithCovariance",
            twist=classes.message(
                "geometry_msgs/msg/Twist",
                linear=_vector(classes, velocity[:3]),
                angular=_vector(classes, velocity[3:]),
            ),
            covariance=covariance_twist.ravel(),
        ),
    )


def transform_from_message(message: Transform) -> NDArray[np.float64]:
    """T_parent_child of a geometry_msgs/Transform, shape (4, 4).

    Raises:
        MessageError: if a value is not finite or the quaternion is zero.
    """
    return _rigid(message.translation, message.rotation)


def pose_from_message(message: Pose) -> NDArray[np.float64]:
    """T_frame_body of a geometry_msgs/Pose, shape (4, 4).

    Raises:
        MessageError: if a value is not finite or the quaternion is zero.
    """
    return _rigid(message.position, message.orientation)


def _rigid(place: Any, quaternion: Any) -> NDArray[np.float64]:
    xyz = np.array([place.x, place.y, place.z])
    xyzw = np.array([quaternion.x, quaternion.y, quaternion.z, quaternion.w])
    norm = np.linalg.norm(xyzw)  # may be 0 for numbers that are not
    if not np.isfinite(xyz).all() or not np.isfinite(xyzw).all() or norm == 0:
        raise MessageError(f"position {xyz} and quaternion {xyzw} describe no rigid motion")
    return transform(Rotation.from_quat(xyzw), xyz)


def _pose(classes: MessageClasses, T_frame_body: NDArray[np.float64]) -> Any:
    x, y, z = T_frame_body[:3, 3].tolist()
    return classes.message(
        "geometry_msgs/msg/Pose",
        position=classes.message("geometry_msgs/msg/Point", x=x, y=y, z=z),
        orientation=_quaternion(classes, T_frame_body),
    )


def _vector(classes: MessageClasses, xyz: NDArray[np.float64]) -> Any:
    x, y, z = xyz.tolist()
    return classes.message("geometry_msgs/msg/Vector3", x=x, y=y, z=z)


def _quaternion(classes: MessageClasses, T_frame_body: NDArray[np.float64]) -> Any:
    x, y, z, w = Rotation.from_matrix(T_frame_body[:3, :3]).as_quat().tolist()
    return classes.message("geometry_msgs/msg/Quaternion", x=x, y=y, z=z, w=w)
