# SPDX-License-Identifier: Apache-2.0
"""Recordings named on the command line: bags, and videos."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from vlm3_ros.bags.video import VIDEO_SUFFIXES
from vlm3_ros.cli.camera_options import depth_options, given_camera
from vlm3_ros.errors import CommandError

if TYPE_CHECKING:
    from vlm3_ros.evaluation.bag.evaluate import BagSource


@contextmanager
def recording_source(
    path: Path,
    options: argparse.Namespace,
    ground_truth: str | None = None,
    is_rectified: bool = False,
    is_video: bool = False,
) -> Iterator[BagSource]:
    """Open a bag or a video.

    Args:
        path: of the recording.
        options: topics, camera and depth as the command line names them.
        ground_truth, is_rectified: see `bag_source`.
        is_video: whether the user said so; else the suffix tells.

    Raises:
        CommandError: if a video lacks a camera, or is given options of bags.
        BagError: if the recording cannot be used.
    """
    from vlm3_ros.evaluation.bag.evaluate import bag_source

    camera = given_camera(options)
    is_named_so = path.suffix.lower() in VIDEO_SUFFIXES and not path.is_dir()
    if not (is_video or is_named_so):
        with bag_source(
            path,
            options.image_topic,
            options.camera_info_topic,
            options.depth_topic,
            ground_truth,
            is_rectified,
            camera,
            depth_options(options),
        ) as source:
            yield source
        return
    from vlm3_ros.cli.progress import progress_bar
    from vlm3_ros.evaluation.bag.video import video_source

    if camera is None:
        raise CommandError(f"{path}: a video has no calibration: give --hfov or --camera-info")
    of_bags = {
        "--image-topic": options.image_topic,
        "--camera-info-topic": options.camera_info_topic,
        "--depth-topic": options.depth_topic,
        "--depth-camera": options.depth_camera,
        "--max-offset": options.max_offset,
        "--gt": ground_truth,
    }
    if used := [name for name, value in of_bags.items() if value is not None]:
        raise CommandError(f"{used[0]} is for bags, not for a video")
    with ExitStack() as stack:
        with progress_bar("frames of the video read") as progress:
            video = stack.enter_context(video_source(path, camera, is_rectified, progress))
        yield video
