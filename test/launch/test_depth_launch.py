# SPDX-License-Identifier: Apache-2.0
"""`ros2 launch` as a user calls it: real processes, a real checkpoint with random weights."""

from __future__ import annotations

import re
import subprocess
from array import array
from pathlib import Path

import numpy as np
import pytest
import yaml

pytest.importorskip("ros2launch")
pytest.importorskip("transformers")

from rcl_interfaces.srv import GetParameters
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from vlm3_lab.training.checkpoint import TinyShape, build_checkpoint
from vlm3_ros.engines.base import Profile
from vlm3_ros.engines.settings import ModelSettings
from vlm3_ros.language.prompts import load_prompt_set
from vlm3_ros.parameters import parameter_specs

LAUNCH_FILE = Path(__file__).resolve().parents[2] / "launch" / "depth.launch.py"
ARGUMENTS = {
    "image",
    "camera_info",
    "image_transport",
    *(name for name, spec in parameter_specs(ModelSettings).items() if spec.launch),
    "params_file",
    "namespace",
    "use_sim_time",
    "log_level",
}
TWO_CAMERAS = """
from launch import LaunchDescription
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource

def camera(side):
    return IncludeLaunchDescription(
        PythonLaunchDescriptionSource({launch_file!r}),
        launch_arguments={{
            "namespace": side,
            "image": f"/cameras/{{side}}/image_raw",
            "camera_info": f"/cameras/{{side}}/camera_info",
            "model": {model!r},
            "params_file": {params_file!r},
        }}.items(),
    )

def generate_launch_description():
    return LaunchDescription([camera("left"), camera("right")])
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    profile = Profile(120.0, "pad", load_prompt_set("vlm3"))
    build_checkpoint(folder, TinyShape(), profile)
    return folder


def show_arguments() -> str:
    command = ["ros2", "launch", LAUNCH_FILE, "--show-args"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_every_argument_is_described():
    described = re.findall(r"'(\w+)':\n\s+(\S.*)\n\s+\(default: ", show_arguments())
    assert {name for name, _ in described} == ARGUMENTS
    assert "No description given" not in show_arguments()


@pytest.mark.parametrize(
    ("argument", "choices"),
    [
        ("use_sim_time", ["true", "false"]),
        ("engine", ["", "transformers", "openai", "recorded"]),
        ("image_transport", ["", "raw", "compressed"]),
    ],
)
def test_a_value_that_an_argument_does_not_take_is_refused(launch, argument, choices):
    launched = launch(LAUNCH_FILE, f"{argument}:=maybe")
    assert launched.end() != 0
    assert re.search(rf"{argument}.*maybe.*{re.escape(str(choices))}", launched.log.read_text())


def test_a_text_that_looks_like_a_number_stays_text(launch, peer):
    launched = launch(LAUNCH_FILE, "engine:=recorded", "recording:=123", "profile:=true")
    client = peer.create_client(GetParameters, "/depth_node/get_parameters")
    launched.wait_for(peer, client.service_is_ready, "the node")
    future = client.call_async(GetParameters.Request(names=["recording", "profile"]))
    launched.wait_for(peer, future.done, "an answer of the node")
    assert [value.string_value for value in future.result().values] == ["123", "true"]
    assert launched.stop() == 0, launched.log.read_text()


def test_two_cameras_at_once(launch, peer, model, tmp_path):
    """Each answers about its own camera, in its own namespace, with the parameters of the file."""
    params = tmp_path / "params.yaml"
    params.write_text(
        yaml.safe_dump({"/**/depth_node": {"ros__parameters": {"grid_columns": 3, "grid_rows": 2}}})
    )
    both = tmp_path / "both.launch.py"
    both.write_text(
        TWO_CAMERAS.format(launch_file=str(LAUNCH_FILE), model=str(model), params_file=str(params))
    )
    launched = launch(both)
    answers: dict[str, list[Image]] = {"left": [], "right": []}
    images, infos = {}, {}
    for side in answers:
        peer.create_subscription(Image, f"/{side}/depth/image_rect", answers[side].append, 5)
        images[side] = peer.create_publisher(Image, f"/cameras/{side}/image_raw", 5)
        infos[side] = peer.create_publisher(CameraInfo, f"/cameras/{side}/camera_info", 5)

    def send_until_answered() -> bool:
        for side in answers:
            header = Header(frame_id=f"{side}_optical", stamp=peer.get_clock().now().to_msg())
            infos[side].publish(camera_info(header))
            images[side].publish(gray_image(header))
        return all(answers.values())

    launched.wait_for(peer, send_until_answered, "an answer about each camera")
    for side, (depth, *_) in answers.items():
        assert depth.header.frame_id == f"{side}_optical"
        assert (depth.width, depth.height) == (3, 2), "the grid of params_file"
    assert launched.stop() == 0, launched.log.read_text()
    assert "process has died" not in launched.log.read_text()


def test_arguments_reach_the_node(launch, peer, model):
    launched = launch(
        LAUNCH_FILE,
        "namespace:=robot",
        f"model:={model}",
        "image_transport:=compressed",
        "use_sim_time:=true",
        "log_level:=warn",
    )
    client = peer.create_client(GetParameters, "/robot/depth_node/get_parameters")
    launched.wait_for(peer, client.service_is_ready, "the node")
    request = GetParameters.Request(names=["model", "use_sim_time", "grid_columns"])
    future = client.call_async(request)
    launched.wait_for(peer, future.done, "an answer of the node")
    model_value, time_value, columns = future.result().values
    assert model_value.string_value == str(model)
    assert time_value.bool_value is True
    assert columns.integer_value == 16, "the default of config/depth.yaml"

    topics = {"/robot/image/compressed", "/robot/camera_info"}
    launched.wait_for(
        peer,
        lambda: all(peer.count_subscribers(topic) for topic in topics),
        "subscriptions in the namespace",
    )
    assert launched.stop() == 0, launched.log.read_text()
    assert "[INFO] [robot.depth_node]" not in launched.log.read_text()


def test_a_missing_model_leaves_one_message_and_a_node_to_be_configured(launch, peer, tmp_path):
    launched = launch(LAUNCH_FILE, f"model:={tmp_path / 'nothing'}", "namespace:=lost")
    launched.wait_for(peer, lambda: "[ERROR]" in launched.log.read_text(), "the error")
    client = peer.create_client(GetParameters, "/lost/depth_node/get_parameters")
    launched.wait_for(peer, client.service_is_ready, "the node's services")
    log = launched.log.read_text()
    assert str(tmp_path / "nothing") in log
    assert "Traceback" not in log
    assert launched.stop() == 0


def camera_info(header: Header) -> CameraInfo:
    K = [120.0, 0.0, 80.0, 0.0, 120.0, 60.0, 0.0, 0.0, 1.0]
    P = [120.0, 0.0, 80.0, 0.0, 0.0, 120.0, 60.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    R = np.eye(3).ravel()
    return CameraInfo(
        header=header,
        width=160,
        height=120,
        distortion_model="plumb_bob",
        d=[0.0] * 5,
        k=K,
        r=R,
        p=P,
    )


def gray_image(header: Header) -> Image:
    message = Image(header=header, width=160, height=120, encoding="mono8", step=160)
    message.data = array("B", bytes(range(160)) * 120)
    return message
