# SPDX-License-Identifier: Apache-2.0
"""A thread that works on frames while the next ones come in."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Frame = TypeVar("Frame")


class FrameWorker(Generic[Frame]):
    """Calls `work` with one frame after the other, in a thread of its own.

    Up to `room` frames wait; when another comes the oldest leaves, so that with room for one the
    newest wins. `work` must not raise.
    """

    def __init__(self, work: Callable[[Frame], None], room: int, name: str) -> None:
        self._work = work
        self._waiting: deque[Frame] = deque(maxlen=room)
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name)
        self._thread.start()

    def put(self, frame: Frame) -> Frame | None:
        """Add a frame. Returns the older one that had to leave for it, if one had to."""
        with self._changed:
            is_full = len(self._waiting) == self._waiting.maxlen
            left = self._waiting.popleft() if is_full else None
            self._waiting.append(frame)
            self._changed.notify()
        return left

    def clear(self) -> int:
        """Forget the frames that wait. Returns how many."""
        with self._changed:
            forgotten = len(self._waiting)
            self._waiting.clear()
        return forgotten

    def stop(self) -> None:
        """Finish the frame at hand and end the thread."""
        with self._changed:
            self._waiting.clear()
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._stopping)
                if self._stopping:
                    return
                frame = self._waiting.popleft()
            self._work(frame)
