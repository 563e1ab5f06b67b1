# SPDX-License-Identifier: Apache-2.0
"""Arrays to bag messages and back.

The messages are `rosbags`' own; serialized they are the bytes of the ROS 2 definitions.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from rosbags.typesys import Stores, get_typestore
from rosbags.typesys.store import Typestore
from scipy.spatial.transform import Rotation

from vlm3_ros.errors import MessageError
from vlm3_ros.geometry.camera import PinholeCamera

DepthEncoding = Literal["16UC1", "32FC1"]

_COMPRESSED_DEPTH_HEADER = struct.Struct("<iff")
"""compressed_depth_image_transport's ConfigHeader: format and two parameters, before the PNG."""


@lru_cache(maxsize=1)
def ros2_types() -> Typestore:
    """The message types of the newest ROS 2 that `rosbags` knows."""
    return get_typestore(Stores.LATEST)


def header(stamp_ns: int, frame_id: str) -> Any:
    """std_msgs/Header."""
    sec, nanosec = divmod(stamp_ns, 1_000_000_000)
    stamp = _message("builtin_interfaces/msg/Time", sec=sec, nanosec=nanosec)
    return _message("std_msgs/msg/Header", stamp=stamp, frame_id=frame_id)


def encoded_image_message(
    data: bytes, image_format: Literal["jpeg", "png"], stamp_ns: int, frame_id: str
) -> Any:
    """sensor_msgs/CompressedImage of the bytes of a JPEG or PNG file."""
    return _message(
        "sensor_msgs/msg/CompressedImage",
        header=header(stamp_ns, frame_id),
        format=image_format,
        data=np.frombuffer(data, np.uint8),
    )


def jpeg_image_message(
    image: NDArray[np.uint8], stamp_ns: int, frame_id: str, quality: int = 90
) -> Any:
    """sensor_msgs/CompressedImage, JPEG, of an RGB image of shape (height, width, 3), uint8."""
    data = _encode(".jpg", image[..., ::-1], cv2.IMWRITE_JPEG_QUALITY, quality)
    return encoded_image_message(data, "jpeg", stamp_ns, frame_id)


def image_message(image: NDArray[np.uint8], stamp_ns: int, frame_id: str) -> Any:
    """sensor_msgs/Image, rgb8, of an RGB image of shape (height, width, 3), uint8."""
    return _raw_image_message(image, "rgb8", stamp_ns, frame_id)


def depth_message(
    depth: NDArray[np.floating[Any]], encoding: DepthEncoding, stamp_ns: int, frame_id: str
) -> Any:
    """sensor_msgs/Image of a depth image (REP-118).

    Args:
        depth: metres along Z, shape (height, width); not finite where there is none.
        encoding: "16UC1" holds whole millimetres up to 65.535 m, 0 elsewhere; "32FC1" metres.
        stamp_ns, frame_id: of the image that it belongs to.
    """
    pixels = depth.astype(np.float32) if encoding == "32FC1" else millimetres(depth)
    return _raw_image_message(pixels, encoding, stamp_ns, frame_id)


def compressed_depth_message(depth: NDArray[np.floating[Any]], stamp_ns: int, frame_id: str) -> Any:
    """sensor_msgs/CompressedImage of a depth image as image_transport's `compressedDepth` has it.

    Args:
        depth: metres along Z, shape (height, width); kept as whole millimetres up to 65.535 m.
        stamp_ns, frame_id: of the image that it belongs to.
    """
    return encoded_depth_message(_encode(".png", millimetres(depth)), stamp_ns, frame_id)


def encoded_depth_message(png: bytes, stamp_ns: int, frame_id: str) -> Any:
    """As `compressed_depth_message`, of the bytes of a 16-bit PNG file in millimetres."""
    return _message(
        "sensor_msgs/msg/CompressedImage",
        header=header(stamp_ns, frame_id),
        format="16UC1; compressedDepth png",
        data=np.frombuffer(_COMPRESSED_DEPTH_HEADER.pack(0, 0.0, 0.0) + png, np.uint8),
    )


def is_depth_message(message: Any) -> bool:
    """Whether an Image or CompressedImage holds depth rather than colour."""
    if hasattr(message, "encoding"):
        return message.encoding in ("16UC1", "mono16", "32FC1")
    return "compressedDepth" in message.format


def depth_from_message(message: Any) -> NDArray[np.float32]:
    """Depth in metres along Z, shape (height, width), NaN where there is none (REP-118).

    Args:
        message: Image (16UC1 in millimetres, 32FC1 in metres) or CompressedImage
            (`compressedDepth`, PNG of 16-bit millimetres), of `rosbags` or of rclpy.

    Raises:
        MessageError: when it is no such image, or damaged.
    """
    decode = _raw_depth if hasattr(message, "encoding") else _compressed_depth
    pixels = decode(message)
    metres = pixels.astype(np.float32) * (0.001 if pixels.dtype == np.uint16 else 1)
    return np.where(np.isfinite(metres) & (metres > 0), metres, np.float32(np.nan))


def millimetres(depth: NDArray[np.floating[Any]]) -> NDArray[np.uint16]:
    """Depth in metres as REP-118's 16UC1: whole millimetres, 0 where none or out of range."""
    scaled = np.round(np.nan_to_num(depth * 1000.0, nan=0, posinf=0, neginf=0))
    return np.where((scaled > 0) & (scaled <= 65535), scaled, 0).astype(np.uint16)


