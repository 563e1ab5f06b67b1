# SPDX-License-Identifier: Apache-2.0
"""Listens to a node: checks its answers as they arrive, and keeps its diagnostics."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.node import Node
from rclpy.qos import QoSProfile

from soak.camera import Sent


@dataclass(frozen=True)
class Answer:
    """An answer of the node: its frame, and when it arrived (monotonic clock)."""

    sent: Sent
    at: float


class Listener:
    """Checks that every answer is about a good frame, has its frame id, and keeps the order.

    Attributes:
        answers: on the first output.
        wrong: descriptions of wrong answers.
        problems: diagnostics other than OK: when they arrived (monotonic clock), and their texts.
        values: the newest diagnostic values by part of the node.
    """

    def __init__(
        self,
        node: Node,
        node_name: str,
        outputs: Mapping[str, type],
        sent: Mapping[int, Sent],
        frame_id: str | None,
        repeats: bool = False,
    ) -> None:
        """Subscribe.

        Args:
            node: with which to subscribe.
            node_name: of the node under test.
            outputs: topics of answers and their types; answers on the first one are kept.
            sent: all frames by their stamps, ns.
            frame_id: of the answers; None for that of the frames.
            repeats: whether a frame may be answered several times.
        """
        self.answers: list[Answer] = []
        self.wrong: list[str] = []
        self.problems: list[tuple[float, str]] = []
        self.values: dict[str, dict[str, str]] = {}
        self._sent = sent
        self._frame_id = frame_id
        self._repeats = repeats
        self._name = f"{node.get_namespace().removeprefix('/')}/{node_name}: "
        self._last: dict[str, int] = {}
        self._first = next(iter(outputs))
        for topic, kind in outputs.items():
            node.create_subscription(
                kind,
                topic,
                lambda message, t=topic: self._on_answer(t, message),
                QoSProfile(depth=50),
            )
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 50)

    def reported(self, pattern: str, since: float) -> str | None:
        """Return the first diagnostic text with a pattern since a moment (monotonic clock)."""
        problems = list(self.problems)
        return next((t for at, t in problems if at > since and re.search(pattern, t)), None)

    def _on_answer(self, topic: str, message: Any) -> None:
        header, at = message.header, time.monotonic()
        stamp = header.stamp.sec * 10**9 + header.stamp.nanosec
        sent = self._sent.get(stamp)
        if sent is None:
            self.wrong.append(f"{topic} has the stamp {stamp}, which no image has")
            return
        frame_id = self._frame_id or sent.frame_id
        if header.frame_id != frame_id:
            self.wrong.append(f"{topic} has the frame {header.frame_id!r}, not {frame_id!r}")
        if not sent.is_good:
            self.wrong.append(f"{topic} answers frame {sent.number}, which is broken")
        if sent.number is not None:
            if sent.number < self._last.get(topic, -1) + (not self._repeats):
                self.wrong.append(f"{topic} of frame {sent.number} after {self._last[topic]}")
            self._last[topic] = sent.number
        if topic == self._first:
            self.answers.append(Answer(sent, at))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        now = time.monotonic()
        for status in message.status:
            if not status.name.startswith(self._name):
                continue
            part = status.name.removeprefix(self._name)
            self.values[part] = {pair.key: pair.value for pair in status.values}
            if status.level != DiagnosticStatus.OK:
                self.problems.append((now, status.message))
