# SPDX-License-Identifier: Apache-2.0
"""The sample bag: a procedural drive with exact depth and poses, as if recorded by a robot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from vlm3_lab.scenes.sequences import sample_sequence
from vlm3_ros.bags.rgbd import (
    BASE_FRAME,
    CAMERA_INFO_TOPIC,
    DEPTH_INFO_TOPIC,
    DEPTH_TOPIC,
    IMAGE_TOPIC,
    ODOM_FRAME,
    ODOM_TOPIC,
    OPTICAL_FRAME,
)
from vlm3_ros.bags.writing import write_bag
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.messages.recorded import (
    camera_info_message,
    compressed_depth_message,
    jpeg_image_message,
    odometry_message,
    transform_message,
)

STREAM = 0x5A3B
"""First word of the seeds of sample bags; training and evaluation use others."""

START_NS = 1_700_000_000_000_000_000
"""Stamp of the first frame; any plausible time would do."""

EXACT = np.diag(np.full(6, 1e-10))
"""Covariance of a pose that is exact by construction: practically zero, but not zero."""


def write_sample_bag(
    path: Path | str,
    seed: int = 2,
    kind: str = "yard",
    duration: float = 10.0,
    rate: float = 10.0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Render a drive into a rosbag2: image, camera_info, depth, TF and odometry.

    Args:
        path: folder of the new bag.
        seed: of the scene, the drive and the noise, as `np.random.SeedSequence([0x5A3B, seed])`.
        kind: of scene, see `vlm3_lab.scenes.KINDS`.
        duration: seconds.
        rate: frames per second.
        progress: called with the number of frames written and of all frames.

    Returns:
        The number of frames.

    Raises:
        BagError: if the bag cannot be written.
    """
    rng = np.random.default_rng(np.random.SeedSequence([STREAM, seed]))
    camera = PinholeCamera.from_hfov(400, 300, 75.0)
    sequence = sample_sequence(rng, camera, kind=kind, duration=duration, rate=rate)
    drive = sequence.path
    T_odom_world = np.linalg.inv(drive.T_world_base[0])
    total = len(drive.stamps)
    with write_bag(path) as writer:
        static = transform_message(sequence.T_base_camera, START_NS, BASE_FRAME, OPTICAL_FRAME)
        writer.write("/tf_static", static, START_NS)
        for index, view in enumerate(sequence.views(rng)):
            stamp = START_NS + round(drive.stamps[index] * 1e9)
            T_odom_base = T_odom_world @ drive.T_world_base[index]
            twist = (drive.speed[index], 0, 0, 0, 0, drive.yaw_rate[index])
            odometry = odometry_message(
                T_odom_base, twist, EXACT, EXACT, stamp, ODOM_FRAME, BASE_FRAME
            )
            transform = transform_message(T_odom_base, stamp, ODOM_FRAME, BASE_FRAME)
            info = camera_info_message(camera, stamp, OPTICAL_FRAME)
            image = jpeg_image_message(view.image, stamp, OPTICAL_FRAME)
            depth = compressed_depth_message(view.depth, stamp, OPTICAL_FRAME)
            writer.write("/tf", transform, stamp)
            writer.write(ODOM_TOPIC, odometry, stamp)
            writer.write(CAMERA_INFO_TOPIC, info, stamp)
            writer.write(IMAGE_TOPIC, image, stamp)
            writer.write(DEPTH_INFO_TOPIC, info, stamp)
            writer.write(DEPTH_TOPIC, depth, stamp)
            progress(index + 1, total)
    return total
