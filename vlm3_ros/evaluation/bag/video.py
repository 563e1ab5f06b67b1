# SPDX-License-Identifier: Apache-2.0
"""A video as a recording without truth."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from vlm3_ros.bags.video import bag_from_video, end_note, frame_size, times_note
from vlm3_ros.evaluation.bag.evaluate import BagSource, bag_source
from vlm3_ros.evaluation.scores.base import Progress, no_progress
from vlm3_ros.geometry.calibration_files import GivenCamera


@contextmanager
def video_source(
    path: Path,
    camera: GivenCamera,
    is_rectified: bool = False,
    progress: Progress = no_progress,
) -> Iterator[BagSource]:
    """Read a video as a recording; its frames are in a temporary bag until the end of the `with`.

    Args:
        path: of the video.
        camera: that took it.
        is_rectified: whether the frames are rectified already.
        progress: takes the number of frames read, and of all.

    Raises:
        BagError: if the video cannot be read.
        GeometryError: if the camera is impossible or another one, before all frames are read.
    """
    camera.lens(*frame_size(path), is_rectified)
    with TemporaryDirectory() as folder:
        bag = Path(folder) / "video"
        bag_from_video(path, bag, progress)
        with bag_source(bag, is_rectified=is_rectified, camera=camera) as source:
            doubts = {
                "times of the frames": times_note(path),
                "end of the video": end_note(path, bag),
            }
            yield replace(
                source,
                path=path,
                no_poses=f"{path}: a video has no true poses",
                notes={**source.notes, **{what: text for what, text in doubts.items() if text}},
            )
