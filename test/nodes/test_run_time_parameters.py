# SPDX-License-Identifier: Apache-2.0
"""Change every parameter that can change at any time, while frames arrive.

The parameters are taken from the tables of the nodes, so new ones are covered automatically.
"""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Callable

import numpy as np
import pytest
from asking import Asker
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Path
from rcl_interfaces.srv import GetParameters
from rclpy.parameter import parameter_value_to_python
from rosbags.image import image_to_cvimage
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from truth import TruthEngine

import vlm3_ros.nodes
from vlm3_lab.scenes.sequences import sample_sequence
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.messages.cameras import camera_info_message
from vlm3_ros.nodes.depth_node import DepthNode
from vlm3_ros.nodes.depth_parameters import DepthParameters
from vlm3_ros.nodes.pose_node import PoseNode
from vlm3_ros.nodes.pose_parameters import PoseParameters
from vlm3_ros.nodes.query_node import QueryNode
from vlm3_ros.nodes.query_parameters import QueryParameters
from vlm3_ros.parameters import ParameterSpec, ParameterTable, parameter_specs
from vlm3_ros.ros.node import CameraModelNode

CALIBRATION = """\
image_width: 320
image_height: 256
camera_matrix: {rows: 3, cols: 3, data: [200, 0, 150, 0, 200, 130, 0, 0, 1]}
distortion_coefficients: {rows: 1, cols: 5, data: [0, 0, 0, 0, 0]}
"""

VALUES: dict[str, object] = {
    "unified_focal": 150.0,
    "max_frame_age": 1e3,
    "max_image_age": 1e3,
    "grid_columns": 6,
    "scan_from_camera": "0 0 1 -0.5 0.5 -0.5 0.5",
    "ground_from_camera": "0 0 1 -0.5 0.5 -0.5 0.5",
    "scale_from": "none",  # "ground" publishes nothing until it has seen the ground
}
"""New values for parameters for which `another` finds no suitable one."""

TABLES: dict[type[CameraModelNode], type[ParameterTable]] = {
    DepthNode: DepthParameters,
    PoseNode: PoseParameters,
    QueryNode: QueryParameters,
}


def run_time_parameters(table: type[ParameterTable]) -> list[str]:
    return [name for name, spec in parameter_specs(table).items() if spec.changes == "any time"]


