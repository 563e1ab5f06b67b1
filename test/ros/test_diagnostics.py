# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlm3_ros.ros.diagnostics import FrameStatistics, Throttle


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_counts_and_fault(clock):
    statistics = FrameStatistics(clock)
    for _ in range(5):
        statistics.received()
    statistics.dropped()
    statistics.skipped()
    statistics.failed("/image: broken")
    report = statistics.report()
    assert (report.received, report.dropped, report.skipped, report.failed) == (5, 1, 1, 1)
    assert report.arrived == clock.now
    assert report.is_failing
    assert report.fault == "/image: broken"
    statistics.answered(latency=0.5, age=0.7, questions=12, unread=2)
    report = statistics.report()
    assert not report.is_failing
    assert report.fault == "/image: broken"
    assert (report.answered, report.questions, report.unread, report.unread_in_last) == (
        1,
        12,
        2,
        2,
    )
    assert report.age == 0.7
    statistics.answered(latency=0.5, age=0.7, questions=12, unread=0)
    assert (statistics.report().unread, statistics.report().unread_in_last) == (2, 0)


def test_before_the_first_frame():
    report = FrameStatistics().report()
    assert report.arrived is None
    assert report.latency_p50 is None
    assert report.rate == 0
    assert report.values()["last error"] == ""
    assert "latency p50 (ms)" not in report.values()


@given(latencies=st.lists(st.floats(0.001, 10), min_size=1, max_size=100))
def test_percentiles_are_those_of_the_latencies(latencies):
    statistics = FrameStatistics(Clock())
    for latency in latencies:
        statistics.answered(latency, 0.0, 1, 0)
    report = statistics.report()
    in_order = np.sort(latencies)
    assert in_order[0] <= report.latency_p50 <= report.latency_p95 <= in_order[-1]
    assert np.count_nonzero(in_order <= report.latency_p50 + 1e-12) >= len(latencies) / 2
    assert report.values()["latency p95 (ms)"] == f"{report.latency_p95 * 1e3:.1f}"


def test_rate_counts_the_last_ten_seconds(clock):
    statistics = FrameStatistics(clock)
    for _ in range(40):
        clock.now += 0.5
        statistics.answered(0.1, 0.1, 1, 0)
    assert statistics.report().rate == pytest.approx(2.0)
    clock.now += 5
    assert statistics.report().rate == pytest.approx(1.0)
    clock.now += 60
    assert statistics.report().rate == 0


@pytest.mark.parametrize("seconds", [1, 2, 5, 9])
def test_rate_of_the_first_seconds(clock, seconds):
    """5 Hz are 5 Hz from the second answer on, not only after ten seconds."""
    statistics = FrameStatistics(clock)
    for _ in range(5 * seconds):
        clock.now += 0.2
        statistics.answered(0.1, 0.1, 1, 0)
    assert statistics.report().rate == pytest.approx(5.0)
    clock.now += 60
    assert statistics.report().rate == 0


def test_rate_of_the_first_seconds_after_a_pause(clock):
    """As when somebody subscribes again."""
    statistics = FrameStatistics(clock)
    for pause in (0.0, 30.0):
        clock.now += pause
        for _ in range(6):
            clock.now += 0.2
            statistics.answered(0.1, 0.1, 1, 0)
    assert statistics.report().rate == pytest.approx(5.0)


def test_reset_forgets(clock):
    statistics = FrameStatistics(clock)
    fresh = statistics.report()
    statistics.received()
    statistics.answered(0.1, 0.1, 3, 1)
    statistics.failed("broken")
    statistics.reset()
    assert statistics.report() == fresh


def test_counts_of_several_threads_add_up():
    statistics = FrameStatistics()

    def count() -> None:
        for _ in range(500):
            statistics.received()
            statistics.answered(0.1, 0.1, 2, 1)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    report = statistics.report()
    assert (report.received, report.answered, report.questions) == (2000, 2000, 4000)


def test_throttle_passes_each_text_once_in_a_period(clock):
    throttle = Throttle(10, clock)
    assert [throttle.passes(text) for text in ("a", "b", "a", "b")] == [True, True, False, False]
    clock.now += 9
    assert not throttle.passes("a")
    clock.now += 1
    assert throttle.passes("a")
    assert not throttle.passes("a")


def test_throttle_ignores_numbers(clock):
    throttle = Throttle(10, clock)
    assert throttle.passes("dropped 3 of 10 frames")
    assert not throttle.passes("dropped 4 of 12 frames")
    assert throttle.passes("dropped 4 of 12 pictures")
