# SPDX-License-Identifier: Apache-2.0
"""A node in a process of its own, with a camera before it and a listener behind it."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from geometry_msgs.msg import Point, PointStamped
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.client import Client
from rclpy.context import Context
from rclpy.node import Node

from soak.camera import Camera, drive_views
from soak.listener import Listener
from soak.process import Process, node_command
from soak.waiting import Loss, wait_for
from vlm3_ros.ros.running import spinning

SIZE = (256, 192)
"""Width and height of the images, px."""

_numbers = itertools.count()
_LOG_HEAD = re.compile(r"^\[\w+\] \[[\d.]+\] \[[\w.]+\]: ")


@dataclass(frozen=True)
class Setup:
    """Which node, and how.

    Attributes:
        node: executable, and name of the node.
        outputs: topics of answers and their types; the first is the one that counts.
        parameters: of the node.
        frame_id: of the answers; None for that of the images.
        rate: of the camera, Hz.
        is_compressed: whether the camera compresses.
        is_simulated: whether the camera's clock is that of the node (use_sim_time).
        is_clicked: whether somebody clicks on the newest image, as often as there is one.
    """

    node: str
    outputs: Mapping[str, type]
    parameters: Mapping[str, object] = field(default_factory=dict)
    frame_id: str | None = None
    rate: float = 20.0
    is_compressed: bool = False
    is_simulated: bool = False
    is_clicked: bool = False


class Stage:
    """What faults act on. See `staged`."""

    def __init__(self, setup: Setup, peer: Node, log: Path) -> None:
        self.setup = setup
        self.peer = peer
        self.log = log
        self.namespace = peer.get_namespace()
        self.camera = Camera(
            peer,
            drive_views(*SIZE),
            setup.rate,
            is_compressed=setup.is_compressed,
            is_simulated=setup.is_simulated,
        )
        self.listener = Listener(
            peer,
            setup.node,
            setup.outputs,
            self.camera.sent,
            setup.frame_id,
            repeats=setup.is_clicked,
        )
        if setup.is_clicked:
            click = PointStamped(point=Point(x=SIZE[0] / 2, y=SIZE[1] / 2))
            clicks = peer.create_publisher(PointStamped, "clicked_pixel", 10)
            peer.create_timer(1 / setup.rate, lambda: clicks.publish(click))
        self.node = self.start_node()

    def start_node(self) -> Process:
        """Start the node, which must not run."""
        parameters = {
            "use_sim_time": self.setup.is_simulated,
            "image_transport": "compressed" if self.setup.is_compressed else "raw",
            **self.setup.parameters,
        }
        command = node_command(self.setup.node, parameters, {"__ns": self.namespace})
        # Its log files would count as files of a full disk.
        command += ["--disable-external-lib-logs"]
        self.node = Process(self.setup.node, command, self.log)
        return self.node

    def renew_node(self) -> None:
        """Another process, in whatever state this one is; returns when it answers."""
        self.node.kill()
        self.start_node()
        self.wait_for_answer(time.monotonic())

    def wait_for_answer(self, since: float) -> float:
        """Seconds from a moment (monotonic clock) to the first answer about a later frame."""
        answers, found = self.listener.answers, 0.0

        def answered() -> bool:
            nonlocal found
            for answer in reversed(answers):
                if answer.at <= since:
                    break
                if answer.sent.at > since:
                    found = answer.at
            if not self.node.is_running:
                raise Loss(f"{self.node.name} has ended")
            return bool(found)

        wait_for(answered, "an answer")
        return found - since

    def said(self, pattern: str, since: float, first_line: int) -> str:
        """What was said with a pattern since a moment, on /diagnostics or in the log; or nothing.

        Args:
            pattern: of the text.
            since: moment (monotonic clock) of the first diagnostics.
            first_line: of the log, counted from 0.
        """
        lines = (_LOG_HEAD.sub("", line) for line in self.node.lines[first_line:])
        told = (line for line in lines if re.search(pattern, line))
        return self.listener.said(pattern, since) or next(told, "")

    def call(self, service: str, kind: Any, request: Any) -> Any:
        """Call a service of the node.

        Raises:
            Loss: when it does not answer.
        """
        client: Client[Any, Any] = self.peer.create_client(kind, f"{self.setup.node}/{service}")
        try:
            wait_for(client.service_is_ready, f"service {service}")
            future = client.call_async(request)
            wait_for(future.done, f"an answer of service {service}")
            return future.result()
        finally:
            self.peer.destroy_client(client)

    def change_state(self, label: str, number: int = 0) -> bool:
        """Ask for a transition; whether it was made."""
        request = ChangeState.Request()
        request.transition.label, request.transition.id = label, number
        return bool(self.call("change_state", ChangeState, request).success)

    def state(self) -> str:
        """The node's state of life."""
        return str(self.call("get_state", GetState, GetState.Request()).current_state.label)

    def close(self) -> float:
        """End the node and the camera; the seconds that the node took.

        Raises:
            Loss: when the node does not end well.
        """
        self.camera.stop()
        return self.node.stop()


@contextmanager
def staged(setup: Setup, logs: Path, name: str) -> Iterator[Stage]:
    """A stage; whatever happens, no process is left.

    Args:
        setup: of the node.
        logs: folder.
        name: of the log.
    """
    with ExitStack() as cleanup:
        context = Context()
        context.init()
        cleanup.callback(context.try_shutdown)
        peer = Node("soak", namespace=f"/soak{next(_numbers)}", context=context)
        cleanup.callback(peer.destroy_node)
        cleanup.enter_context(spinning(peer))
        stage = Stage(setup, peer, logs / f"{name}.log")
        try:
            stage.wait_for_answer(time.monotonic())
            yield stage
        finally:
            stage.camera.stop()
            stage.node.kill()
