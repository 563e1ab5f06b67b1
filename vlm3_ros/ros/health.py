# SPDX-License-Identifier: Apache-2.0
"""The health of a node: its messages on /diagnostics, and a log that does not repeat itself."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from vlm3_ros.errors import Vlm3Error
from vlm3_ros.ros.diagnostics import Throttle

DIAGNOSTICS_PERIOD = 1.0
"""Seconds between two messages on /diagnostics."""

LOG_PERIOD = 10.0
"""Seconds in which the same message is logged only once."""


class Health:
    """Publishes the statuses of a node, and logs its problems."""

    def __init__(self, node: Node, statuses: Callable[[], list[DiagnosticStatus]]) -> None:
        """Start to publish.

        Args:
            node: that is reported on.
            statuses: is called once per message.
        """
        self._node = node
        self._statuses = statuses
        self._throttle = Throttle(LOG_PERIOD)
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        node.create_timer(
            DIAGNOSTICS_PERIOD,
            self._publish,
            MutuallyExclusiveCallbackGroup(),
            # Simulated time may stand still, health does not.
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )

    def status(
        self, part: str, hardware_id: str, level: bytes, text: str, values: Mapping[str, str]
    ) -> DiagnosticStatus:
        """Build the status of a part of the node; `level` is a constant of DiagnosticStatus."""
        return DiagnosticStatus(
            name=self.status_name(part),
            hardware_id=hardware_id,
            level=level,
            message=text,
            values=[KeyValue(key=key, value=value) for key, value in values.items()],
        )

    def status_name(self, part: str) -> str:
        """Return the name of the status of a part of the node."""
        # Nodes of one name in several namespaces share /diagnostics.
        return f"{self._node.get_fully_qualified_name().removeprefix('/')}: {part}"

    def warn(self, text: str, kind: str | None = None) -> None:
        """Log a warning, unless it was logged in the last `LOG_PERIOD` seconds.

        Args:
            text: of the warning.
            kind: warnings of one kind count as the same; the text itself if None.
        """
        if self._throttle.passes(kind or text):
            self._node.get_logger().warning(text)

    def error(self, error: Exception) -> str:
        """Log an error, unless it was logged in the last `LOG_PERIOD` seconds; return its text."""
        text = error_text(error)
        if self._throttle.passes(text):
            self._node.get_logger().error(error_report(error))
        return text

    def _publish(self) -> None:
        message = DiagnosticArray()
        message.header.stamp = self._node.get_clock().now().to_msg()
        try:
            message.status = self._statuses()
        except Exception as error:  # for example of an engine that cannot count its memory
            self.error(error)
            return
        self._publisher.publish(message)


def error_text(error: Exception) -> str:
    """Describe an error in one line."""
    if isinstance(error, Vlm3Error):
        return str(error)
    return f"{type(error).__name__}: {error}"


def error_report(error: Exception) -> str:
    """Describe an error for the log: with a traceback unless its text says what to do."""
    if isinstance(error, Vlm3Error):
        return str(error)
    return "".join(traceback.format_exception(error)).rstrip()
