# SPDX-License-Identifier: Apache-2.0
"""Run nodes in the background of a program, or as a program."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from queue import SimpleQueue

import rclpy
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future

from vlm3_ros.parameters import ParameterError
from vlm3_ros.ros.ending import ending_in_time
from vlm3_ros.ros.executor import NodeExecutor


@contextmanager
def spinning(*nodes: Node, on_end: Callable[[int], None] = lambda status: None) -> Iterator[None]:
    """Spin nodes in the background while the body of the `with` runs.

    Args:
        nodes: one or more, of one context; they are not destroyed at the end.
        on_end: is called in the background: with 1 if a callback raised, with 0 if spinning ended
            in another way.
    """
    executor = NodeExecutor(context=nodes[0].context)
    for node in nodes:
        executor.add_node(node)
    # Executor.shutdown() while another thread spins may leave that thread waiting forever.
    body_ended: Future = Future()

    def spin() -> None:
        try:
            executor.spin_until(body_ended)
            status = 0
        except Exception:
            sys.excepthook(*sys.exc_info())
            status = 1
        on_end(status)

    spinner = threading.Thread(target=spin, name="executor")
    spinner.start()
    try:
        yield
    finally:
        body_ended.set_result(None)
        spinner.join()
        executor.shutdown()


def run_nodes(
    make_nodes: Callable[[Callable[[int], None]], Sequence[Node]],
    arguments: list[str] | None = None,
) -> int:
    """Run nodes until SIGINT or SIGTERM, or until one ends itself; the `main` of executables.

    rclpy's own signal handlers shut the context down at once, while callbacks still publish; here
    the nodes are destroyed first. A model that does not return within a few seconds is not waited
    for.

    Args:
        make_nodes: creates one or more nodes; its argument ends the run with an exit status.
        arguments: of the command line; sys.argv by default.

    Returns:
        The exit status: 1 if a node could not be created or a callback raised.
    """
    # Unlike an Event, a SimpleQueue may be used in signal handlers.
    statuses: SimpleQueue[int] = SimpleQueue()
    logger = get_logger("vlm3_ros")

    def say_late() -> None:
        logger.warning("a model does not return: the process ends without waiting for it")

    with ending_in_time(lambda: statuses.put(0), say_late) as begin_to_end:
        rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
        try:
            try:
                nodes = make_nodes(statuses.put)
            except ParameterError as error:
                logger.fatal(str(error))
                return 1
            with spinning(*nodes, on_end=statuses.put):
                status = statuses.get()
                begin_to_end(status)
            for node in nodes:
                node.destroy_node()
            return status
        finally:
            rclpy.try_shutdown()
