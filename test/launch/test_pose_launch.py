# SPDX-License-Identifier: Apache-2.0
"""`ros2 launch` of odometry, alone and with depth, with true answers."""

from __future__ import annotations

import re
import subprocess
from array import array
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

pytest.importorskip("ros2launch")

from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Odometry
from rcl_interfaces.srv import GetParameters
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header
from truth import record_truth

from vlm3_lab.scenes.sequences import sample_sequence
from vlm3_ros.datasets.views import View
from vlm3_ros.engines.settings import ModelSettings
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.messages.cameras import camera_info_message
from vlm3_ros.parameters import parameter_specs
from vlm3_ros.paths import default_model

LAUNCH = Path(__file__).resolve().parents[2] / "launch"
CAMERA = PinholeCamera(160, 120, 110.0, 110.0, 79.5, 59.5)
MOUNT = "base_from_camera:=0.1 0 0.8 -0.5 0.5 -0.5 0.5"
SHARED_ARGUMENTS = {
    "image",
    "camera_info",
    "image_transport",
    *(name for name, spec in parameter_specs(ModelSettings).items() if spec.launch),
    "base_frame",
    "base_from_camera",
    "publish_tf",
    "namespace",
    "use_sim_time",
    "log_level",
}


@pytest.fixture(scope="module")
def views() -> list[View]:
    rng = np.random.default_rng(4)
    drive = sample_sequence(rng, CAMERA, kind="room", duration=0.5, rate=10.0)
    return [drive.view(index, rng) for index in range(2)]


