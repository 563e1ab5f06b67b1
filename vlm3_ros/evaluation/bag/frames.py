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
from vlm3_ros.bags.topics import NO_DEPTH, CameraTopics, base_topic
from vlm3_ros.errors import BagError, MessageError
from vlm3_ros.evaluation.bag.true_depth import DepthError, DepthRule, first_messages
from vlm3_ros.geometry.calibration_files import GivenCamera
from vlm3_ros.geometry.camera import GeometryError
from vlm3_ros.geometry.frame import RectifiedFrame, rectified_frame
from vlm3_ros.messages.cameras import CalibrationHistory, is_called_rectified
from vlm3_ros.messages.classes import stamp_nanoseconds
from vlm3_ros.messages.images import rgb_from_message

MAX_CALIBRATIONS = 10_000
"""Most different CameraInfo that are kept; a camera with autofocus has many."""


_IF_RECTIFIED = "; if they are rectified already, say --rectified (evaluate, dataset)"
_OTHER_CAMERA = "; --camera-info FILE or --hfov DEG replaces the bag's CameraInfo"


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
        depth_rule: what is known about the topic of depth; None without one.
        camera: that the user gives instead of CameraInfo; None if there is none.
        is_rectified: whether the image topic is rectified already, as the nodes' parameter
            `image_is_rectified`.
        failed: number of unusable images, by reason.
        without_depth: number of frames without usable depth, by reason.
        damage: messages about damaged parts of the bag; frames before them are good.
        assumptions: what the calibrations leave open and how it was understood.
    """

    path: Path
    topics: CameraTopics
    depth_rule: DepthRule | None = None
    camera: GivenCamera | None = None
    is_rectified: bool = False
    failed: Counter[str] = field(default_factory=Counter)
    without_depth: Counter[str] = field(default_factory=Counter)
    damage: list[str] = field(default_factory=list)
    assumptions: list[str] = field(default_factory=list)

    def __iter__(self) -> Iterator[BagFrame]:
        """Iterate over the frames in the order of recording; the counts start at zero."""
        return self._read(None)

    def at(self, stamps_ns: Container[int]) -> Iterator[BagFrame]:
        """Iterate over the frames of these stamps only; no other image is decoded."""
        return self._read(stamps_ns)

    def check_camera(self) -> None:
        """Check that a given camera is that of the first image, before any work.

        Raises:
            GeometryError: if its file cannot be read, or is for images of another size.
        """
        if self.camera is None:
            return
        with open_bag(self.path) as bag:
            try:
                image = rgb_from_message(next(first_messages(bag, self.topics.image)))
            except (MessageError, BagError):
                return  # counted when the frames are read
        self.camera.lens(image.shape[1], image.shape[0], self.is_rectified)

    def rectified_note(self) -> str:
        """Say in words that images called rectified are rectified with their CameraInfo; or ""."""
        if self.camera is not None or not self._is_doubtful:
            return ""
        with open_bag(self.path) as bag:
            try:
                calibrations = self._calibrations(bag, self.topics.camera_info)
                frame = self._frame(next(first_messages(bag, self.topics.image)), calibrations)
            except (MessageError, GeometryError, BagError):
                return ""  # counted when the frames are read
        if frame.lens is None:
            return ""
        return (
            f"'{self.topics.image}' is called rectified, but its CameraInfo has distortion, with "
            f"which the images are rectified{_IF_RECTIFIED}"
        )

    def _without_camera(self, error: GeometryError) -> str:
        """Why an image has no camera, and what to do, in one line."""
        if self.camera is not None:
            return f"{self.topics.image}: {error}"
        hint = _IF_RECTIFIED if self._is_doubtful else ""
        return f"{self.topics.camera_info}: {error}{hint}{_OTHER_CAMERA}"

    @property
    def _is_doubtful(self) -> bool:
        """Whether images are taken for raw ones whose topic is called rectified."""
        return not self.is_rectified and is_called_rectified(base_topic(self.topics.image))

    def check_depth(self) -> str:
        """Register the first depth image to the first image, so that faults show before any work.

        Returns:
            What is done to depth images, in words; empty if nothing, or if an image is unusable.

        Raises:
            BagError: if depth cannot be decoded or registered; says what to do.
        """
        if self.depth_rule is None:
            return ""
        with open_bag(self.path) as bag:
            calibrations = self._calibrations(bag, self.topics.camera_info)
            of_depth = self._calibrations(bag, self.depth_rule.info)
            reason: MessageError | None = None
            try:
                image = next(first_messages(bag, self.topics.image))
                frame = self._frame(image, calibrations)
                for message in first_messages(bag, self.depth_rule.topic):
                    try:
                        return self.depth_rule.registered(message, of_depth, frame)[1]
                    except DepthError as error:
                        reason = error
                        break
                    except MessageError as error:
                        reason = reason or error
            except (MessageError, GeometryError, BagError):
                return ""  # counted when the frames are read
        raise BagError(
            f"{self.path}: depth on '{self.depth_rule.topic}': {reason}; --depth-topic "
            f"{NO_DEPTH} works without true depth"
        ) from reason

    def _read(self, stamps_ns: Container[int] | None) -> Iterator[BagFrame]:
        self.failed.clear()
        self.without_depth.clear()
        with ExitStack() as stack:
            # Two readers of one file, each at its own position.
            images, others = (stack.enter_context(open_bag(self.path)) for _ in range(2))
            calibrations = self._calibrations(others, self.topics.camera_info)
            rule = self.depth_rule
            of_depth = self._calibrations(others, rule.info if rule else None)
            depths = NearestMessages(others, rule.topic if rule else None, self.damage)
            for message in up_to_damage(images.messages([self.topics.image]), self.damage):
                stamp_ns = stamp_nanoseconds(message.content.header)
                if stamps_ns is not None and stamp_ns not in stamps_ns:
                    continue
                try:
                    frame = self._frame(message.content, calibrations)
                except MessageError as error:
                    self.failed[f"{self.topics.image}: {error}"] += 1
                    continue
                except GeometryError as error:
                    self.failed[self._without_camera(error)] += 1
                    continue
                depth = None
                if rule is not None:
                    depth = self._depth(rule, depths, of_depth, stamp_ns, frame)
                yield BagFrame(**vars(frame), stamp_ns=stamp_ns, depth=depth)

    def _calibrations(self, bag: Bag, topic: str | None) -> CalibrationHistory:
        history = CalibrationHistory(MAX_CALIBRATIONS)
        if topic is not None:
            for message in up_to_damage(bag.messages([topic]), self.damage):
                history.add(message.content)
        return history

    def _frame(self, message: Any, calibrations: CalibrationHistory) -> RectifiedFrame:
        image = rgb_from_message(message)
        size = (image.shape[1], image.shape[0])
        if self.camera is not None:
            lens = self.camera.lens(*size, self.is_rectified)
        else:
            found = calibrations.find(message.header, size, self.is_rectified)
            if found is None:
                raise GeometryError("no CameraInfo could be read")
            lens = found[1]
        self.assumptions += [text for text in lens.assumptions if text not in self.assumptions]
        return rectified_frame(image, lens)

    def _depth(
        self,
        rule: DepthRule,
        depths: NearestMessages,
        calibrations: CalibrationHistory,
        stamp_ns: int,
        frame: RectifiedFrame,
    ) -> NDArray[np.float32] | None:
        message = depths.at(stamp_ns, rule.seconds)
        if message is None:
            self.without_depth[
                f"no depth image within {rule.seconds:.3g} s (--max-offset allows more)"
            ] += 1
            return None
        try:
            return rule.registered(message, calibrations, frame)[0]
        except MessageError as error:
            self.without_depth[f"{rule.topic}: {error}"] += 1
            return None


def counted(frames: Iterable[BagFrame], progress: Callable[[int], None]) -> Iterator[BagFrame]:
    """Yield the same frames; `progress` gets the number done when the next one is requested."""
    for done, frame in enumerate(frames, 1):
        yield frame
        progress(done)


def camera_frame(bag: Bag, topic: str, camera_info: str | None = None) -> str:
    """Return the frame_id of the first message of a topic; if empty, that of its CameraInfo."""
    for name in (topic, camera_info):
        message = None if name is None else next(bag.messages([name]), None)
        if message is not None and message.content.header.frame_id:
            return str(message.content.header.frame_id)
    return ""
