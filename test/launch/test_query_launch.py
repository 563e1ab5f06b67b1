# SPDX-License-Identifier: Apache-2.0
"""`ros2 launch` of the query node on two cameras, with the shipped model."""

from __future__ import annotations

import json
import re
import subprocess
from array import array
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ros2launch")
pytest.importorskip("transformers")

from geometry_msgs.msg import PointStamped
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header, String

from vlm3_lab.scenes.views import sample_view
from vlm3_ros.engines.settings import ModelSettings
from vlm3_ros.messages.cameras import camera_info_message
from vlm3_ros.parameters import parameter_specs

FILE = Path(__file__).resolve().parents[2] / "launch" / "query.launch.py"
ARGUMENTS = {
    *("image", "camera_info", "clicked_pixel", "question", "detections", "image_transport"),
    *(name for name, spec in parameter_specs(ModelSettings).items() if spec.launch),
    *("params_file", "namespace", "use_sim_time", "log_level"),
}


def test_every_argument_is_described():
    command = ["ros2", "launch", FILE, "--show-args"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    described = re.findall(r"'(\w+)':\n\s+(\S.*)\n\s+\(default: ", shown)
    assert {name for name, _ in described} == ARGUMENTS
    assert "No description given" not in shown


def test_each_camera_has_its_own_clicks(launch, peer):
    """With remapped topics and namespaces, neither node receives the other's click."""
    view = sample_view(np.random.default_rng(5), "room")
    sides = ("left", "right")
    launched = [
        launch(
            FILE,
            f"namespace:={side}",
            f"image:=/cameras/{side}/image_raw",
            f"camera_info:=/cameras/{side}/camera_info",
            f"clicked_pixel:=/panel/{side}",
        )
        for side in sides
    ]
    points: dict[str, list[PointStamped]] = {side: [] for side in sides}
    answers: dict[str, list[dict]] = {side: [] for side in sides}
    for side in sides:
        peer.create_subscription(PointStamped, f"/{side}/clicked_point", points[side].append, 5)
        peer.create_subscription(
            String,
            f"/{side}/answer",
            lambda message, side=side: answers[side].append(json.loads(message.data)),
            50,
        )
    publishers = {
        side: (
            peer.create_publisher(CameraInfo, f"/cameras/{side}/camera_info", 5),
            peer.create_publisher(Image, f"/cameras/{side}/image_raw", 5),
            peer.create_publisher(PointStamped, f"/panel/{side}", 5),
        )
        for side in sides
    }
    click = PointStamped()
    click.point.x, click.point.y = 60.0, 80.0
    for index, side in enumerate(sides):

        def send(side: str = side) -> bool:
            stamp = peer.get_clock().now().to_msg()
            header = Header(frame_id=f"{side}_optical", stamp=stamp)
            height, width = view.image.shape[:2]
            image = Image(
                header=header, width=width, height=height, encoding="rgb8", step=3 * width
            )
            image.data = array("B", view.image.tobytes())
            info, camera, panel = publishers[side]
            info.publish(camera_info_message(header, view.camera))
            camera.publish(image)
            panel.publish(click)
            return bool(points[side])

        launched[index].wait_for(peer, send, f"a point of {side}")
        assert points[side][0].header.frame_id == f"{side}_optical"
        assert points[side][0].point.z > 0
        if side == "left":
            assert not answers["right"]
    assert {answer["frame"] for answer in answers["left"]} <= {"", "left_optical"}
    for process in launched:
        assert process.stop() == 0, process.log.read_text()
        assert "process has died" not in process.log.read_text()
