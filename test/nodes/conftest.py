# SPDX-License-Identifier: Apache-2.0
"""A camera, a node under test and a listener, over DDS in one process."""

from __future__ import annotations

import io
import itertools
import re
import sys
import threading
import time
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.srv import ChangeState, GetState
from numpy.typing import NDArray
from PIL import Image as Pillow
from rcl_interfaces.msg import Log
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_msgs.msg import Header

from vlm3_ros.engines.base import Answer, Engine, Profile
from vlm3_ros.geometry.camera import ImageLimits, PinholeCamera
from vlm3_ros.language.prompts import load_prompt_set
from vlm3_ros.language.wordings.depth import DepthWording, depth_answer
from vlm3_ros.messages.cameras import _same_camera, camera_info_message
from vlm3_ros.nodes.depth_node import DepthNode
from vlm3_ros.nodes.query_node import QueryNode
from vlm3_ros.ros.diagnostics import FrameReport, FrameStatistics
from vlm3_ros.ros.model_handle import EngineLoader
from vlm3_ros.ros.node import CameraModelNode
from vlm3_ros.ros.running import spinning

PATIENCE = 600.0
"""Seconds until a wait fails: never reached by a test that passes, even on a busy machine."""

FRAME = "camera_optical_frame"

# Its focal length and size are the engine's, so that its pictures enter as they are.
CAMERA = PinholeCamera(320, 256, 300.0, 300.0, 150.0, 130.0)

OUTPUTS = {
    "points": PointCloud2,
    "depth/image_rect": Image,
    "depth/camera_info": CameraInfo,
    "depth_registered/image_rect": Image,
    "depth_registered/camera_info": CameraInfo,
}


@dataclass
class WallEngine:
    """An engine for tests of nodes: it sees a wall that recedes to the right.

    It reads the true question, and answers with the true wording of the vlm3 prompts.
    """

    name: str = "wall"
    profile: Profile = field(
        default_factory=lambda: Profile(CAMERA.fx, "scale", load_prompt_set("vlm3"))
    )
    limits: ImageLimits = field(default_factory=lambda: ImageLimits(32, 1024, 2**24))
    images: list[NDArray[np.uint8]] = field(default_factory=list)
    unread: int = 0
    """Number of its answers that are not numbers."""
    fault: Exception | None = None
    is_closed: bool = False
    warning: str | None = None
    gate: threading.Semaphore | None = None
    """If it is set, every call of `ask` acquires it."""
    entered: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def ask(
        self,
        images: Sequence[NDArray[np.uint8]],
        questions: Sequence[str],
        answer_template: str | None = None,
    ) -> list[Answer]:
        self.images.append(images[0])
        self.entered.release()
        if self.gate:
            self.gate.acquire()
        if self.fault:
            raise self.fault
        answers = []
        for question in questions:
            x = int(re.search(r"\((\d+), \d+\)", question).group(1))
            answers.append(
                Answer(
                    depth_answer(self.profile.prompts[DepthWording], wall_depth(x)),
                    std=0.25,
                )
            )
        return [Answer("somewhere over there")] * self.unread + answers[self.unread :]

    def memory_bytes(self) -> int | None:
        return 123_000_000

    def close(self) -> None:
        self.is_closed = True


def wall_depth(text_x: float) -> float:
    """Metres at a text coordinate of 0 to 1999."""
    return 1 + np.floor(text_x / 100) / 4


