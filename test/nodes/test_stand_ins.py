# SPDX-License-Identifier: Apache-2.0
"""The nodes with stand-ins of the authors' four checkpoints: one model per task."""

from __future__ import annotations

import math
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from asking import Asker
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Odometry
from rosbags.image import image_to_cvimage
from scipy.spatial.transform import Rotation
from stand_ins.words import (
    ANGLE,
    BOX_A,
    BOX_B,
    CAMERA,
    DEPTH_GRID,
    DIRECTION,
    DISTANCE,
    MATCH_GRID,
    OBJECT_PAIRS,
    PAIR_CAMERA,
    ROTATION,
    as_the_authors,
    depth_metres,
    depth_pair,
    grid,
    match_pair,
    object_pair,
)

from vlm3_ros.engines.number_trees import RESOLUTION
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.messages.cameras import camera_info_message
from vlm3_ros.nodes.pose_node import PoseNode

OK, ERROR = DiagnosticStatus.OK, DiagnosticStatus.ERROR
ON_CPU = {"device": "cpu", "dtype": "float32", "offline": True}
POSES = {"pose": PoseStamped, "odom": Odometry}
DEPTH_SCALE = math.sqrt(250 * 384 / 98 * 200 * 320 / 62) / 1000
"""Metres per metre in answers: 98x62 px enter as 384x320 px, near the focal length of 1000 px."""


def show(rig, bench, camera: PinholeCamera, seed: int = 0, stamp: float | None = None) -> float:
    """Send a picture; return its stamp."""
    message = bench.rgb_message(stamp or bench.now(), bench.picture(camera, seed))
    rig.send(message, camera_info_message(message.header, camera))
    return bench.stamp_of(message)


def test_depth_node(make_rig, bench, stand_ins, seen):
    columns, rows = DEPTH_GRID
    chosen = {"depth_model": str(stand_ins / "VLM3-depth"), **ON_CPU}
    rig = make_rig(parameters={**chosen, "grid_columns": columns, "grid_rows": rows})
    rig.wait_active()
    stamp = show(rig, bench, CAMERA)
    for topic in ("points", "depth/image_rect"):
        rig.wait_for_stamp(stamp, topic)
    asked = [as_the_authors(pixel, CAMERA, 2000) for pixel in grid(CAMERA, columns, rows)]
    assert seen.sizes == {((384, 320),)}
    assert seen.questions == {depth_pair(*xy)[0] for xy in asked}
    depth = image_to_cvimage(rig.received["depth/image_rect"][-1]).ravel()
    expected = [DEPTH_SCALE * float(depth_metres(*xy)) for xy in asked]
    np.testing.assert_allclose(depth, expected, rtol=RESOLUTION / 2)
    std = np.frombuffer(rig.received["points"][-1].data, np.float32).reshape(-1, 5)[:, 4]
    assert len(std) == 32 and np.isfinite(std).all()
    assert rig.log_lines("VLM3-depth.*focal length of 1000 px")


def test_pose_node_checks_the_motion_by_matches_of_another_model(make_rig, bench, stand_ins, seen):
    columns, rows = MATCH_GRID
    rig = make_rig(
        make_node=PoseNode,
        outputs=POSES,
        parameters={
            "pose_model": str(stand_ins / "VLM3-pose"),
            "match_model": str(stand_ins / "VLM3-corr"),
            "base_from_camera": "0 0 0 0 0 0 1",
            "match_columns": columns,
            "match_rows": rows,
            **ON_CPU,
        },
    )
    rig.wait_active()
    start = bench.now()
    for index in (0, 1):
        stamp = show(rig, bench, PAIR_CAMERA, seed=index, stamp=round(start + index, 6))
        rig.wait_for_stamp(stamp, "pose")
    rig.wait_for_stamp(stamp, "odom")
    asked = [as_the_authors(pixel, PAIR_CAMERA, 1000) for pixel in grid(PAIR_CAMERA, columns, rows)]
    assert seen.sizes == {((512, 128), (512, 128)), ((1024, 256), (1024, 256))}
    assert seen.questions == {
        *(part[0] for part in (ANGLE, ROTATION, DIRECTION, DISTANCE)),
        *(match_pair(*xy)[0] for xy in asked),
    }
    pose = rig.received["odom"][-1].pose.pose
    place = [pose.position.x, pose.position.y, pose.position.z]
    np.testing.assert_allclose(place, [0.6 * 0.48, 0.0, 0.8 * 0.48], rtol=RESOLUTION)
    q = pose.orientation
    turned = Rotation.from_quat([q.x, q.y, q.z, q.w]).as_euler("YXZ", degrees=True)
    np.testing.assert_allclose(turned, [-3.9, -0.9, 0.6], atol=1e-6)
    rig.wait_for_status("odometry", OK, r"accepted: (the matches|\d+ image features) agree")


