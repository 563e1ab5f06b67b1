# SPDX-License-Identifier: Apache-2.0
"""The executor of the package's nodes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.context import Context
from rclpy.exceptions import InvalidHandle
from rclpy.executors import (
    ConditionReachedException,
    Executor,
    ExternalShutdownException,
    ShutdownException,
)
from rclpy.task import Future, Task

_POLL = 0.001


class SlowCallbackGroup(MutuallyExclusiveCallbackGroup):
    """A group of callbacks that may take seconds."""


class NodeExecutor(Executor):
    """Calls callbacks in the spinning thread, but each callback of a slow group in its own thread.

    rclpy's MultiThreadedExecutor hands a callback to another thread and, until that thread has
    started, finds the same callback ready again and again. While a model's thread holds Python's
    lock, that lasts for milliseconds each time, and costs a model on few cores most of its speed.
    """

    def __init__(self, *, context: Context) -> None:
        super().__init__(context=context)
        self._slow: dict[Task[Any], threading.Thread] = {}

    def spin_until(self, ended: Future) -> None:
        """Call callbacks until a future is done or the context is shut down.

        Raises:
            Exception: that a callback raised.
        """

        def is_over() -> bool:
            return ended.done() or any(task.done() for task in self._slow)

        ended.add_done_callback(lambda _: self.wake())
        try:
            while self.context.ok() and not ended.done():
                # Always the same function: with another one, rclpy forgets what is ready.
                self._call_next(is_over)
                for task in [task for task in self._slow if task.done()]:
                    del self._slow[task]
                    task.result()
        finally:
            for thread in self._slow.values():
                thread.join()

    def _call_next(self, is_over: Callable[[], bool]) -> None:
        """Wait for a callback, or until `is_over`, and call it."""
        try:
            task, entity, _ = self.wait_for_ready_callbacks(None, None, is_over)
        except (ConditionReachedException, ExternalShutdownException, ShutdownException):
            return
        except InvalidHandle:
            # rclpy raises this if a callback destroys a subscription or a publisher while the
            # executor gathers what to wait for; next time it is gone.
            return
        if not isinstance(getattr(entity, "callback_group", None), SlowCallbackGroup):
            task()
            if task.done():
                task.result()
            return

        def call() -> None:
            task()
            self.wake()

        self._slow[task] = threading.Thread(target=call, name="slow callback")
        self._slow[task].start()
        while not (task.executing() or task.done()):
            time.sleep(_POLL)
