# SPDX-License-Identifier: Apache-2.0
"""A node in its own process, between a camera and a listener."""

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
    """The node under test, and its camera.

    Attributes:
        node: executable, and name of the node.
        outputs: topics of answers and their types; answers on the first one are counted.
        parameters: of the node.
        frame_id: of the answers; None for the frame id of the images.
        rate: of the camera, Hz.
        is_compressed: whether the camera sends compressed images.
        is_simulated: whether the node uses the camera's clock (use_sim_time).
        is_clicked: whether a user clicks on the newest image, at the rate of the camera.
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
    """A node with its camera and its listener, for faults to act on. See `staged`."""

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
        """Start the node; it must not be running."""
        parameters = {
            "use_sim_time": self.setup.is_simulated,
            "image_transport": "compressed" if self.setup.is_compressed else "raw",
            **self.setup.parameters,
        }
        command = node_command(self.setup.node, parameters, {"__ns": self.namespace})
        # Its log files would hit the limit on file sizes, too.
        command += ["--disable-external-lib-logs"]
        self.node = Process(self.setup.node, command, self.log)
        return self.node

    def renew_node(self) -> None:
        """Replace the node, in any state, by a new process, and wait until it answers."""
        self.node.kill()
        self.start_node()
        self.wait_for_answer(time.monotonic())

    def wait_for_answer(self, since: float) -> float:
        """Return the seconds from a moment to the first answer about a later frame.

        Args:
            since: the moment (monotonic clock).

        Raises:
            Loss: if the node ends, or does not answer in time.
        """
        answers, answered_at = self.listener.answers, 0.0

        def answered() -> bool:
            nonlocal answered_at
            for answer in reversed(answers):
                if answer.at <= since:
                    break
                if answer.sent.at > since:
                    answered_at = answer.at
            if not self.node.is_running:
                raise Loss(f"{self.node.name} has ended")
            return bool(answered_at)

        wait_for(answered, "an answer")
        return answered_at - since

    def reported(self, pattern: str, since: float, first_line: int) -> str:
        """Return the first message with a pattern, on /diagnostics or in the log; empty if none.

        Args:
            pattern: of the text.
            since: moment (monotonic clock) of the first diagnostics.
            first_line: of the log, counted from 0.
        """
        lines = (_LOG_HEAD.sub("", line) for line in self.node.lines[first_line:])
        logged = (line for line in lines if re.search(pattern, line))
        return self.listener.reported(pattern, since) or next(logged, "")

    def call(self, service: str, kind: Any, request: Any) -> Any:
        """Call a service of the node.

        Raises:
            Loss: if it does not answer.
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
        """Request a transition; return whether it succeeded."""
        request = ChangeState.Request()
        request.transition.label, request.transition.id = label, number
        return bool(self.call("change_state", ChangeState, request).success)

    def state(self) -> str:
        """Return the node's lifecycle state."""
        return str(self.call("get_state", GetState, GetState.Request()).current_state.label)

    def close(self) -> float:
        """Stop the camera and the node; return the seconds that the node needed.

        Raises:
            Loss: if the node does not end, or ends with an error.
        """
        self.camera.stop()
        return self.node.stop()


@contextmanager
def staged(setup: Setup, logs: Path, name: str) -> Iterator[Stage]:
    """Set up a stage; no process is left at the end, even after an error.

    Args:
        setup: of the node.
        logs: folder for the log.
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
