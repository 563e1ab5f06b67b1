# SPDX-License-Identifier: Apache-2.0
"""The metric scale of the depth node and the query node from the ground."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pytest
from asking import Asker
from diagnostic_msgs.msg import DiagnosticStatus
from rosbags.image import image_to_cvimage
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import Image, LaserScan, PointCloud2

from vlm3_ros.engines.base import Answer
from vlm3_ros.geometry.ground import MIN_FRAMES
from vlm3_ros.geometry.motion import transform
from vlm3_ros.language.wordings.depth import DepthWording, depth_answer
from vlm3_ros.messages.clouds import points_from_message

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR

OUTPUTS = {
    "points": PointCloud2,
    "depth/image_rect": Image,
    "depth_registered/image_rect": Image,
    "scan": LaserScan,
}

HEIGHT = 0.6
POSE = f"0 0 {HEIGHT} -0.5 0.5 -0.5 0.5"
"""A camera that looks forward."""

LOOKS_UP = f"0 0 {HEIGHT} 0 0 0 1"


@pytest.fixture
def floor_engine(bench):
    @dataclass
    class FloorEngine(bench.WallEngine):
        """Sees a level floor up to a wall, all a quarter too far; or the wall alone."""

        sees_floor: bool = True
        height: float = HEIGHT

        def ask(self, images, questions, answer_template=None):
            self.images.append(images[0])
            answers = []
            for question in questions:
                pixel = re.search(r"\(\d+, (\d+)\)", question)
                if pixel is None:
                    answers.append(Answer("two"))
                    continue
                y = int(pixel.group(1))
                down = ((y + 0.5) / 2000 * bench.CAMERA.height - 0.5 - bench.CAMERA.cy) / 300
                depth = self.height / down if self.sees_floor and down > 0.01 else 3.0
                wording = self.profile.prompts[DepthWording]
                answers.append(Answer(depth_answer(wording, 1.25 * min(depth, 3.0)), std=0.25))
            return answers

    return FloorEngine()


def make(make_rig, engine, **parameters):
    grid = {"grid_columns": 8, "grid_rows": 16, "scan_from_camera": POSE}
    return make_rig(engine, outputs=OUTPUTS, parameters={**grid, **parameters})


def send_frames(rig, count=MIN_FRAMES) -> float:
    """Send frames one after the other, each answered or failed; return the last stamp."""

    def done() -> int:
        report = rig.report()
        return report.answered + report.failed

    for _ in range(count):
        before = done()
        stamp = rig.send_good()
        rig.wait(lambda before=before: done() > before, "the end of the frame")
    return stamp


def test_all_outputs_are_scaled_by_the_ground(make_rig, floor_engine):
    rig = make(make_rig, floor_engine, scale_from="ground", ground_from_camera=POSE, max_depth=3.1)
    rig.wait_active()
    stamp = send_frames(rig)
    for topic in OUTPUTS:
        rig.wait_for_stamp(stamp, topic)
    points = points_from_message(rig.received["points"][-1])
    assert len(points) == 8 * 16  # max_depth is a limit on scaled depths
    floor = points[points[:, 2] < 2.8]
    np.testing.assert_allclose(floor[:, 1], HEIGHT, rtol=0.02)
    for topic in ("depth/image_rect", "depth_registered/image_rect"):
        depth = image_to_cvimage(rig.received[topic][-1])
        assert np.nanmax(depth) == pytest.approx(3.0, rel=0.04)
    ranges = np.array(rig.received["scan"][-1].ranges)
    assert np.nanmin(ranges) == pytest.approx(3.0, rel=0.02)
    rig.wait_for_status("ground", OK, r"factor 0\.\d+ \(applied\), \d+ answers on the ground")
    assert float(rig.value("factor", "ground")) == pytest.approx(0.8, rel=0.02)


def test_the_factor_is_kept_and_reported_while_only_a_wall_is_seen(
    make_rig, floor_engine, monkeypatch
):
    monkeypatch.setattr("vlm3_ros.nodes.scale_input.PATIENCE", 0.0)
    rig = make(make_rig, floor_engine, scale_from="ground", ground_from_camera=POSE)
    rig.wait_active()
    rig.wait_for_stamp(send_frames(rig))
    floor_engine.sees_floor = False
    rig.wait_for_stamp(rig.send_good())
    points = points_from_message(rig.received["points"][-1])
    np.testing.assert_allclose(points[:, 2], 3.0, rtol=0.02)
    rig.wait_for_status("ground", WARN, "no ground in the last frame: ")


def test_nothing_is_published_before_the_ground_was_found(make_rig, floor_engine):
    floor_engine.sees_floor = False
    rig = make(make_rig, floor_engine, scale_from="ground", ground_from_camera=POSE)
    rig.wait_active()
    rig.send_good()
    rig.wait_for_status("ground", ERROR, "no ground was found yet: ")
    rig.wait_for_status("frames", ERROR, "nothing is published, because scale_from is ground")
    assert not rig.received["points"]
    floor_engine.sees_floor = True
    send_frames(rig, MIN_FRAMES - 1)
    found = f"the ground was found in {MIN_FRAMES - 1} of .* frames; 3 are needed"
    rig.wait_for_status("ground", ERROR, found)
    assert not rig.received["points"]
    rig.wait_for_stamp(rig.send_good())
    rig.wait_for_status("frames", OK, "Hz")


def test_another_factor_in_the_last_frame_warns(make_rig, floor_engine):
    """The robot was lifted, or stands at a kerb: no answer can tell."""
    rig = make(make_rig, floor_engine, scale_from="ground", ground_from_camera=POSE)
    rig.wait_active()
    rig.wait_for_stamp(send_frames(rig))
    floor_engine.height = 0.75 * HEIGHT
    rig.wait_for_stamp(rig.send_good())
    text = r"factor 0\.\d+ \(applied\), but 1\.0\d* in the last frame"
    rig.wait_for_status("ground", WARN, text)


def test_by_default_nothing_is_scaled_but_a_known_height_is_measured(make_rig, floor_engine):
    rig = make(make_rig, floor_engine)
    rig.wait_active()
    rig.wait_for_stamp(rig.send_good())
    assert points_from_message(rig.received["points"][-1])[:, 2].max() == pytest.approx(3.75)
    rig.wait_for_status("ground", OK, "not measured: scale_from is none")
    assert rig.set_parameters(ground_from_camera=POSE).successful
    rig.wait_for_stamp(send_frames(rig))
    assert points_from_message(rig.received["points"][-1])[:, 2].max() == pytest.approx(3.75)
    rig.wait_for_status("ground", OK, r"factor 0\.\d+ \(not applied: scale_from is none\)")
    refused = rig.set_parameters(ground_from_camera="0 0 -1 0 0 0 1")
    assert "the camera's height z is -1 m" in refused.reason


def test_the_height_comes_from_tf(make_rig, floor_engine, bench, monkeypatch):
    class Tree:
        mount = None

        def __init__(self, node):
            pass

        def newest(self, target, source, timeout, is_wanted):
            assert (target, source) == ("base_footprint", bench.FRAME)
            return self.mount

        def close(self):
            pass

    monkeypatch.setattr("vlm3_ros.ros.camera_mounts.FrameTree", Tree)
    rig = make(make_rig, floor_engine, scale_from="ground")
    rig.wait_active()
    rig.send_good()
    missing = f"height is unknown: no transform from '{bench.FRAME}' to 'base_footprint' on TF"
    rig.wait_for_status("ground", ERROR, missing)
    rig.wait_for_status("frames", ERROR, missing)
    rotation = Rotation.from_quat([-0.5, 0.5, -0.5, 0.5])
    Tree.mount = transform(rotation, [0.2, 0, HEIGHT])
    rig.wait_for_stamp(send_frames(rig))
    rig.wait_for_status("ground", OK, "applied")


@pytest.fixture
def asker(make_rig, bench, floor_engine):
    asker = Asker(make_rig, bench, floor_engine)
    asker.wait_active()
    return asker


def ask_scaled(asker) -> None:
    assert asker.rig.set_parameters(scale_from="ground", ground_from_camera=POSE).successful


def test_the_query_node_scales_depths_and_points(asker, floor_engine):
    asker.show()
    assert asker.ask({"depth": [100, 20]})["value"] == pytest.approx(3.75)
    asker.rig.wait_for_status("ground", OK, "not measured: scale_from is none")
    ask_scaled(asker)
    asks = len(floor_engine.images)
    answer = asker.ask({"depth": [100, 20]})
    assert answer["value"] == pytest.approx(3.0, rel=0.02)
    assert answer["uncertainty"] == pytest.approx(0.2, rel=0.02)
    assert asker.click(150.0, 130.0)["value"] == pytest.approx([0, 0, 3.0], rel=0.02, abs=1e-6)
    assert len(floor_engine.images) == asks + 3  # the ground of an image is asked about once
    asker.rig.wait_for_status("ground", OK, r"factor 0\.[78]\d* \(applied\).*keeps its own scale")


def test_the_query_node_refuses_depths_without_ground(asker, floor_engine):
    ask_scaled(asker)
    asker.rig.wait_for_status("ground", OK, "not measured yet")
    floor_engine.sees_floor = False
    asker.show()
    answer = asker.ask({"depth": [100, 20]})
    assert answer["status"] == "refused"
    assert "scale_from is ground: no ground was found yet: " in answer["reason"]
    asker.rig.wait_for_status("ground", ERROR, "no ground was found yet")
    assert asker.rig.set_parameters(ground_from_camera=LOOKS_UP).successful
    assert "only 0 answers lie 5 degrees" in asker.ask({"depth": [100, 20]})["reason"]
    assert asker.ask("How many?")["status"] == "free text"
    floor_engine.sees_floor = True
    ask_scaled(asker)
    asker.show()
    assert asker.ask({"depth": [100, 20]})["value"] == pytest.approx(3.0, rel=0.02)
