# SPDX-License-Identifier: Apache-2.0
"""What a node tells about its health: counts of frames, and diagnostic_msgs from them."""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

RATE_WINDOW = 10.0
"""Seconds over which the rate is counted."""

LATENCY_WINDOW = 100
"""Frames over which the percentiles of the latency are taken."""


@dataclass(frozen=True)
class FrameReport:
    """What became of the frames since the node was activated; durations in seconds.

    A frame that was received is answered, failed (no answer could be given), dropped (a newer one
    took its place before the model was free), skipped (nobody listened, no camera was known yet,
    or time jumped back), or still waits. `unread` counts the questions whose answers could not be
    read.
    """

    received: int = 0
    answered: int = 0
    failed: int = 0
    dropped: int = 0
    skipped: int = 0
    questions: int = 0
    unread: int = 0
    asked_in_last: int = 0
    unread_in_last: int = 0
    arrived: float | None = None
    """When the newest frame came in, on the clock of the statistics."""
    age: float | None = None
    """From the stamp of the newest answered frame to its answers going out."""
    fault: str | None = None
    """Why the newest failed frame failed."""
    is_failing: bool = False
    """Whether no frame has been answered since."""
    rate: float = 0.0
    latency_p50: float | None = None
    latency_p95: float | None = None

    def values(self) -> dict[str, str]:
        """The key-value pairs of a diagnostic status."""
        values = {
            f"frames {name}": str(getattr(self, name))
            for name in ("received", "answered", "failed", "dropped", "skipped")
        }
        values |= self.speed()
        values["questions"] = str(self.questions)
        values["unread answers"] = str(self.unread)
        values["last error"] = self.fault or ""
        return values

    def speed(self) -> dict[str, str]:
        """Of these, the pairs about time."""
        values = {"rate (Hz)": f"{self.rate:.2f}"}
        if self.latency_p50 is not None and self.latency_p95 is not None:
            values["latency p50 (ms)"] = f"{self.latency_p50 * 1e3:.1f}"
            values["latency p95 (ms)"] = f"{self.latency_p95 * 1e3:.1f}"
        if self.age is not None:
            values["frame age (s)"] = f"{self.age:.3f}"
        return values


@dataclass
class FrameStatistics:
    """Collects a `FrameReport`. Safe between threads."""

    clock: Callable[[], float] = time.monotonic
    _report: FrameReport = field(default_factory=FrameReport)
    _answers: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=1000))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def reset(self) -> None:
        """Begin anew."""
        with self._lock:
            self._report = FrameReport()
            self._answers.clear()

    def received(self) -> None:
        """A frame came in."""
        with self._lock:
            self._count(received=1)
            self._report = replace(self._report, arrived=self.clock())

    def dropped(self) -> None:
        """A frame left for a newer one."""
        with self._lock:
            self._count(dropped=1)

    def skipped(self) -> None:
        """A frame was not worked on, and need not have been."""
        with self._lock:
            self._count(skipped=1)

    def failed(self, text: str) -> None:
        """A frame could not be answered."""
        with self._lock:
            self._count(failed=1)
            self._report = replace(self._report, fault=text, is_failing=True)

    def answered(self, latency: float, age: float, questions: int, unread: int) -> None:
        """A frame's answers went out.

        Args:
            latency: seconds from message in to message out.
            age: seconds from the frame's stamp to message out, on the node's clock.
            questions: how many were asked.
            unread: how many answers could not be read.
        """
        with self._lock:
            self._count(answered=1, questions=questions, unread=unread)
            self._report = replace(
                self._report,
                age=age,
                asked_in_last=questions,
                unread_in_last=unread,
                is_failing=False,
            )
            self._answers.append((self.clock(), latency))

    def report(self) -> FrameReport:
        """The state of things."""
        with self._lock:
            report, now = self._report, self.clock()
            times, latencies = np.array(self._answers).reshape(-1, 2).T
        if not len(times):
            return report
        p50, p95 = np.percentile(latencies[-LATENCY_WINDOW:], (50, 95))
        rate = np.count_nonzero(times > now - RATE_WINDOW) / RATE_WINDOW
        return replace(report, rate=rate, latency_p50=float(p50), latency_p95=float(p95))

    def _count(self, **more: int) -> None:
        counts = {name: getattr(self._report, name) + n for name, n in more.items()}
        self._report = replace(self._report, **counts)


class Throttle:
    """Lets each text pass once in a period, whatever numbers it has. Safe between threads."""

    def __init__(self, period: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._period = period
        self._clock = clock
        self._lock = threading.Lock()
        self._passed: dict[str, float] = {}

    def passes(self, text: str) -> bool:
        """Whether this text has not passed for a period; if so, it passes now."""
        text = re.sub(r"\d+", "#", text)
        with self._lock:
            now = self._clock()
            self._passed = {t: at for t, at in self._passed.items() if now - at < self._period}
            if text in self._passed:
                return False
            self._passed[text] = now
            return True


def diagnostic_status(
    name: str, hardware_id: str, level: bytes, text: str, values: Mapping[str, str]
) -> DiagnosticStatus:
    """A diagnostic_msgs/DiagnosticStatus; `level` is one of its constants."""
    return DiagnosticStatus(
        name=name,
        hardware_id=hardware_id,
        level=level,
        message=text,
        values=[KeyValue(key=key, value=value) for key, value in values.items()],
    )
