# SPDX-License-Identifier: Apache-2.0
"""Plays a rosbag2 or ROS 1 bag with /clock, without an installation of rosbag2: the node."""

from __future__ import annotations

import importlib
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from rosgraph_msgs.msg import Clock
from typing_extensions import override

from vlm3_ros.bags.reading import IMAGE_TYPES, Bag, Topic, open_bag
from vlm3_ros.errors import BagError
from vlm3_ros.parameters import ParameterError, ParameterTable, parameter
from vlm3_ros.paths import sample_bag
from vlm3_ros.ros.parameter_changes import apply_change, judge_change
from vlm3_ros.ros.parameters import declare_parameters
from vlm3_ros.ros.running import run_nodes

_TICK = 0.02
"""Seconds between two messages on /clock, as `ros2 bag play --clock 50`."""

_SETTLED = 0.5
"""Seconds without a new subscription after which discovery counts as finished."""

_ACKNOWLEDGED = Duration(seconds=5)
"""Time limit for the arrival of the last messages."""


@dataclass(frozen=True)
class PlayerParameters(ParameterTable):
    """Parameters of the bag player."""

    bag: str = parameter(
        "",
        "A rosbag2 folder, an .mcap, .db3 or ROS 1 .bag file; empty for the sample bag.",
        changes="start",
    )
    rate: float = parameter(1.0, "How fast to play; 1 is real time.", minimum=1e-3, maximum=1e3)
    loop: bool = parameter(False, "Start again at the end.")
    paused: bool = parameter(False, "Pause; may be set at start.")
    wait_for_subscribers: bool = parameter(
        True,
        "Start when somebody subscribes to an image (to any topic, in a bag without images).",
        changes="start",
    )


class BagPlayer(Node):
    """Publishes the messages of a bag as recorded, with their own stamps, at their own times.

    Publishers:
        every topic of the bag, remappable: reliable (REP-2003), depth 10; latched topics such as
            /tf_static transient local. A topic whose type cannot be read or whose message package
            is missing is left out.
        /clock (rosgraph_msgs/Clock): the time of the recording, for nodes with use_sim_time

    Parameters: `PlayerParameters`. Ends at the end of the bag.
    """

    parameters: PlayerParameters

    def __init__(
        self, end: Callable[[int], None] = lambda status: None, **node_arguments: Any
    ) -> None:
        """Open the bag and start to play it, in a thread of its own.

        Args:
            end: is called once, in that thread: with 0 at the end of the bag, with 1 if the bag is
                damaged.
            node_arguments: of rclpy.node.Node.

        Raises:
            ParameterError: if a parameter has a wrong value, or the bag cannot be played.
        """
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._bags = ExitStack()
        super().__init__("bag_player", **node_arguments)
        self.parameters = declare_parameters(self, PlayerParameters)
        self.add_on_set_parameters_callback(self._judge_parameters)
        self.add_post_set_parameters_callback(self._apply_parameters)
        self._end = end
        path = Path(self.parameters.bag or sample_bag())
        try:
            self._bag = self._bags.enter_context(open_bag(path))
            self._outputs = self._create_outputs(self._bag)
        except BagError as error:
            raise ParameterError(f"parameter 'bag': {error}") from None
        self._clock_output = self.create_publisher(Clock, "/clock", 10)
        self._thread = threading.Thread(target=self._run, name=f"{self.get_name()} player")
        self._thread.start()

    @override
    def destroy_node(self) -> None:
        self._stop.set()
        if self._thread:
            self._thread.join()
        self._bags.close()
        super().destroy_node()

    def _create_outputs(self, bag: Bag) -> dict[str, Publisher]:
        outputs: dict[str, Publisher] = {}
        for name, reason in bag.left_out.items():
            self.get_logger().warning(f"{name} is left out: {reason}")
        for topic in bag.topics.values():
            if not topic.count or topic.name == "/clock":
                continue
            try:
                outputs[topic.name] = self.create_publisher(
                    _message_class(topic.type),
                    topic.name,
                    _qos(topic),
                    qos_overriding_options=QoSOverridingOptions.with_default_policies(),
                )
            except (ImportError, AttributeError):
                self.get_logger().warning(
                    f"{topic.name} is left out: {topic.type} is not installed"
                )
        if not outputs:
            raise BagError(f"{bag.path}: nothing to play; {bag.contents()}")
        return outputs

    def _judge_parameters(self, parameters: Iterable[Parameter]) -> SetParametersResult:
        return judge_change(self.parameters, parameters, is_configured=True)

    def _apply_parameters(self, parameters: Iterable[Parameter]) -> None:
        self.parameters = apply_change(self.parameters, parameters)

    def _run(self) -> None:
        try:
            if self.parameters.wait_for_subscribers:
                self._wait_for_subscribers()
            while True:
                self._play()
                if self._stop.is_set() or not self.parameters.loop:
                    break
            for output in self._outputs.values():
                if not self._stop.is_set():
                    output.wait_for_all_acked(_ACKNOWLEDGED)
        except BagError as error:
            self.get_logger().error(str(error))
            self._end(1)
            return
        self._end(0)

    def _wait_for_subscribers(self) -> None:
        images = {topic.name for topic in self._bag.topics_of_type(*IMAGE_TYPES)}
        awaited = [o for name, o in self._outputs.items() if name in images]
        awaited = awaited or list(self._outputs.values())
        names = " or ".join(output.topic_name for output in awaited)
        self.get_logger().info(f"waiting for a subscriber to {names}")
        count, since = 0, time.monotonic()
        while not self._stop.wait(_TICK):
            now_count = sum(output.get_subscription_count() for output in self._outputs.values())
            if now_count != count:
                count, since = now_count, time.monotonic()
            settled = time.monotonic() - since >= _SETTLED
            if settled and any(output.get_subscription_count() for output in awaited):
                return

    def _play(self) -> None:
        """Play the bag once, unless stopped."""
        self.get_logger().info(f"playing {self._bag.path}")
        count = 0
        position = float(self._bag.start_ns)
        moment = time.monotonic()
        for message in self._bag.serialized(list(self._outputs)):
            while True:
                now, before = time.monotonic(), moment
                moment = now
                if not self.parameters.paused:
                    position += (now - before) * self.parameters.rate * 1e9
                left = (message.stamp_ns - position) / 1e9 / self.parameters.rate
                if left <= 0:
                    break
                self._publish_clock(int(position))
                if self._stop.wait(_TICK if self.parameters.paused else min(left, _TICK)):
                    return
            if self._stop.is_set():
                return
            self._publish_clock(message.stamp_ns)
            self._outputs[message.topic].publish(message.cdr)
            count += 1
        self.get_logger().info(f"played {count} messages")

    def _publish_clock(self, nanoseconds: int) -> None:
        message = Clock()
        message.clock.sec, message.clock.nanosec = divmod(nanoseconds, 1_000_000_000)
        self._clock_output.publish(message)


def _message_class(type_name: str) -> type:
    package, kind, name = type_name.split("/")
    return getattr(importlib.import_module(f"{package}.{kind}"), name)


def _qos(topic: Topic) -> QoSProfile:
    if topic.latched or topic.name.endswith("tf_static"):
        # A late subscriber gets the transforms of all broadcasters.
        return QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    return QoSProfile(depth=10)


def main(arguments: list[str] | None = None) -> int:
    """Run the node: `ros2 run vlm3_ros bag_player --ros-args -p bag:=FOLDER`."""
    return run_nodes(lambda end: [BagPlayer(end)], arguments)


if __name__ == "__main__":
    sys.exit(main())
