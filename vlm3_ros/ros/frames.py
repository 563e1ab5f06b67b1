# SPDX-License-Identifier: Apache-2.0
"""Where a camera sits on its robot, as TF knows it; tf2_ros need not be installed."""

from __future__ import annotations

import time
from collections.abc import Callable

from rclpy.node import Node
from rclpy.time import Time

from vlm3_ros.geometry.motion import Transform
from vlm3_ros.messages.motions import transform_from_message

_POLL = 0.02


class FrameTree:
    """The transforms on /tf and /tf_static, from now until it is closed."""

    def __init__(self, node: Node) -> None:
        """Begin to listen.

        Raises:
            ImportError: where tf2_ros is not installed.
        """
        import tf2_ros

        # A buffer that knows the node makes it offer a service.
        self._buffer = tf2_ros.Buffer()
        self._listener = tf2_ros.TransformListener(self._buffer, node, spin_thread=False)

    def close(self) -> None:
        """Listen no more."""
        self._listener.unregister()

    def newest(
        self, target: str, source: str, timeout: float, is_wanted: Callable[[], bool]
    ) -> Transform | None:
        """The newest T_target_source, shape (4, 4), metres.

        Args:
            timeout: seconds of wall time to wait for it.
            is_wanted: whether to go on waiting.

        Returns:
            None where it did not come.
        """
        end = time.monotonic() + timeout
        # tf2's own timeout runs on the node's clock, which may stand still.
        while not self._buffer.can_transform(target, source, Time()):
            if time.monotonic() > end or not is_wanted():
                return None
            time.sleep(_POLL)
        message = self._buffer.lookup_transform(target, source, Time())
        return transform_from_message(message.transform)
