# SPDX-License-Identifier: Apache-2.0
"""A camera that publishes good frames, or frames changed by faults."""

from __future__ import annotations

import io
import threading
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from vlm3_lab.scenes.sequences import sample_sequence
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.messages.cameras import camera_info_message

FRAME = "camera_optical_frame"

Picture: TypeAlias = Image | CompressedImage
Change = Callable[[Picture, CameraInfo], "tuple[Picture | None, CameraInfo | None]"]
"""Changes a frame before it is published; None is not published."""


@dataclass(frozen=True)
class Sent:
    """A frame that was sent: its number, when (monotonic clock), whether it can be answered.

    The number is None if the order of the frame is unknown.
    """

    number: int | None
    at: float
    frame_id: str
    is_good: bool


@dataclass(frozen=True)
class View:
    """A camera, and the data of its image as messages hold them: raw RGB, and PNG."""

    camera: PinholeCamera
    raw: array[int]
    png: array[int]


def drive_views(width: int, height: int, count: int = 12) -> list[View]:
    """Images of a robot's camera on a slow drive back and forth."""
    rng = np.random.default_rng(3)
    camera = PinholeCamera.from_hfov(width, height, 70.0)
    drive = sample_sequence(rng, camera, kind="room", duration=count / 10, rate=10.0)
    there = [_view(view.image, view.camera) for view in drive.views(rng)]
    return there + there[-2:0:-1]


def _view(image: NDArray[np.uint8], camera: PinholeCamera) -> View:
    buffer = io.BytesIO()
    Pillow.fromarray(image).save(buffer, "PNG")
    return View(camera, array("B", image.tobytes()), array("B", buffer.getvalue()))


class CameraClock:
    """The clock of the camera's stamps: the computer's, or a simulated one on /clock."""

    def __init__(self, node: Node, is_simulated: bool) -> None:
        self.offset = 0.0
        """Seconds ahead of the computer's clock."""
        self.stands_at: int | None = None
        """The time at which it stands still, nanoseconds; None while it runs."""
        self._output = node.create_publisher(Clock, "/clock", 10) if is_simulated else None

    def now(self) -> int:
        """Return the time in nanoseconds; publish it if the clock is simulated."""
        now = (
            time.time_ns() + round(self.offset * 1e9) if self.stands_at is None else self.stands_at
        )
        if self._output:
            message = Clock()
            message.clock.sec, message.clock.nanosec = divmod(now, 10**9)
            self._output.publish(message)
        return now


class Camera:
    """Publishes in its own thread; `sent` holds all frames by stamp in nanoseconds."""

    def __init__(
        self,
        node: Node,
        views: Sequence[View],
        rate: float,
        *,
        is_compressed: bool = False,
        is_simulated: bool = False,
    ) -> None:
        self.clock = CameraClock(node, is_simulated)
        self.views = views
        self.rate = rate
        self.frame_id = FRAME
        self.is_silent = False
        self.sent: dict[int, Sent] = {}
        self._node = node
        self._is_compressed = is_compressed
        self._changes: list[tuple[Change, bool]] = []
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._count = 0
        self.image: Publisher[Any] | None = None
        self.camera_info: Publisher[Any] | None = None
        self.open(QoSProfile(depth=5))
        self._thread = threading.Thread(target=self._run, name="camera")
        self._thread.start()

    @property
    def count(self) -> int:
        """Number of frames sent so far."""
        return self._count

    def open(self, qos: QoSProfile) -> None:
        """Create the publishers again, as a restarted camera driver does."""
        with self._lock:
            for publisher in filter(None, (self.image, self.camera_info)):
                self._node.destroy_publisher(publisher)
            kind: type = Image
            topic = "image"
            if self._is_compressed:
                kind, topic = CompressedImage, "image/compressed"
            self.image = self._node.create_publisher(kind, topic, qos)
            self.camera_info = self._node.create_publisher(CameraInfo, "camera_info", qos)

    @contextmanager
    def changed(self, change: Change, *, is_good: bool = False) -> Iterator[None]:
        """Change all frames while the body runs; `is_good` if they can still be answered."""
        entry = (change, is_good)
        with self._lock:
            self._changes.append(entry)
        try:
            yield
        finally:
            with self._lock:
                self._changes.remove(entry)

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stopping.wait(max(0.0, due - time.monotonic())):
            due = max(due + 1 / self.rate, time.monotonic() - 1)
            with self._lock:
                if not self.is_silent:
                    self._send()

    def _send(self) -> None:
        view = self.views[self._count % len(self.views)]
        stamp = self.clock.now()
        header = Header(frame_id=self.frame_id)
        header.stamp.sec, header.stamp.nanosec = divmod(stamp, 10**9)
        picture: Picture | None = self._picture(view, header)
        info: CameraInfo | None = camera_info_message(header, view.camera)
        is_good = True
        for change, leaves_good in self._changes:
            if picture is None or info is None:
                break
            picture, info = change(picture, info)
            is_good = is_good and leaves_good
        if picture is not None:
            sent_header = picture.header
            key = sent_header.stamp.sec * 10**9 + sent_header.stamp.nanosec
            # Of frames with equal stamps it is unknown which one was answered.
            number = None if key in self.sent else self._count
            self.sent[key] = Sent(number, time.monotonic(), sent_header.frame_id, is_good)
        self._count += 1
        assert self.image and self.camera_info
        if info is not None:
            self.camera_info.publish(info)
        if picture is not None:
            self.image.publish(picture)

    def _picture(self, view: View, header: Header) -> Picture:
        if self._is_compressed:
            message = CompressedImage(header=header, format="rgb8; png compressed bgr8")
            message.data = view.png
            return message
        width, height = view.camera.width, view.camera.height
        image = Image(header=header, width=width, height=height, encoding="rgb8", step=3 * width)
        image.data = view.raw
        return image
