# SPDX-License-Identifier: Apache-2.0
"""Play a bag in real time into the real nodes over DDS, and record what they publish.

The nodes are those of perception_node, which share models.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import Point, PointStamped, PoseStamped
from nav_msgs.msg import Odometry
from numpy.typing import NDArray
from rclpy.context import Context
from rclpy.node import Node
from rclpy.qos import QoSProfile
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CompressedImage, Image, PointCloud2
from std_msgs.msg import String

from vlm3_ros.bags.topics import base_topic
from vlm3_ros.engines.settings import ModelSettings
from vlm3_ros.errors import Vlm3Error
from vlm3_ros.evaluation.bag.answers import BagAnswers, Click
from vlm3_ros.geometry.calibration_files import GivenCamera
from vlm3_ros.geometry.motion import Transform
from vlm3_ros.messages.classes import stamp_nanoseconds
from vlm3_ros.messages.motions import pose_from_message
from vlm3_ros.ros.running import spinning
from vlm3_ros.tasks.queries import Pixel

DEPTH_NODE, POSE_NODE, QUERY_NODE = "depth_node", "pose_node", "query_node"

_NAMESPACE = "/vlm3_replay"
_NO_TOPIC = f"{_NAMESPACE}/no_camera_info"
_OUTPUTS = {DEPTH_NODE: "points", POSE_NODE: "pose"}
"""First output of each node that answers a stream of frames."""
_ALL_OUTPUTS = {**_OUTPUTS, QUERY_NODE: "answer"}
_START_PATIENCE = 600.0
"""Seconds within which a model must load."""
_LAST_PATIENCE = 120.0
"""Seconds within which the last frames must be answered."""


class ReplayError(Vlm3Error):
    """A replay that cannot continue; the text says why and names the log."""


@dataclass(frozen=True)
class ReplaySettings:
    """The bag, its speed, and the parameters of the nodes.

    Attributes:
        bag: path.
        image, camera_info: topics of the bag; `camera_info` is None if `camera` is given.
        models: which the nodes share.
        T_base_camera: pose of the optical frame on the base, shape (4, 4), metres.
        columns, rows: of the grid of pixels whose depth is asked.
        speed: 1 is real time.
        logs: folder of the logs of the processes.
        unified_focal: see depth_node.
        is_rectified: whether the image topic is rectified already.
        camera: instead of the bag's CameraInfo; None for that.
        clicks: pixels (u, v) of the last image, clicked after the last answers.
    """

    bag: Path
    image: str
    camera_info: str | None
    models: ModelSettings
    T_base_camera: Transform
    columns: int
    rows: int
    speed: float
    logs: Path
    unified_focal: float = 0.0
    is_rectified: bool = False
    camera: GivenCamera | None = None
    clicks: tuple[Pixel, ...] = ()


@dataclass(frozen=True)
class Recording:
    """What the nodes published, by the stamps of the images in nanoseconds.

    Attributes:
        depths: depth/image_rect, shape (rows, columns), metres, NaN where unanswered.
        poses: T_odom_base, shape (4, 4), metres.
        starts: stamps at which a chain of poses starts: without a twist, so not on `odom`.
        latency: seconds from the arrival of an image at the recorder to the arrival of the answer
            (cloud, pose), by node; NaN if the recorder missed the image.
        frames: each node's own counts of frames: received, answered, failed, dropped, skipped.
        steps: pose_node's own counts of images by odometry status.
        unable: why a node has no model, by node.
        clicks: the clicked pixels with their answers.
        errors: why the newest failed frame of a node failed, by node.
    """

    depths: dict[int, NDArray[np.float32]]
    poses: dict[int, Transform]
    starts: set[int]
    latency: dict[str, dict[int, float]]
    frames: dict[str, dict[str, int]]
    steps: dict[str, int]
    unable: dict[str, str] = field(default_factory=dict)
    clicks: list[Click] = field(default_factory=list)
    errors: dict[str, str] = field(default_factory=dict)


def run_replay(
    settings: ReplaySettings, progress: Callable[[int], None] = lambda played: None
) -> Recording:
    """Start the nodes in a process of their own, play the bag, and record the answers.

    Everything runs in a ROS domain of its own on this machine, so no robot on the network is
    disturbed. With a model that did not learn relative pose, pose_node stays unconfigured.

    Args:
        settings: of the run.
        progress: is called with the number of images played so far.

    Raises:
        ReplayError: if a node or the player dies, or the model of depth cannot be loaded.
    """
    # Read by the middleware of this process and of its children.
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    node_log, player_log = settings.logs / "perception_node.log", settings.logs / "bag_player.log"
    with (
        _recorder(settings) as recorder,
        _Process("perception node", _node_command(settings), node_log) as node,
    ):
        _wait(recorder.are_nodes_ready, "the nodes to be ready", _START_PATIENCE, node)
        with _Process("bag player", _player_command(settings), player_log) as player:

            def has_played() -> bool:
                progress(recorder.images_seen)
                return player.has_ended()

            _wait(has_played, "the end of the bag", math.inf, node)
        _wait(recorder.is_settled, "the last answers", _LAST_PATIENCE, node)
        recording = recorder.recording()
        if QUERY_NODE not in recording.unable:
            for pixel in settings.clicks:
                recorder.click(pixel)
                _wait(recorder.has_click_answer, "the answer to a click", _LAST_PATIENCE, node)
                recording.clicks.append(recorder.clicked(pixel))
        return recording


def recorded_answers(recording: Recording, played: int) -> BagAnswers:
    """Convert a recording into answers that can be scored.

    Args:
        recording: of a replay.
        played: number of images of the bag.
    """
    tasks = {DEPTH_NODE: "depth", POSE_NODE: "pose"}
    unpublished = (
        "nodes publish no raw answers about pairs: evaluate without real time to score them"
    )
    unable = recording.unable.get(POSE_NODE)
    left_out = {"pose": unable or unpublished, "correspondence": unable or unpublished}
    if unable:
        left_out["odometry"] = left_out["trajectory"] = unable
    working = [node for node in tasks if node not in recording.unable]
    refused = sum(recording.steps.get(status, 0) for status in ("refused", "skipped"))
    counts = recording.frames
    answered = {DEPTH_NODE: len(recording.depths), POSE_NODE: len(recording.latency[POSE_NODE])}
    return BagAnswers(
        frames=played,
        answered=sorted({*recording.depths, *recording.poses}),
        failed=Counter(
            {
                f"{n}: {recording.errors.get(n, 'see its log')}": c
                for n in working
                if (c := counts[n].get("failed", 0))
            }
        ),
        dropped={tasks[n]: _dropped(played, answered[n], counts[n]) for n in working},
        depths={stamp: depth.ravel() for stamp, depth in recording.depths.items()},
        odom=recording.poses,
        starts=recording.starts,
        steps=Counter(recording.steps),
        refusals=Counter({f"{POSE_NODE}: see its log": refused} if refused else {}),
        resets=[f"{POSE_NODE}: see its log"] * recording.steps.get("reset", 0),
        latency={tasks[n]: list(recording.latency[n].values()) for n in working},
        left_out=left_out,
        clicks=recording.clicks,
    )


def _dropped(played: int, published: int, counts: Mapping[str, int]) -> int:
    """Number of images that newer ones replaced, in the node or on the way to it."""
    done = max(published, counts.get("answered", 0)) + counts.get("failed", 0)
    return max(0, played - done)


class _Recorder(Node):
    """Listens to the images and to all outputs of the nodes."""

    def __init__(self, settings: ReplaySettings, context: Context) -> None:
        super().__init__("replay_recorder", namespace=_NAMESPACE, context=context)
        self._image_topic = settings.image
        self._lock = threading.Lock()
        self._seen: dict[int, float] = {}
        self._depths: dict[int, NDArray[np.float32]] = {}
        self._poses: dict[int, Transform] = {}
        self._moved: set[int] = set()
        self._arrivals: dict[str, dict[int, float]] = {node: {} for node in _OUTPUTS}
        self._statuses: dict[str, DiagnosticStatus] = {}
        self._settled = dict.fromkeys(_OUTPUTS, 0)
        self._click_answer: dict[str, Any] | None = None
        self._clicked_point: PointStamped | None = None
        self._clicked_pixel = self.create_publisher(PointStamped, "clicked_pixel", 5)
        many = QoSProfile(depth=1000)
        for message_type, topic, callback in (
            (_image_type(settings.image), settings.image, self._on_image),
            (Image, "depth/image_rect", self._on_depth),
            (PointCloud2, _OUTPUTS[DEPTH_NODE], self._on_points),
            (PoseStamped, _OUTPUTS[POSE_NODE], self._on_pose),
            (Odometry, "odom", self._on_odom),
            (String, _ALL_OUTPUTS[QUERY_NODE], self._on_answer),
            (PointStamped, "clicked_point", self._on_clicked_point),
            (DiagnosticArray, "/diagnostics", self._on_diagnostics),
        ):
            self.create_subscription(message_type, topic, callback, many)

    @property
    def images_seen(self) -> int:
        """Number of images received here."""
        return len(self._seen)

    def are_nodes_ready(self) -> bool:
        """Whether all nodes with a model subscribe to the images and publish to this recorder.

        Raises:
            ReplayError: if the model of depth cannot be loaded.
        """
        unable = self._unable()
        if DEPTH_NODE in unable:
            raise ReplayError(f"the depth node has no model: {unable[DEPTH_NODE]}")
        working = [node for node in _ALL_OUTPUTS if node not in unable]
        listeners = self.count_subscribers(self._image_topic)  # one of them is this recorder
        return listeners > len(working) and all(
            self._status(node, "model") is not None and self.count_publishers(_ALL_OUTPUTS[node])
            for node in working
        )

    def click(self, pixel: Pixel) -> None:
        """Click a pixel of the newest image. The previous click must be answered."""
        self._click_answer = self._clicked_point = None
        self._clicked_pixel.publish(PointStamped(point=Point(x=pixel[0], y=pixel[1])))

    def has_click_answer(self) -> bool:
        """Whether the click has its answer and, unless it was refused, its point."""
        answer = self._click_answer
        return answer is not None and (answer["status"] != "ok" or self._clicked_point is not None)

    def clicked(self, pixel: Pixel) -> Click:
        """Return the click on a pixel with its answer, which must have arrived."""
        answer, message = self._click_answer, self._clicked_point
        assert answer is not None
        if message is None:
            return Click(pixel, None, np.full(3, np.nan), None, answer["reason"])
        point = np.array([message.point.x, message.point.y, message.point.z])
        return Click(pixel, stamp_nanoseconds(message.header), point, answer["uncertainty"], "")

    def is_settled(self) -> bool:
        """Whether the nodes are finished with all images that they received."""
        unable = self._unable()
        return all(count >= 2 for node, count in self._settled.items() if node not in unable)

    def recording(self) -> Recording:
        """Return what was recorded so far."""
        with self._lock:
            latency = {
                # On a busy machine the recorder may miss an image.
                node: {s: at - self._seen.get(s, math.nan) for s, at in sorted(arrivals.items())}
                for node, arrivals in self._arrivals.items()
            }
            heard = self._arrivals[DEPTH_NODE]
            return Recording(
                {s: depth for s, depth in sorted(self._depths.items()) if s in heard},
                dict(sorted(self._poses.items())),
                set(self._poses) - self._moved,
                latency,
                {node: self._frame_counts(node) for node in _OUTPUTS},
                self._counts(POSE_NODE, "odometry", "images "),
                self._unable(),
                errors=self._errors(),
            )

    def _on_image(self, message: Image | CompressedImage) -> None:
        with self._lock:
            self._seen[stamp_nanoseconds(message.header)] = time.monotonic()

    def _on_depth(self, message: Image) -> None:
        depth = np.frombuffer(message.data, np.float32).reshape(message.height, message.width)
        with self._lock:
            self._depths[stamp_nanoseconds(message.header)] = depth

    def _on_points(self, message: PointCloud2) -> None:
        with self._lock:
            self._arrivals[DEPTH_NODE][stamp_nanoseconds(message.header)] = time.monotonic()

    def _on_pose(self, message: PoseStamped) -> None:
        stamp = stamp_nanoseconds(message.header)
        with self._lock:
            self._arrivals[POSE_NODE][stamp] = time.monotonic()
            self._poses[stamp] = pose_from_message(message.pose)

    def _on_odom(self, message: Odometry) -> None:
        with self._lock:
            self._moved.add(stamp_nanoseconds(message.header))

    def _on_answer(self, message: String) -> None:
        self._click_answer = json.loads(message.data)

    def _on_clicked_point(self, message: PointStamped) -> None:
        self._clicked_point = message

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        before = {node: self._frame_counts(node) for node in _OUTPUTS}
        names = {status.name for status in message.status}
        self._statuses.update({status.name: status for status in message.status})
        for node in _OUTPUTS:
            if _status_name(node, "frames") not in names:
                continue
            now = self._frame_counts(node)
            done = sum(now.get(name, 0) for name in ("answered", "failed", "dropped", "skipped"))
            quiet = now == before[node] and done == now.get("received")
            self._settled[node] = self._settled[node] + 1 if quiet else 0

    def _status(self, node: str, part: str) -> DiagnosticStatus | None:
        return self._statuses.get(_status_name(node, part))

    def _unable(self) -> dict[str, str]:
        """Why nodes have no model, by node."""
        statuses = {node: self._status(node, "model") for node in _ALL_OUTPUTS}
        return {
            node: status.message
            for node, status in statuses.items()
            if status and status.level == DiagnosticStatus.ERROR
        }

    def _errors(self) -> dict[str, str]:
        """Why the newest failed frame of each node failed."""
        statuses = {node: self._status(node, "frames") for node in _OUTPUTS}
        return {
            node: pair.value
            for node, status in statuses.items()
            for pair in (status.values if status else ())
            if pair.key == "last error" and pair.value
        }

    def _frame_counts(self, node: str) -> dict[str, int]:
        return self._counts(node, "frames", "frames ")

    def _counts(self, node: str, part: str, prefix: str) -> dict[str, int]:
        """The values of a status whose keys have a prefix, by the rest of the key."""
        status = self._status(node, part)
        return {
            pair.key.removeprefix(prefix): int(pair.value)
            for pair in (status.values if status else ())
            if pair.key.startswith(prefix)
        }


class _Process:
    """A program with a log; the end of the `with` block stops it."""

    def __init__(self, name: str, command: Sequence[str], log: Path) -> None:
        self.name = name
        self.log = log
        with log.open("wb") as output:
            # In a session of its own, so that Ctrl-C only reaches this process, which stops it.
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
        """Whether it has ended without an error.

        Raises:
            ReplayError: if it has failed.
        """
        status = self._process.poll()
        if status:
            last = self.log.read_text(errors="replace").strip().splitlines()[-1:]
            raise ReplayError(
                f"the {self.name} ended with status {status}: {''.join(last)} (see {self.log})"
            )
        return status == 0


@contextmanager
def _recorder(settings: ReplaySettings) -> Iterator[_Recorder]:
    """A spinning recorder in the replay's domain."""
    context = Context()
    context.init(domain_id=_domain_id())
    recorder = _Recorder(settings, context)
    try:
        with spinning(recorder):
            yield recorder
    finally:
        recorder.destroy_node()
        context.try_shutdown()


