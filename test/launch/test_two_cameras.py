# SPDX-License-Identifier: Apache-2.0
"""`ros2 launch perception.launch.py` twice, for two cameras of one robot."""

from __future__ import annotations

from array import array
from pathlib import Path

import numpy as np
import pytest
import yaml

pytest.importorskip("ros2launch")

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage
from truth import record_truth

from vlm3_lab.scenes.sequences import sample_sequence
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.messages.cameras import camera_info_message

LAUNCH_FILE = Path(__file__).resolve().parents[2] / "launch" / "perception.launch.py"
CAMERA = PinholeCamera(160, 120, 110.0, 110.0, 79.5, 59.5)
SIDES = ("left", "right")


def test_each_camera_has_its_own_topics_frames_and_diagnostics(launch, peer, tmp_path):
    launched, images, infos, frames = {}, {}, {}, {}
    depths: dict[str, list[Image]] = {side: [] for side in SIDES}
    poses: dict[str, list[PoseStamped]] = {side: [] for side in SIDES}
    moved: dict[str, str] = {}
    statuses: set[str] = set()
    peer.create_subscription(
        TFMessage,
        "/tf",
        lambda m: moved.update({t.child_frame_id: t.header.frame_id for t in m.transforms}),
        20,
    )
    peer.create_subscription(
        DiagnosticArray, "/diagnostics", lambda m: statuses.update(s.name for s in m.status), 20
    )
    for seed, side in enumerate(SIDES):
        rng = np.random.default_rng(seed)
        drive = sample_sequence(rng, CAMERA, kind="room", duration=0.5, rate=10.0)
        view = drive.view(0, rng)
        recording = tmp_path / f"{side}.jsonl"
        record_truth(recording, [view], grid=(3, 2))
        files = []
        for node, values in (
            ("depth", {"grid_columns": 3, "grid_rows": 2}),
            ("pose", {"odom_frame": f"{side}_odom"}),
        ):
            file = tmp_path / f"{side}_{node}.yaml"
            file.write_text(yaml.safe_dump({f"/**/{node}_node": {"ros__parameters": values}}))
            files.append(f"{node}_params_file:={file}")
        launched[side] = launch(
            LAUNCH_FILE,
            f"namespace:={side}",
            f"image:=/cameras/{side}/image_raw",
            f"camera_info:=/cameras/{side}/camera_info",
            "engine:=recorded",
            f"recording:={recording}",
            "base_from_camera:=0.1 0 0.8 -0.5 0.5 -0.5 0.5",
            f"base_frame:={side}_base",
            *files,
        )
        frames[side] = view.image
        peer.create_subscription(Image, f"/{side}/depth/image_rect", depths[side].append, 5)
        peer.create_subscription(PoseStamped, f"/{side}/pose", poses[side].append, 5)
        images[side] = peer.create_publisher(Image, f"/cameras/{side}/image_raw", 5)
        infos[side] = peer.create_publisher(CameraInfo, f"/cameras/{side}/camera_info", 5)

    def send_until_answered() -> bool:
        for side in SIDES:
            header = Header(frame_id=f"{side}_optical", stamp=peer.get_clock().now().to_msg())
            message = Image(header=header, width=160, height=120, encoding="rgb8", step=480)
            message.data = array("B", frames[side].tobytes())
            infos[side].publish(camera_info_message(header, CAMERA))
            images[side].publish(message)
        return all(depths.values()) and all(poses.values()) and len(moved) == len(SIDES)

    launched["left"].wait_for(peer, send_until_answered, "answers about each camera")
    expected = {f"{s}/{n}_node: frames" for s in SIDES for n in ("depth", "pose")}
    launched["right"].wait_for(peer, lambda: expected <= statuses, "diagnostics of all nodes")
    assert moved == {f"{side}_base": f"{side}_odom" for side in SIDES}
    for side in SIDES:
        assert {depth.header.frame_id for depth in depths[side]} == {f"{side}_optical"}
        assert {pose.header.frame_id for pose in poses[side]} == {f"{side}_odom"}
        assert launched[side].stop() == 0, launched[side].log.read_text()
        log = launched[side].log.read_text()
        # Each recording only holds the images of one camera.
        assert "none of the" not in log and "process has died" not in log
