# SPDX-License-Identifier: Apache-2.0
"""The newest images of a camera, of which a question finds its own."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass

from sensor_msgs.msg import CompressedImage, Image

from vlm3_ros.messages.classes import stamp_nanoseconds


@dataclass(frozen=True)
class KeptImage:
    """An image as it came, and when.

    arrived: on `time.monotonic`, seconds. clock: on the node's clock, nanoseconds.
    """

    message: Image | CompressedImage
    arrived: float
    clock: int


class RecentImages:
    """Keeps the newest images. Safe between threads."""

    def __init__(self) -> None:
        self._images: deque[KeptImage] = deque()
        self._received = 0
        self._lock = threading.Lock()

    @property
    def received(self) -> int:
        """How many have come since `clear`."""
        return self._received

    @property
    def newest(self) -> KeptImage | None:
        """The one that came last, None where none has."""
        with self._lock:
            return self._images[-1] if self._images else None

    @property
    def bytes(self) -> int:
        """What the pixels of those that are kept take in memory."""
        with self._lock:
            return sum(len(image.message.data) for image in self._images)

    def __len__(self) -> int:
        return len(self._images)

    def add(self, message: Image | CompressedImage, clock: int, room: int) -> None:
        """Keep an image, and let go of the oldest beyond `room`.

        Args:
            message: as it came.
            clock: the time on the node's clock, nanoseconds.
            room: how many are kept.
        """
        with self._lock:
            self._received += 1
            self._images.append(KeptImage(message, time.monotonic(), clock))
            while len(self._images) > room:
                self._images.popleft()

    def find(self, stamp: int) -> KeptImage | None:
        """The newest one of this stamp in nanoseconds; None where none is kept."""
        with self._lock:
            same = (
                i for i in reversed(self._images) if stamp_nanoseconds(i.message.header) == stamp
            )
            return next(same, None)

    def clear(self) -> None:
        """Let go of all."""
        with self._lock:
            self._images.clear()
            self._received = 0
