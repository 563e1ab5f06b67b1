# SPDX-License-Identifier: Apache-2.0
"""The pose of a camera on its robot, from TF; works without tf2_ros until it is used."""

from __future__ import annotations

import time
from collections.abc import Callable

from rclpy.node import Node
from rclpy.time import Time

from vlm3_ros.geometry.motion import Transform
from vlm3_ros.messages.motions import transform_from_message

_POLL = 0.02


class FrameTree:
    """Listens to /tf and /tf_static until it is closed."""

    def __init__(self, node: Node) -> None:
        """Start to listen.

        Raises:
            ImportError: if tf2_ros is not installed.
        """
        import tf2_ros

        # A buffer that is given the node would create a service on it.
        self._buffer = tf2_ros.Buffer()
        self._listener = tf2_ros.TransformListener(self._buffer, node, spin_thread=False)

    def close(self) -> None:
        """Stop to listen."""
        self._listener.unregister()

    def newest(
        self, target: str, source: str, timeout: float, is_wanted: Callable[[], bool]
    ) -> Transform | None:
        """Wait for a transform and return the newest T_target_source, shape (4, 4), metres.

        Args:
            target: frame.
            source: frame. A leading slash, as drivers of ROS 1 wrote it, is dropped as in tf2.
            timeout: seconds of wall time to wait.
            is_wanted: whether to go on waiting.

        Returns:
            None if the transform did not arrive.
        """
        target, source = target.lstrip("/"), source.lstrip("/")
        end = time.monotonic() + timeout
        # tf2's own timeout runs on the node's clock, which may stand still.
        while not self._buffer.can_transform(target, source, Time()):
            if time.monotonic() > end or not is_wanted():
                return None
            time.sleep(_POLL)
        message = self._buffer.lookup_transform(target, source, Time())
        return transform_from_message(message.transform)
