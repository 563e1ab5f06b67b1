"""The demo's ROS side: a bag is played into the depth node over DDS, its answers are recorded."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from numpy.typing import NDArray
from rclpy.context import Context
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2

from vlm3_ros.bags.reading import Bag, header_stamp_ns
from vlm3_ros.bags.topics import RgbdTopics, base_topic
from vlm3_ros.engines.settings import EngineSettings
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.ros.cameras import lens_from_message
from vlm3_ros.ros.images import rgb_from_message
from vlm3_ros.ros.running import spinning

_NAMESPACE = "/vlm3_demo"
_STATUS = f"{_NAMESPACE[1:]}/depth_node"
_START_PATIENCE = 600.0
"""Seconds that a model may take to load."""
_LAST_PATIENCE = 120.0
"""Seconds that the answers about the last frames may take."""


class DemoError(RuntimeError):
    """A demo that cannot go on; the message says why and names the log."""


@dataclass(frozen=True)
class DemoSettings:
    """What is played, how fast (1 is real time), into which model, and where logs go."""

    bag: Path
    topics: RgbdTopics
    model: EngineSettings
    columns: int
    rows: int
    rate: float
    logs: Path


@dataclass(frozen=True)
class RecordedFrame:
    """What the node published about one image.

    `depth`: depth/image_rect, shape (rows, columns), metres, NaN where unanswered. `latency`:
    seconds from the arrival of the image here to that of the cloud; NaN where the image was not
    seen here.
    """

    stamp_ns: int
    depth: NDArray[np.float32]
    latency: float


@dataclass(frozen=True)
class Recording:
    """The answered frames in the order of their stamps, and the node's own count of failures."""

    frames: tuple[RecordedFrame, ...]
    failed: int


def run_demo(
    settings: DemoSettings, progress: Callable[[int], None] = lambda played: None
) -> Recording:
    """Start the depth node in a process of its own, play the bag, record what comes back.

    Everything runs in a ROS domain of its own on this machine only, so that no robot on the
    network is disturbed.

    Args:
        settings: of the run.
        progress: told how many images have been played.

    Raises:
        DemoError: when the node or the player dies, or the model cannot be loaded.
    """
    # Read by the middleware of this process and of those that it starts.
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    node_log, player_log = settings.logs / "depth_node.log", settings.logs / "bag_player.log"
    with (
        _recorder(settings.topics) as recorder,
        _Process("depth node", _node_command(settings), node_log) as node,
    ):
        _wait(recorder.is_node_ready, "the depth node to be ready", _START_PATIENCE, node)
        with _Process("bag player", _player_command(settings), player_log) as player:

            def has_played() -> bool:
                progress(recorder.images_seen)
                return player.has_ended()

            _wait(has_played, "the end of the bag", math.inf, node)
        _wait(recorder.is_settled, "the last answers", _LAST_PATIENCE, node)
        return recorder.recording()


def frame_images(bag: Bag, topic: str, stamps_ns: Collection[int]) -> dict[int, NDArray[np.uint8]]:
    """The images of a bag with these header stamps, RGB, shape (height, width, 3), uint8.

    Raises:
        BagError: when the bag is damaged.
        MessageError: when one of these images is.
    """
    images = {}
    for message in bag.serialized([topic]):
        image: Image | CompressedImage = deserialize_message(message.cdr, _image_type(topic))
        stamp = header_stamp_ns(image)
        if stamp in stamps_ns:
            images[stamp] = rgb_from_message(image)
    return images


def bag_camera(bag: Bag, topic: str) -> PinholeCamera:
    """The rectified camera that the first CameraInfo of a topic describes.

    Raises:
        BagError: when the bag is damaged.
        GeometryError: when the camera is not calibrated.
    """
    first = next(bag.serialized([topic]))
    return lens_from_message(deserialize_message(first.cdr, CameraInfo)).rectified


