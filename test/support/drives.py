# SPDX-License-Identifier: Apache-2.0
"""Small bags of procedural drives, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from truth import TruthEngine, record_truth

from vlm3_lab.scenes.sequences import sample_sequence
from vlm3_ros.bags.writing import write_bag
from vlm3_ros.evaluation.bag.answers import GRID
from vlm3_ros.evaluation.bag.evaluate import BagSource, bag_source
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.messages.cameras import camera_info_message
from vlm3_ros.messages.classes import ROSBAGS
from vlm3_ros.messages.depth_images import compressed_depth_message
from vlm3_ros.messages.images import jpeg_image_message
from vlm3_ros.messages.motions import odometry_message, tf_message
from vlm3_ros.tasks.odometry import OdometrySettings

CAMERA = PinholeCamera.from_hfov(192, 144, 75.0)
START_NS = 1_600_000_000_000_000_000
PERIOD_NS = 200_000_000
STILL = np.zeros(6)
EXACT = np.diag(np.full(6, 1e-10))


def write_drive(
    path: Path,
    cameras: Sequence[PinholeCamera] = (CAMERA,) * 6,
    *,
    with_depth: bool = True,
    with_odometry: bool = True,
    with_tf: bool = True,
) -> None:
    """A drive with one frame for each camera, five frames a second."""
    rng = np.random.default_rng(8)
    sequence = sample_sequence(
        rng, CAMERA, kind="yard", duration=len(cameras) * PERIOD_NS / 1e9, rate=1e9 / PERIOD_NS
    )
    with write_bag(path) as writer:
        if with_tf:
            static = tf_message(ROSBAGS.header(START_NS, "base"), "optical", sequence.T_base_camera)
            writer.write("/tf_static", static, START_NS)
        for index, camera in enumerate(cameras):
            stamp = START_NS + index * PERIOD_NS
            view = replace(sequence, camera=camera).view(index, rng)
            T_odom_base = sequence.path.T_world_base[index]
            if with_tf:
                writer.write(
                    "/tf", tf_message(ROSBAGS.header(stamp, "odom"), "base", T_odom_base), stamp
                )
            if with_odometry:
                odometry = odometry_message(
                    ROSBAGS.header(stamp, "odom"), "base", T_odom_base, EXACT, STILL, EXACT
                )
                writer.write("/odom", odometry, stamp)
            info = camera_info_message(ROSBAGS.header(stamp, "optical"), camera)
            writer.write("/camera/camera_info", info, stamp)
            image = jpeg_image_message(ROSBAGS.header(stamp, "optical"), view.image)
            writer.write("/camera/image_raw/compressed", image, stamp)
            if with_depth:
                depth = compressed_depth_message(ROSBAGS.header(stamp, "optical"), view.depth)
                writer.write("/camera/depth/compressedDepth", depth, stamp)


@dataclass(frozen=True)
class PosedFrame:
    """See `truth.TrueFrame`."""

    image: NDArray[np.uint8]
    depth: NDArray[np.float32]
    camera: PinholeCamera
    T_world_camera: NDArray[np.float64]


def posed_frames(source: BagSource) -> list[PosedFrame]:
    """The frames of a bag with depth and poses."""
    assert source.poses is not None
    return [
        PosedFrame(
            frame.image,
            np.full(frame.image.shape[:2], np.nan, np.float32)
            if frame.depth is None
            else frame.depth,
            frame.camera,
            source.poses.base.at([frame.stamp_ns])[0] @ source.T_base_camera,
        )
        for frame in source.frames
    ]


def truth_engine(source: BagSource) -> TruthEngine:
    """An engine that knows the frames of a bag with depth and poses."""
    return TruthEngine(posed_frames(source))


def record_bag_truth(bag: Path, recording: Path) -> None:
    """True answers to all questions of the nodes about a short bag, for `engine: recorded`."""
    settings = OdometrySettings()
    with bag_source(bag) as source:
        frames = posed_frames(source)
    grid = (settings.match_columns, settings.match_rows)
    record_truth(recording, frames, grid=GRID, match_grid=grid, furthest=len(frames))