@pytest.fixture(scope="module")
def recording(views: list[View], tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("truth") / "truth.jsonl"
    record_truth(file, views, grid=(3, 2))
    return file


def sender(peer, namespace: str, view: View, stamp_ns: int) -> Callable[[], None]:
    """Publishes a view with a given stamp."""
    images = peer.create_publisher(Image, f"/{namespace}/image", 5)
    infos = peer.create_publisher(CameraInfo, f"/{namespace}/camera_info", 5)

    def send() -> None:
        header = Header(frame_id="optical")
        header.stamp.sec, header.stamp.nanosec = divmod(stamp_ns, 10**9)
        image = Image(header=header, width=160, height=120, encoding="rgb8", step=480)
        image.data = array("B", view.image.tobytes())
        infos.publish(camera_info_message(header, CAMERA))
        images.publish(image)

    return send


@pytest.mark.parametrize(
    ("file", "own"),
    [
        ("pose", {"params_file"}),
        (
            "perception",
            {
                *("depth_params_file", "pose_params_file", "query_params_file"),
                *("clicked_pixel", "question", "detections"),
            },
        ),
    ],
)
def test_every_argument_is_described(file, own):
    command = ["ros2", "launch", LAUNCH / f"{file}.launch.py", "--show-args"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    described = re.findall(r"'(\w+)':\n\s+(\S.*)\n\s+\(default: ", shown)
    assert {name for name, _ in described} == SHARED_ARGUMENTS | own
    assert "No description given" not in shown


def test_pose_node_publishes_the_motion(launch, peer, views, recording):
    launched = launch(
        LAUNCH / "pose.launch.py",
        "namespace:=robot",
        "engine:=recorded",
        f"recording:={recording}",
        MOUNT,
        "base_frame:=trunk",
        "publish_tf:=false",
    )
    poses: list[PoseStamped] = []
    odometry: list[Odometry] = []
    peer.create_subscription(PoseStamped, "/robot/pose", poses.append, 5)
    peer.create_subscription(Odometry, "/robot/odom", odometry.append, 5)
    start = peer.get_clock().now().nanoseconds
    for index, answers in enumerate((poses, odometry)):
        send = sender(peer, "robot", views[index], start + index * 10**8)
        launched.wait_for(peer, lambda s=send, a=answers: s() or a, "an answer")
    assert odometry[0].child_frame_id == "trunk"
    position = odometry[0].pose.pose.position
    moved = np.linalg.inv(views[0].T_world_camera) @ views[1].T_world_camera
    # The pitch of the camera hardly changes the length of the motion in the plane.
    assert np.hypot(position.x, position.y) == pytest.approx(np.linalg.norm(moved[:3, 3]), rel=0.1)
    assert not peer.count_publishers("/tf")
    assert launched.stop() == 0, launched.log.read_text()


def test_all_nodes_share_a_model(launch, peer, views, recording, tmp_path):
    """Each node takes its own parameter file, and all take the arguments."""
    files = []
    for node, values in (
        ("depth", {"grid_columns": 3, "grid_rows": 2}),
        ("pose", {"odom_frame": "map_of_odom"}),
        ("query", {"recent_images": 7}),
    ):
        file = tmp_path / f"{node}.yaml"
        file.write_text(yaml.safe_dump({f"/**/{node}_node": {"ros__parameters": values}}))
        files.append(f"{node}_params_file:={file}")
    launched = launch(
        LAUNCH / "perception.launch.py",
        "namespace:=robot",
        "engine:=recorded",
        f"recording:={recording}",
        MOUNT,
        *files,
    )
    depths: list[Image] = []
    poses: list[PoseStamped] = []
    peer.create_subscription(Image, "/robot/depth/image_rect", depths.append, 5)
    peer.create_subscription(PoseStamped, "/robot/pose", poses.append, 5)
    send = sender(peer, "robot", views[0], peer.get_clock().now().nanoseconds)
    launched.wait_for(peer, lambda: send() or (depths and poses), "answers of both nodes")
    assert (depths[0].width, depths[0].height) == (3, 2)
    assert poses[0].header.frame_id == "map_of_odom"
    launched.wait_for(
        peer, lambda: launched.log.read_text().count("is loaded already") == 2, "sharing"
    )
    assert launched.log.read_text().count(f"reading {recording}") == 1
    client = peer.create_client(GetParameters, "/robot/query_node/get_parameters")
    launched.wait_for(peer, client.service_is_ready, "the query node")
    future = client.call_async(GetParameters.Request(names=["recent_images"]))
    launched.wait_for(peer, future.done, "an answer of the node")
    assert future.result().values[0].integer_value == 7
    assert launched.stop() == 0, launched.log.read_text()
    assert "process has died" not in launched.log.read_text()


def test_a_model_for_each_task_in_one_process(launch, peer):
    """All nodes take the same arguments; two checkpoints answer four tasks."""
    pytest.importorskip("transformers")
    depth, pairs = default_model("depth"), default_model("pose")
    launched = launch(
        LAUNCH / "perception.launch.py",
        f"depth_model:={depth}",
        f"object_model:={depth}",
        f"pose_model:={pairs}",
        f"match_model:={pairs}",
        MOUNT,
    )
    launched.wait_for(
        peer, lambda: launched.log.read_text().count("ready for images on") == 3, "three nodes"
    )
    log = launched.log.read_text()
    told = re.findall(r"2 models, about \d+ MB of .* free memory on .*", log)
    assert len(told) == 1
    assert log.index(told[0]) < log.index("checking ")
    assert log.count("loading vlm3-tiny: ") == log.count("loading vlm3-tiny-pairs: ") == 1
    assert launched.stop() == 0, launched.log.read_text()


def test_the_shipped_parameters_reach_both_nodes(launch, peer):
    launched = launch(LAUNCH / "perception.launch.py", "namespace:=robot", "model:=/nowhere")
    for node, name, expected in (("depth", "lazy", True), ("pose", "lazy", False)):
        client = peer.create_client(GetParameters, f"/robot/{node}_node/get_parameters")
        launched.wait_for(peer, client.service_is_ready, "the node")
        future = client.call_async(GetParameters.Request(names=[name, "model"]))
        launched.wait_for(peer, future.done, "an answer of the node")
        value, model = future.result().values
        assert value.bool_value is expected
        assert model.string_value == "/nowhere"
    launched.stop()
