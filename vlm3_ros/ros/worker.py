# SPDX-License-Identifier: Apache-2.0
"""A thread that works on items while further ones come in."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class QueueWorker(Generic[Item]):
    """Calls `work` with one item after another, in a thread that runs from `start` to `stop`.

    The queue is bounded: when it is full, a new item pushes out the oldest one. With room for one
    item the newest wins. `work` must not raise. Safe between threads; may be started again.
    """

    def __init__(self, work: Callable[[Item], None], room: Callable[[], int], name: str) -> None:
        """Create a stopped worker.

        Args:
            work: is called in the thread.
            room: returns how many items may wait; read at each start.
            name: of the thread.
        """
        self._work = work
        self._room = room
        self._name = name
        self._waiting: deque[Item] = deque(maxlen=1)
        self._changed = threading.Condition()
        self._stopping = False
        self._thread: threading.Thread | None = None

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Start the thread with an empty queue."""
        with self._changed:
            self._waiting = deque(maxlen=self._room())
            self._stopping = False
        self._thread = threading.Thread(target=self._run, name=self._name)
        self._thread.start()

    def put(self, item: Item) -> Item | None:
        """Add an item. Return the item that it pushed out, None if there was room."""
        with self._changed:
            is_full = len(self._waiting) == self._waiting.maxlen
            pushed_out = self._waiting.popleft() if is_full else None
            self._waiting.append(item)
            self._changed.notify()
        return pushed_out

    def clear(self) -> int:
        """Discard the waiting items. Return their number."""
        with self._changed:
            count = len(self._waiting)
            self._waiting.clear()
        return count

    def stop(self) -> None:
        """Discard the waiting items, finish the current one, and end the thread."""
        with self._changed:
            self._waiting.clear()
            self._stopping = True
            self._changed.notify()
        if self._thread:
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._stopping)
                if self._stopping:
                    return
                item = self._waiting.popleft()
            self._work(item)
