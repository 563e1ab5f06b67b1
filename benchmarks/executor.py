# SPDX-License-Identifier: Apache-2.0
"""How much speed a node's executor costs a model in the same process.

    python benchmarks/executor.py [--seconds 5] [--rate 100]

Two threads load Python as a small model does: many short calls that release its lock and take it
again. Meanwhile a node with a few topics receives messages at a steady rate. The benchmark prints
the calls per second without a node, with a node under rclpy's MultiThreadedExecutor, and with a
node under the package's executor; the last two also as a share of the first.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import numpy as np
from rclpy.context import Context
from rclpy.executors import MultiThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from std_msgs.msg import Int32

from vlm3_ros.ros.running import spinning

THREADS, TOPICS = 2, 10
SIDE = 96
"""Of the matrices: a product takes tens of microseconds."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--rate", type=float, default=100.0, help="messages a second")
    options = parser.parse_args()
    alone = calls_per_second(options.seconds)
    print(f"{'without a node':24} {alone:9.0f} calls/s")
    for name, spin in (("MultiThreadedExecutor", multi_threaded), ("NodeExecutor", spinning)):
        heard: list[int] = []
        with fed_node(options.rate, heard) as node, spin(node):
            rate = calls_per_second(options.seconds)
        print(f"{name:24} {rate:9.0f} calls/s, {rate / alone:.2f}; {len(heard)} messages heard")


def calls_per_second(seconds: float) -> float:
    """Matrix products per second, summed over all threads."""
    end = time.monotonic() + seconds
    counts = [0] * THREADS

    def work(index: int) -> None:
        matrix = np.ones((SIDE, SIDE), np.float32)
        while time.monotonic() < end:
            np.dot(matrix, matrix)
            counts[index] += 1

    threads = [threading.Thread(target=work, args=(index,)) for index in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / seconds


@contextmanager
def fed_node(rate: float, heard: list[int]) -> Iterator[Node]:
    """A node that receives its own messages in a context of its own."""
    context = Context()
    context.init()
    node = Node("listener", context=context)
    qos = QoSProfile(depth=1)
    for index in range(TOPICS):
        node.create_subscription(Int32, f"number_{index}", lambda m: heard.append(m.data), qos)
    node.create_timer(1 / rate, lambda: None)
    sender = node.create_publisher(Int32, "number_0", qos)
    node.create_timer(1 / rate, lambda: sender.publish(Int32(data=1)))
    try:
        yield node
    finally:
        node.destroy_node()
        context.try_shutdown()


@contextmanager
def multi_threaded(node: Node) -> Iterator[None]:
    """Spin a node by rclpy's executor with three threads."""
    executor = MultiThreadedExecutor(num_threads=3, context=node.context)
    executor.add_node(node)
    spinner = threading.Thread(target=executor.spin)
    spinner.start()
    with nullcontext():
        yield
    executor.shutdown()
    spinner.join()


if __name__ == "__main__":
    main()