def _domain_id() -> int:
    """A ROS domain for this process alone; Linux leaves the ports of domains 1 to 101 free."""
    return 1 + os.getpid() % 101


def _wait(condition: Callable[[], bool], what: str, patience: float, node: _Process) -> None:
    end = time.monotonic() + patience
    while not condition():
        if node.has_ended():
            raise ReplayError(f"the {node.name} ended too early (see {node.log})")
        if time.monotonic() > end:
            raise ReplayError(f"waited {patience:.0f} s for {what} (see {node.log})")
        time.sleep(0.1)


def _node_command(settings: ReplaySettings) -> list[str]:
    T = settings.T_base_camera
    mount = [*T[:3, 3], *Rotation.from_matrix(T[:3, :3]).as_quat()]
    parameters = {
        **asdict(settings.models),
        "grid_columns": settings.columns,
        "grid_rows": settings.rows,
        "unified_focal": settings.unified_focal,
        "image_is_rectified": settings.is_rectified,
        "image_transport": "compressed" if _is_compressed(settings.image) else "raw",
        "base_from_camera": " ".join(f"{number:.12g}" for number in mount),
        "publish_tf": False,  # the bag may hold the true one
        "max_image_age": 0.0,  # clicks may come long after the last image of the bag
        "use_sim_time": True,
    }
    remaps = {
        "__ns": _NAMESPACE,
        "image": base_topic(settings.image),
        "camera_info": (None if settings.camera else settings.camera_info) or _NO_TOPIC,
    }
    return _ros_command("perception_node", {**parameters, **_given(settings.camera)}, remaps)