def camera_info_message(camera: PinholeCamera, stamp_ns: int, frame_id: str) -> Any:
    """sensor_msgs/CameraInfo of a camera without distortion (plumb_bob with zeros)."""
    projection = np.hstack([camera.K, np.zeros((3, 1))])
    return _message(
        "sensor_msgs/msg/CameraInfo",
        header=header(stamp_ns, frame_id),
        height=camera.height,
        width=camera.width,
        distortion_model="plumb_bob",
        d=np.zeros(5),
        k=camera.K.ravel(),
        r=np.eye(3).ravel(),
        p=projection.ravel(),
        binning_x=0,
        binning_y=0,
        roi=_message(
            "sensor_msgs/msg/RegionOfInterest",
            x_offset=0,
            y_offset=0,
            height=0,
            width=0,
            do_rectify=False,
        ),
    )


def transform_message(
    T_parent_child: NDArray[np.float64], stamp_ns: int, parent: str, child: str
) -> Any:
    """tf2_msgs/TFMessage with one transform; (4, 4), takes points of `child` to `parent`."""
    stamped = _message(
        "geometry_msgs/msg/TransformStamped",
        header=header(stamp_ns, parent),
        child_frame_id=child,
        transform=_message(
            "geometry_msgs/msg/Transform",
            translation=_vector(T_parent_child[:3, 3]),
            rotation=_quaternion(T_parent_child),
        ),
    )
    return _message("tf2_msgs/msg/TFMessage", transforms=[stamped])


def odometry_message(
    T_odom_base: NDArray[np.float64],
    twist_base: ArrayLike,
    pose_covariance: NDArray[np.float64],
    twist_covariance: NDArray[np.float64],
    stamp_ns: int,
    odom_frame: str,
    base_frame: str,
) -> Any:
    """nav_msgs/Odometry (REP-105): the pose of base in odom, the twist in base.

    Args:
        T_odom_base: shape (4, 4).
        twist_base: (vx, vy, vz, wx, wy, wz), m/s and rad/s, shape (6,).
        pose_covariance, twist_covariance: shape (6, 6), in the order x y z, about x, y, z.
        stamp_ns: time of the pose.
        odom_frame, base_frame: names of the two frames.
    """
    x, y, z = T_odom_base[:3, 3]
    twist = np.asarray(twist_base, dtype=float)
    pose = _message(
        "geometry_msgs/msg/Pose",
        position=_message("geometry_msgs/msg/Point", x=x, y=y, z=z),
        orientation=_quaternion(T_odom_base),
    )
    return _message(
        "nav_msgs/msg/Odometry",
        header=header(stamp_ns, odom_frame),
        child_frame_id=base_frame,
        pose=_message(
            "geometry_msgs/msg/PoseWithCovariance", pose=pose, covariance=pose_covariance.ravel()
        ),
        twist=_message(
            "geometry_msgs/msg/TwistWithCovariance",
            twist=_message(
                "geometry_msgs/msg/Twist", linear=_vector(twist[:3]), angular=_vector(twist[3:])
            ),
            covariance=twist_covariance.ravel(),
        ),
    )


def _message(type_name: str, **fields: Any) -> Any:
    return ros2_types().types[type_name](**fields)


def _vector(xyz: NDArray[np.float64]) -> Any:
    x, y, z = map(float, xyz)
    return _message("geometry_msgs/msg/Vector3", x=x, y=y, z=z)


def _quaternion(T_parent_child: NDArray[np.float64]) -> Any:
    x, y, z, w = map(float, Rotation.from_matrix(T_parent_child[:3, :3]).as_quat())
    return _message("geometry_msgs/msg/Quaternion", x=x, y=y, z=z, w=w)


def _raw_image_message(pixels: NDArray[Any], encoding: str, stamp_ns: int, frame_id: str) -> Any:
    pixels = np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("<"))
    return _message(
        "sensor_msgs/msg/Image",
        header=header(stamp_ns, frame_id),
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        is_bigendian=0,
        step=pixels.strides[0],
        data=pixels.view(np.uint8).ravel(),
    )


def _encode(suffix: str, pixels: NDArray[Any], *parameters: int) -> bytes:
    encoded, data = cv2.imencode(suffix, pixels, parameters)
    if not encoded:
        raise MessageError(f"an image of shape {pixels.shape} could not be encoded as {suffix}")
    return data.tobytes()


def _raw_depth(message: Any) -> NDArray[Any]:
    sizes = {"16UC1": 2, "mono16": 2, "32FC1": 4}
    if message.encoding not in sizes:
        raise MessageError(f"an image with encoding '{message.encoding}' is no depth image")
    size = sizes[message.encoding]
    kind = "u" if size == 2 else "f"
    order = ">" if message.is_bigendian else "<"
    height, width, step = message.height, message.width, message.step
    data = np.frombuffer(memoryview(message.data), np.uint8)
    if step < width * size or len(data) < height * step or not height or not width:
        raise MessageError(
            f"a depth image of {width}x{height} {message.encoding} with step {step} has "
            f"{len(data)} bytes"
        )
    rows = data[: height * step].reshape(height, step)[:, : width * size]
    pixels = np.ascontiguousarray(rows).view(np.dtype(f"{order}{kind}{size}"))
    return pixels.astype(f"={kind}{size}")


def _compressed_depth(message: Any) -> NDArray[Any]:
    if "compressedDepth" not in message.format or "16UC1" not in message.format:
        raise MessageError(
            f"a compressed image of format '{message.format}' is no 16UC1 depth image"
        )
    png = np.frombuffer(memoryview(message.data), np.uint8)[_COMPRESSED_DEPTH_HEADER.size :]
    pixels = cv2.imdecode(png, cv2.IMREAD_UNCHANGED) if png.size else None
    if pixels is None or pixels.dtype != np.uint16 or pixels.ndim != 2:
        raise MessageError("a compressed depth image is damaged, or no 16-bit PNG")
    return pixels
