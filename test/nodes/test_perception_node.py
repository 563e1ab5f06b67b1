# SPDX-License-Identifier: Apache-2.0
"""Depth, odometry and answers from one process that shares models."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rclpy
from geometry_msgs.msg import Point, PointStamped, PoseStamped
from nav_msgs.msg import Odometry
from rclpy.node import Node
from rosbags.image import image_to_cvimage
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CameraInfo, Image
from std_srvs.srv import Trigger
from truth import record_truth

from vlm3_lab.scenes.sequences import sample_sequence
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.geometry.motion import compose, inverse
from vlm3_ros.messages.cameras import camera_info_message
from vlm3_ros.paths import default_model
from vlm3_ros.tasks.depth import uniform_grid

NODES = (sys.executable, "-m", "vlm3_ros.nodes.perception_node", "--ros-args")
CAMERA = PinholeCamera(160, 120, 110.0, 110.0, 79.5, 59.5)


@pytest.mark.slow
def test_all_nodes_answer_with_one_model(ros, bench, tmp_path: Path):
    rng = np.random.default_rng(4)
    drive = sample_sequence(rng, CAMERA, kind="room", duration=0.5, rate=10.0)
    views = [drive.view(index, rng) for index in range(3)]
    recording = tmp_path / "truth.jsonl"
    record_truth(recording, views, furthest=2)
    x, y, z = drive.T_base_camera[:3, 3]
    quaternion = Rotation.from_matrix(drive.T_base_camera[:3, :3]).as_quat()
    values = {
        "engine": "recorded",
        "recording": recording,
        "base_from_camera": " ".join(map(repr, map(float, (x, y, z, *quaternion)))),
    }
    settings = [part for name, value in values.items() for part in ("-p", f"{name}:={value}")]
    log = tmp_path / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [*NODES, "-r", "__ns:=/both", *settings],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    peer = Node("peer", namespace="both")
    try:
        depths: list[Image] = []
        poses: list[PoseStamped] = []
        odometry: list[Odometry] = []
        points: list[PointStamped] = []
        # pose_node publishes a pose only once. Subscriptions are announced in this order, so the
        # first depth shows that the nodes know the subscriptions to pose and odom.
        peer.create_subscription(PointStamped, "clicked_point", points.append, 20)
        peer.create_subscription(PoseStamped, "pose", poses.append, 20)
        peer.create_subscription(Odometry, "odom", odometry.append, 20)
        peer.create_subscription(Image, "depth/image_rect", depths.append, 20)
        clicks = peer.create_publisher(PointStamped, "clicked_pixel", 5)
        images = peer.create_publisher(Image, "image", 5)
        infos = peer.create_publisher(CameraInfo, "camera_info", 5)
        start = bench.now()

        def send_until(index: int, topic: list, delay: float = 0.0) -> None:
            """Send a view until its stamp is answered; a node skips a repeated one."""
            stamp = round(start + index * 0.1 + delay, 6)

            def answered() -> bool:
                message = bench.rgb_message(stamp, views[index].image)
                infos.publish(camera_info_message(message.header, CAMERA))
                images.publish(message)
                rclpy.spin_once(peer, timeout_sec=0.1)
                return stamp in map(bench.stamp_of, topic)

            bench.wait_until(answered, f"an answer about view {index}", log.read_text)

        send_until(0, depths)
        for topic in ("pose", "odom"):
            bench.wait_until(lambda t=topic: peer.count_publishers(t), topic, log.read_text)
        # pose_node may have seen view 0 before or not: make it the origin, whatever came before.
        reset = peer.create_client(Trigger, "pose_node/reset")
        assert reset.wait_for_service(600)
        rclpy.spin_until_future_complete(peer, reset.call_async(Trigger.Request()), timeout_sec=600)
        send_until(0, poses, delay=0.01)
        for index in (1, 2):
            send_until(index, odometry)
            send_until(index, depths)
        u, v = np.rint(uniform_grid(CAMERA, 16, 12)).astype(int).T
        truth = views[2].depth[v, u].reshape(12, 16)
        seen = image_to_cvimage(depths[-1])
        np.testing.assert_allclose(seen, np.where(np.isfinite(truth), truth, np.nan), rtol=1e-5)
        pixel = uniform_grid(CAMERA, 16, 12)[190]  # the recording has its depth
        click = PointStamped(point=Point(x=pixel[0], y=pixel[1]))

        def clicked() -> bool:
            clicks.publish(click)
            rclpy.spin_once(peer, timeout_sec=0.1)
            return bool(points)

        bench.wait_until(clicked, "a clicked point", log.read_text)
        assert bench.stamp_of(points[-1]) == round(start + 0.2, 6)
        found = [points[-1].point.x, points[-1].point.y, points[-1].point.z]
        np.testing.assert_allclose(found, CAMERA.unproject(pixel, truth.ravel()[190]), rtol=1e-5)
        path = drive.path.T_world_base
        place = odometry[-1].pose.pose.position
        np.testing.assert_allclose(
            [place.x, place.y, place.z],
            compose(inverse(path[0]), path[2])[:3, 3],
            atol=1e-7,
        )
    finally:
        process.send_signal(signal.SIGINT)
        status = process.wait(600)
        peer.destroy_node()
    assert status == 0, log.read_text()
    assert log.read_text().count(f"reading {recording}") == 1
    assert log.read_text().count("which is loaded already") == 2


@pytest.mark.slow
def test_four_tasks_with_two_checkpoints_in_one_process(bench, tmp_path: Path):
    pytest.importorskip("transformers")
    depth, pairs = default_model("depth"), default_model("pose")
    chosen = {
        "depth_model": depth,
        "object_model": depth,
        "pose_model": pairs,
        "match_model": pairs,
        "base_from_camera": "0 0 0 0 0 0 1",
    }
    settings = [part for name, value in chosen.items() for part in ("-p", f"{name}:={value}")]
    log = tmp_path / "log"
    with log.open("w") as output:
        process = subprocess.Popen([*NODES, *settings], stdout=output, stderr=subprocess.STDOUT)
    try:
        bench.wait_until(
            lambda: log.read_text().count("ready for images on") == 3, "three nodes", log.read_text
        )
    finally:
        process.send_signal(signal.SIGINT)
        status = process.wait(600)
    text = log.read_text()
    assert status == 0, text
    told = re.findall(r"2 models, about \d+ MB of .* free memory on .*", text)
    assert len(told) == 1
    assert text.index(told[0]) < text.index("checking ")
    assert text.count("loading vlm3-tiny: ") == text.count("loading vlm3-tiny-pairs: ") == 1


def test_an_invalid_value_of_one_node_ends_the_process():
    command = [*NODES, "-p", "base_from_camera:=1 2 3"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 1
    assert "parameter 'base_from_camera' is '1 2 3'" in ended.stderr
    assert "Traceback" not in ended.stderr
