# SPDX-License-Identifier: Apache-2.0
"""The layout of the RGB-D bags that this package writes: topics, frames, messages."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlm3_ros.bags.writing import write_bag
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.geometry.motion import Covariance, Transform
from vlm3_ros.messages.cameras import camera_info_message
from vlm3_ros.messages.classes import ROSBAGS, stamp_nanoseconds
from vlm3_ros.messages.depth_images import compressed_depth_message
from vlm3_ros.messages.motions import odometry_message, tf_message

IMAGE_TOPIC = "/camera/image_raw/compressed"
CAMERA_INFO_TOPIC = "/camera/camera_info"
DEPTH_TOPIC = "/camera/depth_registered/image_rect/compressedDepth"
DEPTH_INFO_TOPIC = "/camera/depth_registered/camera_info"
ODOM_TOPIC = "/odom"

ODOM_FRAME, BASE_FRAME, OPTICAL_FRAME = "odom", "base_link", "camera_optical_frame"


@dataclass(frozen=True)
class RgbdFrame:
    """A frame to write.

    Attributes:
        image: sensor_msgs/CompressedImage in OPTICAL_FRAME; its stamp is that of the frame.
        depth: metres along Z, shape (height, width), registered to the image.
        T_odom_base: shape (4, 4).
        twist: of the base in its own axes, (vx, vy, vz, wx, wy, wz), m/s and rad/s.
    """

    image: Any
    depth: NDArray[np.floating]
    T_odom_base: Transform
    twist: ArrayLike


def write_rgbd_bag(
    path: Path | str,
    camera: PinholeCamera,
    T_base_camera: Transform,
    covariance: Covariance,
    covariance_twist: Covariance,
    frames: Iterable[RgbdFrame],
    progress: Callable[[int], None],
) -> None:
    """Write frames with their calibration, TF (REP-105) and odometry to a new rosbag2.

    Args:
        path: folder of the new bag.
        camera: of all images, without distortion.
        T_base_camera: of the optical frame, shape (4, 4).
        covariance, covariance_twist: of every pose and twist, shape (6, 6).
        frames: in the order of their stamps.
        progress: called with the number of frames written.

    Raises:
        BagError: if the bag cannot be written.
    """
    with write_bag(path) as writer:
        for count, frame in enumerate(frames, 1):
            header = frame.image.header
            stamp_ns = stamp_nanoseconds(header)
            odom_header = ROSBAGS.header(stamp_ns, ODOM_FRAME)
            if count == 1:
                base_header = ROSBAGS.header(stamp_ns, BASE_FRAME)
                static = tf_message(base_header, OPTICAL_FRAME, T_base_camera)
                writer.write("/tf_static", static, stamp_ns)
            odometry = odometry_message(
                odom_header,
                BASE_FRAME,
                frame.T_odom_base,
                covariance,
                frame.twist,
                covariance_twist,
            )
            info = camera_info_message(header, camera)
            for topic, message in (
                ("/tf", tf_message(odom_header, BASE_FRAME, frame.T_odom_base)),
                (ODOM_TOPIC, odometry),
                (CAMERA_INFO_TOPIC, info),
                (IMAGE_TOPIC, frame.image),
                (DEPTH_INFO_TOPIC, info),
                (DEPTH_TOPIC, compressed_depth_message(header, frame.depth)),
            ):
                writer.write(topic, message, stamp_ns)
            progress(count)
