# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from vlm3_ros.ros.worker import QueueWorker


class Gate:
    """Work that waits for permission to finish, and records its items."""

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


def started(work: Callable[[int], None], room: int) -> QueueWorker[int]:
    worker = QueueWorker(work, lambda: room, name="test")
    worker.start()
    return worker


def stopped(worker: QueueWorker[int], gate: Gate) -> list[int]:
    gate.leave.release(100)
    worker.stop()
    return gate.frames


def test_the_newest_item_wins(gate):
    worker = started(gate, room=1)
    assert worker.put(1) is None
    gate.entered.acquire()  # the first item is in work, so there is room again
    assert [worker.put(frame) for frame in (2, 3, 4)] == [None, 2, 3]
    gate.leave.release()
    gate.entered.acquire()
    assert stopped(worker, gate) == [1, 4]


def test_items_wait_in_order_while_there_is_room(gate):
    worker = started(gate, room=3)
    worker.put(1)
    gate.entered.acquire()
    assert [worker.put(frame) for frame in (2, 3, 4, 5)] == [None, None, None, 2]
    gate.leave.release(3)
    for _ in range(3):
        gate.entered.acquire()
    assert stopped(worker, gate) == [1, 3, 4, 5]


def test_cleared_items_are_discarded(gate):
    worker = started(gate, room=3)
    worker.put(1)
    gate.entered.acquire()
    worker.put(2)
    assert worker.clear() == 1
    assert worker.clear() == 0
    worker.put(3)
    gate.leave.release()
    gate.entered.acquire()
    assert stopped(worker, gate) == [1, 3]


def test_stopping_finishes_the_current_item_and_leaves_no_thread(gate):
    before = threading.active_count()
    worker = started(gate, room=5)
    worker.put(1)
    gate.entered.acquire()
    worker.put(2)
    assert stopped(worker, gate) == [1]
    assert threading.active_count() == before


def test_stopping_an_idle_worker():
    before = threading.active_count()
    started(print, room=1).stop()
    assert threading.active_count() == before


def test_a_stopped_worker_starts_again_with_an_empty_queue(gate):
    worker = started(gate, room=2)
    worker.put(1)
    gate.entered.acquire()
    gate.leave.release()
    worker.stop()
    assert not worker.is_alive
    worker.put(2)  # too late
    worker.start()
    assert worker.is_alive
    worker.put(3)
    gate.entered.acquire()
    assert stopped(worker, gate) == [1, 3]


def test_the_room_is_read_at_each_start(gate):
    rooms = iter((1, 3))
    worker = QueueWorker(gate, lambda: next(rooms), name="test")
    for expected in ([None, 2, 3], [None, None, None]):
        worker.start()
        worker.put(1)
        gate.entered.acquire()
        assert [worker.put(item) for item in (2, 3, 4)] == expected
        gate.leave.release(100)
        worker.stop()
        gate.leave = threading.Semaphore(0)


def test_a_worker_that_never_started_can_be_stopped():
    worker = QueueWorker(print, lambda: 1, name="test")
    worker.stop()
    assert worker.clear() == 0
