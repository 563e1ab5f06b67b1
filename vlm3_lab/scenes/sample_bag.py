# SPDX-License-Identifier: Apache-2.0
"""The sample bag: a procedural drive with exact depth and poses, as if recorded by a robot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from vlm3_lab.scenes.sequences import Sequence, sample_sequence
from vlm3_ros.bags.rgbd import OPTICAL_FRAME, RgbdFrame, write_rgbd_bag
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.messages.classes import ROSBAGS
from vlm3_ros.messages.images import jpeg_image_message

STREAM = 0x5A3B
"""First word of the seeds of sample bags; training and evaluation use others."""

START_NS = 1_700_000_000_000_000_000
"""Stamp of the first frame: any plausible time."""

EXACT = np.diag(np.full(6, 1e-10))
"""Covariance of a pose known by construction: practically exact, but not zero."""


def write_sample_bag(
    path: Path | str,
    seed: int = 2,
    kind: str = "yard",
    duration: float = 10.0,
    rate: float = 10.0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Render a drive to a rosbag2: image, camera_info, depth, TF and odometry.

    Args:
        path: folder of the new bag.
        seed: of the scene, the drive and the noise, as `np.random.SeedSequence([0x5A3B, seed])`.
        kind: of scene, see `vlm3_lab.scenes.KINDS`.
        duration: seconds.
        rate: frames per second.
        progress: called with the number of frames written and the number of all frames.

    Returns:
        The number of frames.

    Raises:
        BagError: if the bag cannot be written.
    """
    rng = np.random.default_rng(np.random.SeedSequence([STREAM, seed]))
    camera = PinholeCamera.from_hfov(400, 300, 75.0)
    sequence = sample_sequence(rng, camera, kind=kind, duration=duration, rate=rate)
    total = len(sequence.path.stamps)
    write_rgbd_bag(
        path,
        camera,
        sequence.T_base_camera,
        EXACT,
        EXACT,
        _frames(sequence, rng),
        lambda done: progress(done, total),
    )
    return total


def _frames(sequence: Sequence, rng: np.random.Generator) -> Iterator[RgbdFrame]:
    drive = sequence.path
    T_odom_world = np.linalg.inv(drive.T_world_base[0])
    for index, view in enumerate(sequence.views(rng)):
        header = ROSBAGS.header(START_NS + round(drive.stamps[index] * 1e9), OPTICAL_FRAME)
        yield RgbdFrame(
            jpeg_image_message(header, view.image),
            view.depth,
            T_odom_world @ drive.T_world_base[index],
            (drive.speed[index], 0, 0, 0, 0, drive.yaw_rate[index]),
        )