def test_query_node_asks_pixels_and_objects_of_two_models(make_rig, bench, stand_ins, seen):
    chosen = {
        "depth_model": str(stand_ins / "VLM3-depth"),
        "object_model": str(stand_ins / "VLM3-object"),
    }
    asker = Asker(make_rig, bench, parameters={**chosen, **ON_CPU})
    asker.wait_active()
    message = bench.rgb_message(bench.now(), bench.picture(CAMERA))
    asker.show(message, camera_info_message(message.header, CAMERA))
    (u, v), *_ = grid(CAMERA, *DEPTH_GRID)
    x, y = as_the_authors((u, v), CAMERA, 2000)
    answer = asker.ask({"depth": [u, v]})
    assert answer["raw"] == depth_pair(x, y)[1]
    assert answer["value"] == pytest.approx(DEPTH_SCALE * float(depth_metres(x, y)), rel=RESOLUTION)
    assert seen.sizes == {((384, 320),)}
    boxes = [list(BOX_A), list(BOX_B)]
    for question, index, value in (
        ({"objects": boxes, "relation": "small"}, 3, True),
        ({"objects": boxes, "relation": "behind"}, 6, False),
        ({"objects": boxes, "direction": "clock"}, 15, 2),
        ({"width": boxes[0]}, 11, 2.31 * 0.3048),
        ({"height": boxes[1]}, 14, 3.25 * 0.3048),
    ):
        text, raw = object_pair(OBJECT_PAIRS[index])
        answer = asker.ask(question)
        assert answer["raw"] == raw
        assert answer["value"] == pytest.approx(value, rel=RESOLUTION)
        assert text in seen.questions
    assert seen.sizes == {((384, 320),), ((384, 256),)}


def test_four_checkpoints_in_one_process(stand_ins):
    """As perception.launch.py starts them."""
    models = {
        "depth_model": "VLM3-depth",
        "pose_model": "VLM3-pose",
        "match_model": "VLM3-corr",
        "object_model": "VLM3-object",
    }
    chosen = {name: str(stand_ins / folder) for name, folder in models.items()}
    chosen |= {"base_from_camera": "0 0 0 0 0 0 1", "device": "cpu", "dtype": "float32"}
    options = [part for name, value in chosen.items() for part in ("-p", f"{name}:={value}")]
    process = subprocess.Popen(
        [sys.executable, "-m", "vlm3_ros.nodes.perception_node", "--ros-args", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    text = ""
    try:
        for line in process.stdout:
            text += line
            if text.count("ready for images") == 3:
                break
    finally:
        process.send_signal(signal.SIGINT)
        text += process.stdout.read()
        status = process.wait(600)
    assert status == 0, text
    memory = re.search(r"4 models, about 0\.3 GB of [\d.]+ GB free memory on cpu: .*", text)
    assert memory, text
    assert memory.start() < text.index("Qwen3VLForConditionalGeneration")
    for name in models.values():
        # 60 MB of weights, and a fifth for activations.
        assert f"{name} 72 MB" in memory[0]
        assert text.count(f"loading {name}:") == 1, text