class _Recorder(Node):
    """Listens to the images and to all that the node makes of them."""

    def __init__(self, topics: RgbdTopics, context: Context) -> None:
        super().__init__("demo_recorder", namespace=_NAMESPACE, context=context)
        self._image_topic = topics.image
        self._lock = threading.Lock()
        self._seen: dict[int, float] = {}
        self._depths: dict[int, NDArray[np.float32]] = {}
        self._clouds: dict[int, float] = {}
        self._statuses: dict[str, DiagnosticStatus] = {}
        self._settled = 0
        many = QoSProfile(depth=1000)
        for message_type, topic, callback in (
            (_image_type(topics.image), topics.image, self._on_image),
            (Image, "depth/image_rect", self._on_depth),
            (PointCloud2, "points", self._on_points),
            (DiagnosticArray, "/diagnostics", self._on_diagnostics),
        ):
            self.create_subscription(message_type, topic, callback, many)

    @property
    def images_seen(self) -> int:
        """How many images came by."""
        return len(self._seen)

    def is_node_ready(self) -> bool:
        """Whether the node listens to the images, and this recorder hears the node.

        Raises:
            DemoError: when the node cannot load its model.
        """
        model = self._statuses.get(f"{_STATUS}: model")
        if model and model.level == DiagnosticStatus.ERROR:
            raise DemoError(f"the depth node has no model: {model.message}")
        listeners = self.count_subscribers(self._image_topic)  # one of them is this recorder
        return model is not None and listeners > 1 and self.count_publishers("points") > 0

    def is_settled(self) -> bool:
        """Whether the node has done with all images that it received."""
        return self._settled >= 2

    def recording(self) -> Recording:
        """What has been heard."""
        with self._lock:
            frames = tuple(
                RecordedFrame(
                    stamp,
                    self._depths[stamp],
                    # A busy machine may let an image go by unseen.
                    arrival - self._seen.get(stamp, math.nan),
                )
                for stamp, arrival in sorted(self._clouds.items())
                if stamp in self._depths
            )
        return Recording(frames, self._frame_counts().get("failed", 0))

    def _on_image(self, message: Image | CompressedImage) -> None:
        with self._lock:
            self._seen[header_stamp_ns(message)] = time.monotonic()

    def _on_depth(self, message: Image) -> None:
        depth = np.frombuffer(message.data, np.float32).reshape(message.height, message.width)
        with self._lock:
            self._depths[header_stamp_ns(message)] = depth

    def _on_points(self, message: PointCloud2) -> None:
        with self._lock:
            self._clouds[header_stamp_ns(message)] = time.monotonic()

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        before = self._frame_counts()
        self._statuses.update({status.name: status for status in message.status})
        now = self._frame_counts()
        done = sum(now.get(name, 0) for name in ("answered", "failed", "dropped", "skipped"))
        quiet = now == before and done == now.get("received")
        self._settled = self._settled + 1 if quiet else 0

    def _frame_counts(self) -> dict[str, int]:
        status = self._statuses.get(f"{_STATUS}: frames")
        prefix = "frames "
        return {
            pair.key.removeprefix(prefix): int(pair.value)
            for pair in (status.values if status else ())
            if pair.key.startswith(prefix)
        }


class _Process:
    """A program with a log, which is asked to end when the `with` block is left."""

    def __init__(self, name: str, command: Sequence[str], log: Path) -> None:
        self.name = name
        self.log = log
        with log.open("wb") as output:
            # A session of its own: Ctrl-C reaches this process first, which then ends it in order.
            self._process = subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "ROS_DOMAIN_ID": str(_domain_id())},
            )

    def __enter__(self) -> _Process:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def has_ended(self) -> bool:
        """Whether it has ended well.

        Raises:
            DemoError: when it has failed.
        """
        status = self._process.poll()
        if status:
            last = self.log.read_text(errors="replace").strip().splitlines()[-1:]
            raise DemoError(
                f"the {self.name} ended with status {status}: {''.join(last)} (see {self.log})"
            )
        return status == 0


@contextmanager
def _recorder(topics: RgbdTopics) -> Iterator[_Recorder]:
    """A spinning recorder in the demo's domain."""
    context = Context()
    context.init(domain_id=_domain_id())
    recorder = _Recorder(topics, context)
    try:
        with spinning(recorder):
            yield recorder
    finally:
        recorder.destroy_node()
        context.try_shutdown()


def _domain_id() -> int:
    """A ROS domain that this process has for itself; Linux leaves the ports of 1 to 101 free."""
    return 1 + os.getpid() % 101


def _wait(condition: Callable[[], bool], what: str, patience: float, node: _Process) -> None:
    end = time.monotonic() + patience
    while not condition():
        if node.has_ended():
            raise DemoError(f"the {node.name} ended too early (see {node.log})")
        if time.monotonic() > end:
            raise DemoError(f"waited {patience:.0f} s for {what} (see {node.log})")
        time.sleep(0.1)


def _node_command(settings: DemoSettings) -> list[str]:
    topics = settings.topics
    parameters = {
        **asdict(settings.model),
        "grid_columns": settings.columns,
        "grid_rows": settings.rows,
        "image_transport": "compressed" if _is_compressed(topics.image) else "raw",
        "use_sim_time": True,
    }
    remaps = {
        "__ns": _NAMESPACE,
        "image": base_topic(topics.image),
        "camera_info": topics.camera_info,
    }
    return _ros_command("depth_node", parameters, remaps)


def _player_command(settings: DemoSettings) -> list[str]:
    parameters = {"bag": str(settings.bag), "rate": settings.rate}
    return _ros_command("bag_player", parameters, {})


def _ros_command(
    module: str, parameters: Mapping[str, object], remaps: Mapping[str, str]
) -> list[str]:
    command = [sys.executable, "-m", f"vlm3_ros.nodes.{module}", "--ros-args"]
    for name, value in parameters.items():
        # JSON is YAML, and keeps a text a text.
        command += ["-p", f"{name}:={json.dumps(value)}"]
    for name, topic in remaps.items():
        command += ["-r", f"{name}:={topic}"]
    return command


def _is_compressed(topic: str) -> bool:
    return base_topic(topic) != topic


def _image_type(topic: str) -> type:
    return CompressedImage if _is_compressed(topic) else Image
