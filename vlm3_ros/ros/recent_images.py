# SPDX-License-Identifier: Apache-2.0
"""The newest images of a camera, which questions find by their stamps."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass

from sensor_msgs.msg import CompressedImage, Image

from vlm3_ros.messages.classes import stamp_nanoseconds


@dataclass(frozen=True)
class KeptImage:
    """An image, and when it arrived.

    arrived: on `time.monotonic`, seconds. clock: on the node's clock, nanoseconds.
    """

    message: Image | CompressedImage
    arrived: float
    clock: int


class RecentImages:
    """Keeps the newest images. Thread-safe."""

    def __init__(self) -> None:
        self._images: deque[KeptImage] = deque()
        self._received = 0
        self._lock = threading.Lock()

    @property
    def received(self) -> int:
        """Number of images since `clear`."""
        return self._received

    @property
    def newest(self) -> KeptImage | None:
        """The image that arrived last, None if there is none."""
        with self._lock:
            return self._images[-1] if self._images else None

    @property
    def bytes(self) -> int:
        """Memory of the kept images' pixels, bytes."""
        with self._lock:
            return sum(len(image.message.data) for image in self._images)

    def __len__(self) -> int:
        return len(self._images)

    def add(self, message: Image | CompressedImage, clock: int, room: int) -> None:
        """Keep an image, and drop the oldest ones beyond `room`.

        Args:
            message: with the image.
            clock: the time on the node's clock, nanoseconds.
            room: number of images to keep.
        """
        with self._lock:
            self._received += 1
            self._images.append(KeptImage(message, time.monotonic(), clock))
            while len(self._images) > room:
                self._images.popleft()

    def find(self, stamp: int) -> KeptImage | None:
        """Return the newest kept image with a stamp in nanoseconds, None if there is none."""
        with self._lock:
            same = (
                i for i in reversed(self._images) if stamp_nanoseconds(i.message.header) == stamp
            )
            return next(same, None)

    def clear(self) -> None:
        """Drop all images."""
        with self._lock:
            self._images.clear()
            self._received = 0
