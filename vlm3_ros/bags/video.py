# SPDX-License-Identifier: Apache-2.0
"""Videos as recordings: their frames as a bag of compressed images."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from vlm3_ros.bags.reading import open_bag
from vlm3_ros.bags.writing import write_bag
from vlm3_ros.errors import BagError
from vlm3_ros.messages.classes import ROSBAGS
from vlm3_ros.messages.images import jpeg_image_message

VIDEO_SUFFIXES = (
    *(".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".3gp", ".flv"),
    *(".ts", ".mts", ".m2ts", ".ogv", ".h264", ".264", ".h265", ".265", ".hevc", ".mjpeg", ".mjpg"),
)

IMAGE_TOPIC = "/video/image_raw/compressed"

OPTICAL_FRAME = "video_optical_frame"

_START_NS = 1_000_000_000
"""Stamp of the start of a video: 0 would mean that there is none."""

_QUALITY = 95

_LAST_FRAMES, _ROUNDING = 3, 0.02
"""Frames, and share of a video, by which the announced length may exceed the frames."""

_ERRORS_ONLY = 2
"""OpenCV's level of log messages."""


def bag_from_video(
    video: Path, bag: Path, progress: Callable[[int, int], None] = lambda done, total: None
) -> int:
    """Write the frames of a video to a new bag, turned upright, with their own times as stamps.

    Args:
        video: a file that OpenCV can read; its frame rate may vary.
        bag: folder of the new bag.
        progress: called with the number of frames written, and of all as the file announces it.

    Returns:
        The number of frames.

    Raises:
        BagError: if the video is missing, damaged at its start, or has no frames or no times.
    """
    count = 0
    with write_bag(bag) as writer:
        for count, (stamp_ns, image, total) in enumerate(_frames(video), 1):
            header = ROSBAGS.header(stamp_ns, OPTICAL_FRAME)
            writer.write(IMAGE_TOPIC, jpeg_image_message(header, image, _QUALITY), stamp_ns)
            progress(count, max(count, total))
        if not count:
            raise BagError(f"{video}: the video has no frame that can be read")
    return count


def frame_size(video: Path) -> tuple[int, int]:
    """Width and height of the upright frames.

    Raises:
        BagError: if the video is missing, damaged at its start, or has no frames.
    """
    for _, image, _ in _frames(video):
        return image.shape[1], image.shape[0]
    raise BagError(f"{video}: the video has no frame that can be read")


def end_note(video: Path, bag: Path) -> str:
    """Say in words that a bag lacks the end that its video announces; empty if it does not.

    Raises:
        BagError: if the video is missing or damaged at its start.
    """
    with _opened(video) as capture:
        rate, total = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
    if not (rate > 0 and total > 0):
        return ""
    with open_bag(bag) as written:
        read = (written.end_ns - _START_NS) / 1e9 + 1 / rate
    # The last frame may be shown for longer than the others, and some files only estimate.
    if read >= total / rate - max(_LAST_FRAMES / rate, _ROUNDING * total / rate):
        return ""
    return f"the video breaks off: {read:.1f} s of {total / rate:.1f} s could be read"


def times_note(video: Path) -> str:
    """Say in words what is doubtful about the times of the frames; empty if nothing.

    Raises:
        BagError: if the video is missing or damaged at its start.
    """
    with _opened(video) as capture:
        if capture.get(cv2.CAP_PROP_FRAME_COUNT) > 0:
            return ""
        rate = capture.get(cv2.CAP_PROP_FPS)
    return (
        "the file announces no length: if it is a raw stream without times (H.264, MJPEG), "
        f"{rate:g} frames per second are assumed"
    )


def _frames(video: Path) -> Iterator[tuple[int, NDArray[np.uint8], int]]:
    """Stamps and RGB images, and the announced number of frames."""
    with _opened(video) as capture:
        capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
        rate, total = capture.get(cv2.CAP_PROP_FPS), int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        last = _START_NS - 1
        while True:
            is_read, image = capture.read()
            if not is_read:
                return
            stamp = _START_NS + round(capture.get(cv2.CAP_PROP_POS_MSEC) * 1e6)
            if stamp <= last and not rate > 0:
                raise BagError(
                    f"{video}: neither the frames nor the file tell times: convert it with a frame "
                    "rate, as with `ffmpeg -r 30 -i`"
                )
            # Some files lack the times of frames.
            last = stamp if stamp > last else last + round(1e9 / rate)
            yield last, np.ascontiguousarray(image[..., ::-1]), max(0, total)


@contextmanager
def _opened(video: Path) -> Iterator[cv2.VideoCapture]:
    if video.is_dir():
        raise BagError(f"{video}: a folder, not a video")
    if not video.is_file():
        raise BagError(f"{video}: there is no such file")
    # FFmpeg would print what is said below in one line.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    # OpenCV 5 moved it.
    set_level = getattr(cv2, "setLogLevel", None) or cv2.utils.logging.setLogLevel
    set_level(_ERRORS_ONLY)
    capture = cv2.VideoCapture(str(video), cv2.CAP_FFMPEG)
    try:
        if not capture.isOpened():
            raise BagError(f"{video}: not a video that OpenCV can read, or damaged")
        yield capture
    finally:
        capture.release()
