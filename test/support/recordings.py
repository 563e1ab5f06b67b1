# SPDX-License-Identifier: Apache-2.0
"""Small bags as robots record them, with the usual faults, for tests of data sets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from drives import CAMERA, EXACT, PERIOD_NS, START_NS, STILL
from numpy.typing import NDArray

from vlm3_lab.datasets.making import MakingOptions
from vlm3_lab.datasets.selection import Selection
from vlm3_lab.scenes.sequences import Sequence as Drive
from vlm3_lab.scenes.sequences import sample_sequence
from vlm3_ros.bags.writing import write_bag
from vlm3_ros.datasets.views import View
from vlm3_ros.messages.cameras import camera_info_message
from vlm3_ros.messages.classes import ROSBAGS, ros2_types
from vlm3_ros.messages.depth_images import depth_message
from vlm3_ros.messages.images import jpeg_image_message
from vlm3_ros.messages.motions import odometry_message, tf_message

DEPTH_TOPIC = "/camera/depth"

ALL = Selection(held_out_gap=0.0, min_gap=0.0, min_motion=0.0)
"""Keeps every frame, a fifth of them held out."""

EVERYTHING = MakingOptions(selection=ALL)

Depth = Callable[[View, int], Sequence[tuple[str, Any]]]
"""Messages of depth, and their topics, of a view and a stamp."""


def drive_of(frames: int, seed: int = 8) -> Drive:
    """Through a yard, five frames a second."""
    rng = np.random.default_rng(seed)
    return sample_sequence(
        rng, CAMERA, kind="yard", duration=frames * PERIOD_NS / 1e9, rate=1e9 / PERIOD_NS
    )


def views_of(drive: Drive) -> list[View]:
    """The views of a drive, with reproducible noise."""
    return list(drive.views(np.random.default_rng(0)))


def float_depth(view: View, stamp: int) -> list[tuple[str, Any]]:
    """32FC1, metres."""
    return [(DEPTH_TOPIC, depth_message(ROSBAGS.header(stamp, "optical"), view.depth, "32FC1"))]


def write_recording(
    path: Path,
    drive: Drive,
    depth: Depth = float_depth,
    *,
    with_poses: bool = True,
    with_images: bool = True,
) -> list[View]:
    """Images, CameraInfo, depth, odometry and the camera on /tf_static; returns the views."""
    views = views_of(drive)
    with write_bag(path) as writer:
        static = tf_message(ROSBAGS.header(START_NS, "base"), "optical", drive.T_base_camera)
        writer.write("/tf_static", static, START_NS)
        for index, view in enumerate(views):
            stamp = START_NS + index * PERIOD_NS
            info = camera_info_message(ROSBAGS.header(stamp, "optical"), view.camera)
            writer.write("/camera/camera_info", info, stamp)
            if with_images:
                image = jpeg_image_message(ROSBAGS.header(stamp, "optical"), view.image, quality=98)
                writer.write("/camera/image_raw/compressed", image, stamp)
            for topic, message in depth(view, stamp):
                writer.write(topic, message, stamp)
            if with_poses:
                T_odom_base = drive.path.T_world_base[index]
                odometry = odometry_message(
                    ROSBAGS.header(stamp, "odom"), "base", T_odom_base, EXACT, STILL, EXACT
                )
                writer.write("/odom", odometry, stamp)
    return views


def cloud_message(points: NDArray[np.floating], stamp_ns: int, frame_id: str) -> Any:
    """sensor_msgs/PointCloud2 of x, y, z and intensity, as LiDAR drivers publish it."""
    types = ros2_types().types
    field = types["sensor_msgs/msg/PointField"]
    cells = np.zeros((len(points), 4), np.float32)
    cells[:, :3] = points
    return types["sensor_msgs/msg/PointCloud2"](
        header=ROSBAGS.header(stamp_ns, frame_id),
        height=1,
        width=len(cells),
        fields=[
            field(name=name, offset=4 * i, datatype=7, count=1)
            for i, name in enumerate(("x", "y", "z", "intensity"))
        ],
        is_bigendian=False,
        point_step=16,
        row_step=16 * len(cells),
        data=cells.view(np.uint8).ravel(),
        is_dense=False,
    )
