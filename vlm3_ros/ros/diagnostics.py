# SPDX-License-Identifier: Apache-2.0
"""Counts of what a node does with its frames, and a filter for repeated log messages."""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from numpy.typing import NDArray

RATE_WINDOW = 10.0
"""Seconds over which the rate is averaged; fewer until the first answer is that old."""

LATENCY_WINDOW = 100
"""Frames over which the percentiles of the latency are computed."""


@dataclass(frozen=True)
class FrameReport:
    """Counts of frames since the node was activated; durations in seconds.

    A received frame is answered, failed (no answer could be given), dropped (replaced by a newer
    one before the model was free), skipped (nobody listened, the camera was not known yet, or time
    jumped back), or still waits. `unread` counts the questions whose answers could not be read.
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
    """When the newest frame arrived, on the clock of the statistics."""
    age: float | None = None
    """From the stamp of the newest answered frame until its answers were published."""
    fault: str | None = None
    """Why the newest failed frame failed."""
    is_failing: bool = False
    """Whether no frame has been answered since the newest failure."""
    rate: float = 0.0
    latency_p50: float | None = None
    latency_p95: float | None = None

    def values(self) -> dict[str, str]:
        """Return the key-value pairs of a diagnostic status."""
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
        """Return the pairs about time."""
        values = {"rate (Hz)": f"{self.rate:.2f}"}
        if self.latency_p50 is not None and self.latency_p95 is not None:
            values["latency p50 (ms)"] = f"{self.latency_p50 * 1e3:.1f}"
            values["latency p95 (ms)"] = f"{self.latency_p95 * 1e3:.1f}"
        if self.age is not None:
            values["frame age (s)"] = f"{self.age:.3f}"
        return values

    def newest_fault(self) -> list[tuple[bytes, str]]:
        """Return the newest failure as a warning, level and text; empty if answers came since."""
        return [(DiagnosticStatus.WARN, self.fault)] if self.is_failing and self.fault else []


@dataclass
class FrameStatistics:
    """Collects a `FrameReport`. Thread-safe."""

    clock: Callable[[], float] = time.monotonic
    _report: FrameReport = field(default_factory=FrameReport)
    _answers: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=1000))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def reset(self) -> None:
        """Set all counts to zero."""
        with self._lock:
            self._report = FrameReport()
            self._answers.clear()

    def received(self) -> None:
        """Count a frame that arrived."""
        with self._lock:
            self._count(received=1)
            self._report = replace(self._report, arrived=self.clock())

    def dropped(self) -> None:
        """Count a frame that a newer one replaced."""
        with self._lock:
            self._count(dropped=1)

    def skipped(self) -> None:
        """Count a frame skipped on purpose."""
        with self._lock:
            self._count(skipped=1)

    def failed(self, text: str) -> None:
        """Count a frame that could not be answered; `text` says why."""
        with self._lock:
            self._count(failed=1)
            self._report = replace(self._report, fault=text, is_failing=True)

    def answered(self, latency: float, age: float, questions: int, unread: int) -> None:
        """Count a frame whose answers were published.

        Args:
            latency: seconds from the arrival of the image to the publication.
            age: seconds from the frame's stamp to the publication, on the node's clock.
            questions: number of questions asked.
            unread: number of answers that could not be read.
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
        """Return the present counts."""
        with self._lock:
            report, now = self._report, self.clock()
            times, latencies = np.array(self._answers).reshape(-1, 2).T
        if not len(times):
            return report
        p50, p95 = np.percentile(latencies[-LATENCY_WINDOW:], (50, 95))
        return replace(
            report, rate=_rate(times, now), latency_p50=float(p50), latency_p95=float(p95)
        )

    def _count(self, **more: int) -> None:
        counts = {name: getattr(self._report, name) + n for name, n in more.items()}
        self._report = replace(self._report, **counts)


def _rate(times: NDArray[np.float64], now: float) -> float:
    """Return the answers per second over `RATE_WINDOW`, or since the first one if that is less.

    The first one is that after the last pause of such a length, as while nobody subscribed.
    """
    pauses = np.flatnonzero(np.diff(times) >= RATE_WINDOW)
    recent = times[pauses[-1] + 1 :] if len(pauses) else times
    since_first = now - recent[0]
    if len(recent) > 1 and 0 < since_first < RATE_WINDOW:
        return float((len(recent) - 1) / since_first)
    return float(np.count_nonzero(times > now - RATE_WINDOW) / RATE_WINDOW)


class Throttle:
    """Passes each text once per period, whatever its numbers. Thread-safe."""

    def __init__(self, period: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._period = period
        self._clock = clock
        self._lock = threading.Lock()
        self._passed: dict[str, float] = {}

    def passes(self, text: str) -> bool:
        """Whether the text passes now: it has not passed within the last period."""
        text = re.sub(r"\d+", "#", text)
        with self._lock:
            now = self._clock()
            self._passed = {t: at for t, at in self._passed.items() if now - at < self._period}
            if text in self._passed:
                return False
            self._passed[text] = now
            return True