def another(value: object, spec: ParameterSpec) -> object:
    """Another value within the range."""
    if spec.choices:
        return next((choice for choice in spec.choices if choice != value), value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return f"{value}_other"
    assert isinstance(value, (int, float))
    low, high = spec.minimum, spec.maximum
    up = value + 1 if low is None else min(value + 1, high)
    return up if up != value else value - 1


@dataclasses.dataclass
class Stream:
    """A rig, a function that sends one more frame, and the topic of its answer."""

    rig: object
    send: Callable[[], float]
    topic: str

    def newest(self, topic: str | None = None) -> object:
        """Send a frame and return its answer."""
        stamp = self.send()
        self.rig.wait_for_stamp(stamp, topic or self.topic)
        received = list(self.rig.received[topic or self.topic])
        return next(m for m in received if self.rig_stamp(m) == stamp)

    @staticmethod
    def rig_stamp(message: object) -> float:
        return round(message.header.stamp.sec + message.header.stamp.nanosec / 1e9, 6)

    def value(self, name: str) -> object:
        request = GetParameters.Request(names=[name])
        (value,) = self.rig.call("get_parameters", GetParameters, request).values
        return parameter_value_to_python(value)

    def change(self, name: str, value: object) -> None:
        result = self.rig.set_parameters(**{name: value})
        assert result.successful, f"{name}: {result.reason}"
        assert self.value(name) == value


@pytest.fixture
def depth_stream(make_rig, bench) -> Stream:
    outputs = {"depth/image_rect": Image, "points": PointCloud2, "depth/camera_info": CameraInfo}
    rig = make_rig(bench.WallEngine(), outputs=outputs)
    rig.wait_active()
    return Stream(rig, rig.send_good, "depth/image_rect")


@pytest.fixture
def pose_stream(make_rig, bench) -> Stream:
    rng = np.random.default_rng(4)
    camera = PinholeCamera(240, 180, 170.0, 175.0, 119.5, 89.5)
    drive = sample_sequence(rng, camera, kind="room", duration=0.6, rate=10.0)
    views = list(drive.views(rng))
    mount = [*drive.T_base_camera[:3, 3]]
    mount += [*Rotation.from_matrix(drive.T_base_camera[:3, :3]).as_quat()]
    rig = make_rig(
        TruthEngine(views),
        make_node=PoseNode,
        outputs={"pose": PoseStamped, "path": Path},
        parameters={"base_from_camera": " ".join(map(str, mount)), "publish_tf": False},
    )
    rig.wait_active()
    there_and_back = [*views, *views[-2:0:-1]]
    start, count = bench.now(), 0

    def send() -> float:
        nonlocal count
        view = there_and_back[count % len(there_and_back)]
        count += 1
        message = bench.rgb_message(round(start + count / 10, 6), view.image)
        before = rig.report()
        rig.send(message, camera_info_message(message.header, view.camera))
        worked = before.answered + before.failed
        rig.wait(lambda: rig.report().answered + rig.report().failed > worked, "work on it")
        return bench.stamp_of(message)

    return Stream(rig, send, "pose")


@pytest.fixture
def query_stream(make_rig, bench) -> Stream:
    asker = Asker(make_rig, bench, bench.WallEngine())
    asker.wait_active()

    def send() -> float:
        stamp = asker.show()
        answer = asker.click(200.0, 100.0)
        assert answer["status"] == "ok", answer
        return stamp

    return Stream(asker.rig, send, "clicked_point")


def calibration_file(folder) -> str:
    path = folder / "camera.yaml"
    path.write_text(CALIBRATION)
    return str(path)


@pytest.mark.parametrize("node", TABLES)
def test_frames_are_answered_after_each_change(request, tmp_path, node):
    stream = request.getfixturevalue(f"{node.__name__.removesuffix('Node').lower()}_stream")
    rig = stream.rig
    values = {**VALUES, "fallback_file": calibration_file(tmp_path)}
    specs = parameter_specs(TABLES[node])
    stream.send()
    for name in run_time_parameters(TABLES[node]):
        before, answered = stream.value(name), rig.report().answered
        stream.change(name, values[name] if name in values else another(before, specs[name]))
        stream.send()
        rig.wait(lambda n=answered: rig.report().answered > n, f"an answer after {name} changed")
        stream.change(name, before)
    assert rig.report().failed == 0
    assert not rig.log_lines("Traceback")


def test_frames_are_refused_under_a_small_max_frame_age(depth_stream):
    depth_stream.newest()
    depth_stream.change("max_frame_age", 1e-9)
    depth_stream.send()
    text = "s old, older than max_frame_age"
    depth_stream.rig.wait(lambda: text in (depth_stream.rig.report().fault or ""), text)
    assert depth_stream.rig.report().is_failing
    depth_stream.change("max_frame_age", 0.0)
    depth_stream.newest()


def test_changes_of_depth_settings_take_effect(depth_stream):
    def depth() -> np.ndarray:
        return image_to_cvimage(depth_stream.newest())

    assert depth().shape == (3, 4)
    depth_stream.change("grid_columns", 7)
    depth_stream.change("grid_rows", 5)
    full = depth()
    assert full.shape == (5, 7) and np.isfinite(full).all()
    middle = float(np.median(full))
    depth_stream.change("min_depth", middle)
    np.testing.assert_array_equal(depth(), np.where(full >= middle, full, np.nan))
    depth_stream.change("min_depth", 0.0)
    depth_stream.change("max_depth", middle)
    np.testing.assert_array_equal(depth(), np.where(full <= middle, full, np.nan))
    depth_stream.change("max_depth", 1e6)
    focal = depth_stream.rig.node.model.engines["depth"].profile.focal
    seen = depth_stream.rig.node.model.engines["depth"].images
    depth_stream.change("unified_focal", focal / 2)
    assert depth().shape == (5, 7)
    assert seen[-1].shape[1] < seen[-2].shape[1]


def test_a_camera_info_of_a_raw_image_is_used_as_rectified(depth_stream, bench):
    """With `image_is_rectified`, P describes the image instead of K."""
    rig = depth_stream.rig
    info = camera_info_message(bench.header(bench.now()), bench.CAMERA)
    info.d = [-0.2, 0.0, 0.0, 0.0, 0.0]

    def pixels_seen() -> np.ndarray:
        stamp = bench.now()
        rig.send(bench.rgb_message(stamp), info)
        rig.wait_for_stamp(stamp, depth_stream.topic)
        return rig.node.model.engines["depth"].images[-1]

    rectified = pixels_seen()
    depth_stream.change("image_is_rectified", True)
    np.testing.assert_array_equal(pixels_seen(), bench.picture())
    depth_stream.change("image_is_rectified", False)
    np.testing.assert_array_equal(pixels_seen(), rectified)
    assert not np.array_equal(rectified, bench.picture())


def test_without_lazy_the_model_is_asked_without_listeners(make_rig, bench):
    engine = bench.WallEngine()
    rig = make_rig(engine, listen=[])
    rig.wait(rig.image.get_subscription_count, "subscription")
    rig.send_until(rig.send_good, lambda: rig.report().skipped, "a frame that is left out")
    assert not engine.images
    assert rig.set_parameters(lazy=False).successful
    rig.send_until(rig.send_good, lambda: rig.report().answered, "an answer")


@pytest.mark.parametrize(("name", "text"), [("image_timeout", "no image on .* for 0.2 s")])
def test_a_shorter_image_timeout(depth_stream, name, text):
    depth_stream.newest()
    depth_stream.change(name, 0.2)
    depth_stream.rig.wait_for_status("frames", b"\x01", text)


def test_changes_of_odometry_settings_take_effect(pose_stream):
    rig = pose_stream.rig
    for _ in range(3):
        pose_stream.newest()
    pose_stream.change("path_length", 2)
    assert len(pose_stream.newest("path").poses) == 2
    pose_stream.change("max_gap", 0.05)
    pose_stream.newest()
    assert rig.node._last_step.status == "reset"
    pose_stream.change("max_gap", 1.0)
    pose_stream.newest()
    pose_stream.change("max_speed", 0.01)
    pose_stream.send()
    pose_stream.send()  # in one of both the camera has moved
    assert rig.node._steps["refused"] > 0
    pose_stream.change("max_speed", 100.0)
    pose_stream.newest()


def test_no_node_is_left_out(ros):
    for module in pkgutil.iter_modules(vlm3_ros.nodes.__path__):
        importlib.import_module(f"vlm3_ros.nodes.{module.name}")
    assert nodes_below(CameraModelNode) == set(TABLES)


def nodes_below(base: type) -> set[type]:
    """The package's own node classes without derived classes."""
    derived = [n for n in base.__subclasses__() if n.__module__.startswith("vlm3_ros.")]
    return set().union(*map(nodes_below, derived)) if derived else {base}
