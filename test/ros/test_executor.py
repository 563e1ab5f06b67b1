# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

pytest.importorskip("rclpy")

from rclpy.context import Context
from rclpy.node import Node
from rclpy.qos import QoSProfile
from std_msgs.msg import Int32

from vlm3_ros.ros.executor import SlowCallbackGroup
from vlm3_ros.ros.running import spinning

PATIENCE = 600.0


@pytest.fixture
def node() -> Iterator[Node]:
    context = Context()
    context.init()
    node = Node("executor_test", context=context)
    yield node
    node.destroy_node()
    context.try_shutdown()


def test_a_slow_callback_blocks_only_its_own_group(node: Node) -> None:
    release, slow, fast, second = (threading.Event() for _ in range(4))
    calls = []

    def wait() -> None:
        timer.cancel()
        slow.set()
        assert release.wait(PATIENCE)
        calls.append("slow")

    def follow() -> None:
        follower.cancel()
        calls.append("second")
        second.set()

    group = SlowCallbackGroup()
    timer = node.create_timer(0.0, wait, group)
    with spinning(node):
        assert slow.wait(PATIENCE)
        follower = node.create_timer(0.0, follow, group)
        ticks = iter(range(20))

        def tick() -> None:
            if next(ticks, None) is None:
                fast.set()

        node.create_timer(0.005, tick)
        assert fast.wait(PATIENCE)
        assert not second.is_set()
        release.set()
        assert second.wait(PATIENCE)
    assert calls == ["slow", "second"]


def test_each_message_is_received_once_while_another_thread_holds_the_gil(node: Node) -> None:
    heard: list[int] = []
    everything, is_over = threading.Event(), threading.Event()

    def hear(message: Int32) -> None:
        heard.append(message.data)
        if len(heard) == 500:
            everything.set()

    def hog() -> None:
        while not is_over.is_set():
            sum(range(1000))

    qos = QoSProfile(depth=1000)
    node.create_subscription(Int32, "number", hear, qos)
    publisher = node.create_publisher(Int32, "number", qos)
    hogs = [threading.Thread(target=hog) for _ in range(2)]
    for thread in hogs:
        thread.start()
    try:
        with spinning(node):
            for number in range(500):
                publisher.publish(Int32(data=number))
            assert everything.wait(PATIENCE)
    finally:
        is_over.set()
        for thread in hogs:
            thread.join()
    assert heard == list(range(500))


@pytest.mark.parametrize("group", [None, SlowCallbackGroup()], ids=["fast", "slow"])
def test_a_callback_that_raises_ends_spinning(
    node: Node, group: SlowCallbackGroup | None, capsys: pytest.CaptureFixture[str]
) -> None:
    statuses: list[int] = []
    ended = threading.Event()

    def end(status: int) -> None:
        statuses.append(status)
        ended.set()

    def fail() -> None:
        raise RuntimeError("on purpose")

    timer = node.create_timer(0.01, lambda: (timer.cancel(), fail()), group)
    with spinning(node, on_end=end):
        assert ended.wait(PATIENCE)
    assert statuses == [1]
    assert "on purpose" in capsys.readouterr().err


def test_the_end_of_the_context_ends_spinning(node: Node) -> None:
    statuses: list[int] = []
    ended = threading.Event()
    with spinning(node, on_end=lambda status: (statuses.append(status), ended.set())):
        node.context.shutdown()
        assert ended.wait(PATIENCE)
    assert statuses == [0]
