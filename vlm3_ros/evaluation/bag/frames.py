# SPDX-License-Identifier: Apache-2.0
"""The frames of a bag as the nodes see them: rectified, with camera and true depth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlm3_ros.bags.nearest import NearestMessages
from vlm3_ros.bags.reading import Bag, open_bag, up_to_damage
from vlm3_ros.bags.topics import CameraTopics
from vlm3_ros.errors import MessageError
from vlm3_ros.evaluation.metrics.trajectories import ASSOCIATION_SECONDS
from vlm3_ros.geometry.camera import GeometryError, PinholeCamera
from vlm3_ros.geometry.frame import RectifiedFrame, rectified_frame
from vlm3_ros.messages.cameras import CalibrationHistory
from vlm3_ros.messages.classes import stamp_nanoseconds
from vlm3_ros.messages.depth_images import depth_from_message
from vlm3_ros.messages.images import rgb_from_message

MAX_CALIBRATIONS = 10_000
"""Most different CameraInfo that are kept; a camera with autofocus has many."""


@dataclass(frozen=True, eq=False, kw_only=True)
class BagFrame(RectifiedFrame):
    """A frame of a bag.

    `stamp_ns`: of the image, nanoseconds. `depth`: the true one, metres along Z, shape
    (camera.height, camera.width), NaN where unknown; None if the bag has none of this time.
    """

    stamp_ns: int
    depth: NDArray[np.float32] | None


@dataclass
class BagFrames:
    """Iterates over the frames of a bag and counts the unusable ones.

    Attributes:
        path: of a bag that opens (`vlm3_ros.bags.truncation.readable_bag`).
        topics: of its camera.
        is_rectified: whether the image topic is rectified already, as the nodes' parameter
            `image_is_rectified`.
        failed: number of unusable images, by reason.
        without_depth: number of frames without usable depth, by reason.
        damage: messages about damaged parts of the bag; frames before them are good.
    """

    path: Path
    topics: CameraTopics
    is_rectified: bool = False
    failed: Counter[str] = field(default_factory=Counter)
    without_depth: Counter[str] = field(default_factory=Counter)
    damage: list[str] = field(default_factory=list)

    def __iter__(self) -> Iterator[BagFrame]:
        """Iterate over the frames in the order of recording; the counts start at zero."""
        return self._read(None)

    def at(self, stamps_ns: Container[int]) -> Iterator[BagFrame]:
        """Iterate over the frames of these stamps only; no other image is decoded."""
        return self._read(stamps_ns)

    def _read(self, stamps_ns: Container[int] | None) -> Iterator[BagFrame]:
        self.failed.clear()
        self.without_depth.clear()
        with ExitStack() as stack:
            # Two readers of one file, each at its own position.
            images, others = (stack.enter_context(open_bag(self.path)) for _ in range(2))
            calibrations = self._calibrations(others)
            depths = NearestMessages(others, self.topics.depth, self.damage)
            for message in up_to_damage(images.messages([self.topics.image]), self.damage):
                stamp_ns = stamp_nanoseconds(message.content.header)
                if stamps_ns is not None and stamp_ns not in stamps_ns:
                    continue
                try:
                    frame = self._frame(message.content, calibrations)
                except (MessageError, GeometryError) as error:
                    self.failed[f"{self.topics.image}: {error}"] += 1
                    continue
                stamp = stamp_nanoseconds(message.content.header)
                depth = self._depth(depths, stamp, frame.camera)
                yield BagFrame(**vars(frame), stamp_ns=stamp, depth=depth)

    def _calibrations(self, bag: Bag) -> CalibrationHistory:
        history = CalibrationHistory(MAX_CALIBRATIONS)
        for message in up_to_damage(bag.messages([self.topics.camera_info]), self.damage):
            history.add(message.content)
        return history

    def _frame(self, message: Any, calibrations: CalibrationHistory) -> RectifiedFrame:
        image = rgb_from_message(message)
        size = (image.shape[1], image.shape[0])
        found = calibrations.find(message.header, size, self.is_rectified)
        if found is None:
            raise GeometryError(f"no CameraInfo could be read on '{self.topics.camera_info}'")
        return rectified_frame(image, found[1])

    def _depth(
        self, depths: NearestMessages, stamp_ns: int, camera: PinholeCamera
    ) -> NDArray[np.float32] | None:
        if self.topics.depth is None:
            return None
        message = depths.at(stamp_ns, ASSOCIATION_SECONDS)
        if message is None:
            self.without_depth[f"no depth image within {ASSOCIATION_SECONDS:g} s"] += 1
            return None
        try:
            depth = depth_from_message(message)
        except MessageError as error:
            self.without_depth[f"{self.topics.depth}: {error}"] += 1
            return None
        if depth.shape != (camera.height, camera.width):
            self.without_depth[
                f"the depth image is {depth.shape[1]}x{depth.shape[0]}, the image "
                f"{camera.width}x{camera.height}: it is not registered to it"
            ] += 1
            return None
        return depth


def counted(frames: Iterable[BagFrame], progress: Callable[[int], None]) -> Iterator[BagFrame]:
    """Yield the same frames; `progress` gets the number done when the next one is requested."""
    for done, frame in enumerate(frames, 1):
        yield frame
        progress(done)


def camera_frame(bag: Bag, topic: str) -> str:
    """Return the frame_id of the first image of a topic."""
    return str(next(bag.messages([topic])).content.header.frame_id)