def _given(camera: GivenCamera | None) -> dict[str, object]:
    """Parameters for a camera that the user gives: the nodes' fallback without CameraInfo."""
    if camera is None:
        return {}
    kind: dict[str, object] = {"fallback_intrinsics": "hfov", "fallback_hfov": camera.hfov}
    if camera.file is not None:
        path = str(Path(camera.file).absolute())
        kind = {"fallback_intrinsics": "file", "fallback_file": path}
    return {"camera_info_timeout": 0.0, **kind}


def _player_command(settings: ReplaySettings) -> list[str]:
    parameters = {"bag": str(settings.bag), "rate": settings.speed}
    return _ros_command("bag_player", parameters, {})


def _ros_command(
    module: str, parameters: Mapping[str, object], remaps: Mapping[str, str]
) -> list[str]:
    command = [sys.executable, "-m", f"vlm3_ros.nodes.{module}", "--ros-args"]
    for name, value in parameters.items():
        # JSON is YAML, and quotes strings.
        command += ["-p", f"{name}:={json.dumps(value)}"]
    for name, topic in remaps.items():
        command += ["-r", f"{name}:={topic}"]
    return command


def _is_compressed(topic: str) -> bool:
    return base_topic(topic) != topic


def _image_type(topic: str) -> type:
    return CompressedImage if _is_compressed(topic) else Image


def _status_name(node: str, part: str) -> str:
    return f"{_NAMESPACE[1:]}/{node}: {part}"