def picture(camera: PinholeCamera = CAMERA, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth noise: no two places look the same."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 10, 3))
    rows = np.linspace(0, 7, camera.height).astype(int)
    columns = np.linspace(0, 9, camera.width).astype(int)
    return coarse[rows][:, columns].astype(np.uint8)


def header(stamp: float, frame_id: str = FRAME) -> Header:
    seconds, fraction = divmod(stamp, 1)
    return Header(stamp=Time(sec=int(seconds), nanosec=round(fraction * 1e9)), frame_id=frame_id)


def stamp_of(message: object) -> float:
    return round(message.header.stamp.sec + message.header.stamp.nanosec / 1e9, 6)


def rgb_message(stamp: float, rgb: NDArray[np.uint8] | None = None, frame_id: str = FRAME) -> Image:
    rgb = picture() if rgb is None else rgb
    height, width = rgb.shape[:2]
    message = Image(
        header=header(stamp, frame_id), height=height, width=width, encoding="rgb8", step=3 * width
    )
    message.data = array("B", rgb.tobytes())
    return message


def png_message(stamp: float, rgb: NDArray[np.uint8] | None = None) -> CompressedImage:
    buffer = io.BytesIO()
    Pillow.fromarray(picture() if rgb is None else rgb).save(buffer, "PNG")
    message = CompressedImage(header=header(stamp), format="rgb8; png compressed bgr8")
    message.data = array("B", buffer.getvalue())
    return message


def now() -> float:
    """The present time as a stamp, rounded to microseconds."""
    return round(time.time(), 6)


def small_depth_node(parameter_overrides: list[Parameter], **arguments: object) -> DepthNode:
    """A depth node with few pixels by default."""
    few = [Parameter("grid_columns", value=4), Parameter("grid_rows", value=3)]
    return DepthNode(parameter_overrides=[*few, *parameter_overrides], **arguments)


def wait_until(condition: Callable[[], object], what: str, state: Callable[[], str]) -> None:
    """Wait for an event; `state` describes the situation if it does not happen."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen; {state()}"
        time.sleep(0.005)


class Rig:
    """A node under test with a camera and a listener, spinning in the background."""

    def __init__(
        self,
        namespace: str,
        engine: Engine | None,
        *,
        parameters: dict[str, object] | None = None,
        loader: EngineLoader | None = None,
        make_node: Callable[..., CameraModelNode] = small_depth_node,
        outputs: Mapping[str, type] = OUTPUTS,
        listen: Sequence[str] | None = None,
        image_type: type = Image,
        image_topic: str = "image",
        qos: QoSProfile | None = None,
        remaps: Sequence[str] = (),
        qos_overrides: dict[tuple[str, str, str], object] | None = None,
    ) -> None:
        self.namespace = namespace
        self.outputs = outputs
        self.received: dict[str, list] = {topic: [] for topic in outputs}
        self.statuses: list[DiagnosticStatus] = []
        arguments = {"engine_loader": loader} if loader else {}
        if engine is not None:
            arguments["engine_loader"] = lambda settings, progress: engine
        values = dict(parameters or {})
        for (topic, entity, policy), value in (qos_overrides or {}).items():
            values[f"qos_overrides.{namespace}/{topic}.{entity}.{policy}"] = value
        remap_arguments = [part for remap in remaps for part in ("-r", remap)]
        self.node = make_node(
            namespace=namespace,
            cli_args=["--ros-args", *remap_arguments] if remaps else None,
            parameter_overrides=[Parameter(name, value=value) for name, value in values.items()],
            **arguments,
        )
        self.peer = Node("peer", namespace=namespace)
        qos = qos or QoSProfile(depth=20)
        self.probe = rgb_message(now()) if image_type is Image else png_message(now())
        self.image = self.peer.create_publisher(image_type, image_topic, qos)
        self.camera_info = self.peer.create_publisher(CameraInfo, "camera_info", qos)
        self.peer.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 20)
        self.log: list[Log] = []
        history = QoSProfile(depth=1000, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.peer.create_subscription(Log, "/rosout", self.log.append, history)
        for topic in outputs if listen is None else listen:
            self.listen(topic)
        self._spinning = spinning(self.node, self.peer)
        self._spinning.__enter__()

    def listen(self, topic: str) -> None:
        """Subscribe to an output."""
        self.peer.create_subscription(
            self.outputs[topic], topic, self.received[topic].append, QoSProfile(depth=50)
        )

    def wait(self, condition: Callable[[], object], what: str) -> None:
        """Wait for an event."""
        wait_until(
            condition,
            what,
            lambda: str({status.name: status.message for status in self.statuses[-8:]}),
        )

    def send_until(
        self, send: Callable[[], None], condition: Callable[[], object], what: str
    ) -> None:
        """Send once per second until an event happens."""
        sent = [-1.0]

        def happened() -> bool:
            if condition():
                return True
            if time.monotonic() - sent[0] > 1:
                send()
                sent[0] = time.monotonic()
            return False

        self.wait(happened, what)

    def wait_active(self) -> None:
        """Wait until the node is active and all its endpoints are discovered."""
        self.wait(lambda: self.image.get_subscription_count(), "subscription to the image")
        self.wait(lambda: self.camera_info.get_subscription_count(), "subscription to camera_info")
        for topic in self.outputs:
            if self.peer.count_subscribers(topic):
                self.wait(lambda t=topic: self.peer.count_publishers(t), f"publisher of {topic}")
        self.wait(self.node.has_listeners, "discovery of the listener")
        # A best effort reader also misses what is sent before it has discovered the writer. So send
        # frames without CameraInfo, which the node skips, until one arrives.
        self.send_until(
            lambda: self.image.publish(self.probe), lambda: self.report().received, "a first image"
        )
        self.wait(lambda: self.report().received == self.report().skipped, "end of the probes")
        self.statistics.reset()

    def send(self, message: Image | CompressedImage, info: CameraInfo | None = None) -> None:
        """Send an image after its CameraInfo (CAMERA's by default)."""
        self.send_info(info or camera_info_message(message.header, CAMERA))
        self.image.publish(message)

    def send_good(self) -> float:
        """Send a good frame; return its stamp."""
        stamp = now()
        self.send(rgb_message(stamp))
        return stamp

    def send_counted(self) -> float:
        """Send a good frame and wait for its arrival; return its stamp."""
        before = self.report().received
        stamp = self.send_good()
        self.wait(lambda: self.report().received > before, "arrival of the frame")
        return stamp

    def send_info(self, info: CameraInfo) -> None:
        """Send a CameraInfo and wait for its arrival: topics may overtake each other."""
        known = self.node.camera.calibrations._calibrations
        self.send_until(
            lambda: self.camera_info.publish(info),
            lambda: known and _same_camera(known[-1].message, info),
            "camera_info",
        )

    def stamps(self, topic: str) -> list[float]:
        """Stamps of all messages of an output, in the order of arrival."""
        return [stamp_of(message) for message in self.received[topic]]

    def wait_for_stamp(self, stamp: float, topic: str = "points") -> None:
        self.wait(lambda: stamp in self.stamps(topic), f"{topic} of {stamp}")

    def status(self, part: str) -> DiagnosticStatus | None:
        """The newest status of a part of this node."""
        name = f"{self.namespace.removeprefix('/')}/{self.node.get_name()}: {part}"
        return next((s for s in reversed(self.statuses) if s.name == name), None)

    @property
    def statistics(self) -> FrameStatistics:
        """Statistics of the node's frames, or of its questions."""
        is_query_node = isinstance(self.node, QueryNode)
        return (self.node.questions if is_query_node else self.node.frames).statistics

    def report(self) -> FrameReport:
        """The counts that the next diagnostics will report."""
        return self.statistics.report()

    def value(self, key: str, part: str = "frames") -> str | None:
        """A value of the newest status of a part."""
        status = self.status(part)
        return (
            next((pair.value for pair in status.values if pair.key == key), None)
            if status
            else None
        )

    def log_lines(self, pattern: str) -> list[str]:
        """The node's messages on /rosout that match a pattern."""
        name = f"{self.namespace.removeprefix('/')}.{self.node.get_name()}"
        return [line.msg for line in self.log if line.name == name and re.search(pattern, line.msg)]

    def set_clock(self, seconds: float) -> None:
        """Set the simulated time, and wait until the node has it."""
        publisher = self.peer.create_publisher(Clock, "/clock", 1)
        self.wait(publisher.get_subscription_count, "subscription to /clock")
        message = Clock(clock=header(seconds).stamp)
        clock = self.node.get_clock()
        self.send_until(
            lambda: publisher.publish(message),
            lambda: clock.now().to_msg() == message.clock,
            "simulated time",
        )
        self.peer.destroy_publisher(publisher)

    def wait_for_status(self, part: str, level: bytes, text: str) -> DiagnosticStatus:
        """Wait until the newest status has a level and a text that matches a pattern."""

        def matches() -> bool:
            status = self.status(part)
            return bool(status and status.level == level and re.search(text, status.message))

        self.wait(matches, f"a status of {part} with level {level!r} and text {text!r}")
        return self.status(part)

    def call(self, service: str, kind: type, request: object) -> object:
        """Call a service of the node."""
        client = self.peer.create_client(kind, f"{self.node.get_name()}/{service}")
        try:
            self.wait(client.service_is_ready, f"service {service}")
            future = client.call_async(request)
            self.wait(future.done, f"an answer of {service}")
            return future.result()
        finally:
            self.peer.destroy_client(client)

    def change_state(self, label: str) -> bool:
        request = ChangeState.Request()
        request.transition.label = label
        return self.call("change_state", ChangeState, request).success

    def state(self) -> str:
        return self.call("get_state", GetState, GetState.Request()).current_state.label

    def set_parameters(self, **values: object) -> object:
        parameters = [Parameter(n, value=v).to_parameter_msg() for n, v in values.items()]
        request = SetParametersAtomically.Request(parameters=parameters)
        return self.call("set_parameters_atomically", SetParametersAtomically, request).result

    def close(self) -> None:
        for engine in self.node.model.engines.values():
            # A test that failed has not opened it, and the node waits for its model.
            gate = getattr(engine, "gate", None)
            if isinstance(gate, threading.Semaphore):
                gate.release(1000)
            elif isinstance(gate, threading.Event):
                gate.set()
        self._spinning.__exit__(None, None, None)
        self.node.destroy_node()
        self.peer.destroy_node()

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        self.statuses.extend(message.status)


_numbers = itertools.count()


@pytest.fixture
def bench() -> ModuleType:
    """This module."""
    return sys.modules[__name__]


@pytest.fixture
def make_rig(ros: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Rig]]:
    monkeypatch.setattr("vlm3_ros.ros.health.DIAGNOSTICS_PERIOD", 0.1)
    rigs: list[Rig] = []

    def make(engine: Engine | None = None, **options: object) -> Rig:
        rigs.append(Rig(f"/rig{next(_numbers)}", engine, **options))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.close()
