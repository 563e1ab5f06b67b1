# SPDX-License-Identifier: Apache-2.0
"""What Nav2 does with clouds until TF covers their stamps, on a simulated clock."""

from __future__ import annotations

import bisect
from collections.abc import Callable

NAV2_TOLERANCE = 0.3
"""Nav2's costmap `transform_tolerance`, seconds: how long its filter waits for TF."""


class MessageFilter:
    """tf2_ros::MessageFilter with a timeout, as nav2_costmap_2d's obstacle_layer.cpp makes it.

    A message is passed on once its stamp can be transformed, and dropped `timeout` seconds after it
    has come, or if it is the oldest in a full queue.

    Attributes:
        passed, dropped: stamps in nanoseconds.
    """

    def __init__(
        self,
        can_transform: Callable[[int], bool],
        timeout: float = NAV2_TOLERANCE,
        queue_size: int = 50,
    ) -> None:
        self.passed: list[int] = []
        self.dropped: list[int] = []
        self._can_transform = can_transform
        self._timeout_ns = round(timeout * 1e9)
        self._queue_size = queue_size
        self._waiting: list[tuple[int, int]] = []

    def add(self, stamp_ns: int, now_ns: int) -> None:
        """A message comes in."""
        if len(self._waiting) == self._queue_size:
            self.dropped.append(self._waiting.pop(0)[0])
        self._waiting.append((stamp_ns, now_ns))
        self.update(now_ns)

    def update(self, now_ns: int) -> None:
        """TF has changed, or time has passed."""
        waiting = []
        for stamp, came in self._waiting:
            if now_ns - came > self._timeout_ns:
                self.dropped.append(stamp)
            elif self._can_transform(stamp):
                self.passed.append(stamp)
            else:
                waiting.append((stamp, came))
        self._waiting = waiting


class Coverage:
    """The stamps of one transform: tf2 interpolates between them and never extrapolates."""

    def __init__(self) -> None:
        self._stamps: list[int] = []

    def add(self, stamp_ns: int) -> None:
        bisect.insort(self._stamps, stamp_ns)

    def covers(self, stamp_ns: int) -> bool:
        return bool(self._stamps) and self._stamps[0] <= stamp_ns <= self._stamps[-1]
