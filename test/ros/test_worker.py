# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import threading

import pytest

from vlm3_ros.ros.worker import FrameWorker


class Gate:
    """Work that waits until it is let through, and remembers what came."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.leave = threading.Semaphore(0)
        self.frames: list[int] = []

    def __call__(self, frame: int) -> None:
        self.frames.append(frame)
        self.entered.release()
        self.leave.acquire()


@pytest.fixture
def gate():
    return Gate()


def stopped(worker: FrameWorker[int], gate: Gate) -> list[int]:
    gate.leave.release(100)
    worker.stop()
    return gate.frames


def test_newest_frame_wins(gate):
    worker = FrameWorker(gate, room=1, name="test")
    assert worker.put(1) is None
    gate.entered.acquire()  # the first is being worked on: the slot is free again
    assert [worker.put(frame) for frame in (2, 3, 4)] == [None, 2, 3]
    gate.leave.release()
    gate.entered.acquire()
    assert stopped(worker, gate) == [1, 4]


def test_frames_wait_in_order_while_there_is_room(gate):
    worker = FrameWorker(gate, room=3, name="test")
    worker.put(1)
    gate.entered.acquire()
    assert [worker.put(frame) for frame in (2, 3, 4, 5)] == [None, None, None, 2]
    gate.leave.release(3)
    for _ in range(3):
        gate.entered.acquire()
    assert stopped(worker, gate) == [1, 3, 4, 5]


def test_cleared_frames_are_forgotten(gate):
    worker = FrameWorker(gate, room=3, name="test")
    worker.put(1)
    gate.entered.acquire()
    worker.put(2)
    assert worker.clear() == 1
    assert worker.clear() == 0
    worker.put(3)
    gate.leave.release()
    gate.entered.acquire()
    assert stopped(worker, gate) == [1, 3]


def test_stopping_finishes_the_frame_at_hand_and_leaves_no_thread(gate):
    before = threading.active_count()
    worker = FrameWorker(gate, room=5, name="test")
    worker.put(1)
    gate.entered.acquire()
    worker.put(2)
    assert stopped(worker, gate) == [1]
    assert threading.active_count() == before


def test_stopping_an_idle_worker():
    before = threading.active_count()
    FrameWorker(print, room=1, name="test").stop()
    assert threading.active_count() == before
