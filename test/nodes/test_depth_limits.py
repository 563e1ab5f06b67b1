# SPDX-License-Identifier: Apache-2.0
"""Answers that the depth node withholds: too uncertain ones, and late ones."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from rosbags.image import image_to_cvimage
from sensor_msgs.msg import Image

from vlm3_ros.tasks.debug_image import draw_answers
from vlm3_ros.tasks.dense import densify
from vlm3_ros.tasks.depth import uniform_grid

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR

COLUMNS = np.array([250, 750, 1250, 1750])
"""Text coordinates of the grid's columns."""


def last(rig, topic):
    rig.wait(lambda: rig.received[topic], topic)
    return rig.received[topic][-1]


def uncertain_engine(bench, stds):
    """The wall, with answers that have these standard deviations in turn."""

    @dataclass
    class Uncertain(bench.WallEngine):
        def ask(self, *arguments):
            answers = super().ask(*arguments)
            return [replace(a, std=stds[i % len(stds)]) for i, a in enumerate(answers)]

    return Uncertain()


def test_uncertain_answers_are_not_published(make_rig, bench):
    depth = bench.wall_depth(COLUMNS)
    share = np.array([0.1, 0.3, 0.2, np.nan])
    stds = [None if np.isnan(s) else float(s * d) for s, d in zip(share, depth, strict=True)]
    rig = make_rig(uncertain_engine(bench, stds), parameters={"max_uncertainty": 0.25})
    rig.wait_active()
    rig.wait_for_stamp(rig.send_good(), "depth/image_rect")
    sparse = image_to_cvimage(last(rig, "depth/image_rect"))
    expected = np.where([True, False, True, False], depth, np.nan)
    np.testing.assert_allclose(sparse, np.tile(expected, (3, 1)), rtol=1e-6)
    assert last(rig, "points").width == 6
    dense = image_to_cvimage(last(rig, "depth_registered/image_rect"))
    pixels = uniform_grid(bench.CAMERA, 4, 3)
    np.testing.assert_array_equal(dense, densify(bench.picture(), pixels, sparse.ravel()))
    rig.wait_for_status("answers", OK, "6 published, 0 out of range, 6 too uncertain, 0 unanswered")
    assert rig.value("too uncertain", "answers") == "6"

    assert rig.set_parameters(max_uncertainty=0.0).successful
    stamp = rig.send_good()
    rig.wait_for_stamp(stamp)
    assert last(rig, "points").width == 12


def test_the_debug_image_is_drawn_only_for_a_subscriber(make_rig, bench, monkeypatch):
    drawn = []
    draw = "vlm3_ros.nodes.depth_node.draw_answers"
    monkeypatch.setattr(draw, lambda depth: drawn.append(1) or draw_answers(depth))
    outputs = {**bench.OUTPUTS, "debug_image": Image}
    rig = make_rig(bench.WallEngine(), outputs=outputs, listen=["points"])
    rig.wait_active()
    rig.wait_for_stamp(rig.send_good())
    assert not drawn
    rig.listen("debug_image")
    rig.send_until(rig.send_good, lambda: rig.received["debug_image"], "a debug image")
    picture = last(rig, "debug_image")
    assert picture.encoding == "rgb8"
    assert picture.header.frame_id == bench.FRAME
    assert picture.width == 2 * bench.CAMERA.width


def test_a_filter_that_no_answer_can_pass_is_reported(make_rig, bench):
    rig = make_rig(uncertain_engine(bench, [None]), parameters={"max_uncertainty": 0.25})
    rig.wait_active()
    rig.send_good()
    rig.wait_for_status(
        "frames", ERROR, "max_uncertainty is 0.25, but no answer has an uncertainty"
    )
    assert not rig.received["points"]
    assert rig.set_parameters(max_uncertainty=0.0).successful
    rig.wait_for_stamp(rig.send_good())


def test_unanswered_is_not_uncertain(make_rig, bench):
    rig = make_rig(bench.WallEngine(unread=12), parameters={"max_uncertainty": 0.25})
    rig.wait_active()
    rig.wait_for_stamp(rig.send_good())
    assert last(rig, "points").width == 0
    rig.wait_for_status("answers", OK, "0 published.* 0 too uncertain, 12 unanswered")


@pytest.mark.parametrize(
    ("then", "text"),
    [
        (5003.5, r"/image: the frame is 3.5 s old, older than max_frame_age \(2 s\).*came late"),
        (4900.0, r"/image: the frame's stamp is 100.0 s in the future.*jumped back"),
    ],
)
def test_late_answers_are_withheld(make_rig, bench, then, text):
    engine = bench.WallEngine(gate=threading.Semaphore(0))
    rig = make_rig(engine, parameters={"use_sim_time": True})
    rig.wait_active()
    rig.set_clock(5000.5)
    assert rig.set_parameters(max_frame_age=2.0).successful
    rig.send(bench.rgb_message(5000.0))
    assert engine.entered.acquire(timeout=bench.PATIENCE)
    rig.set_clock(then)
    engine.gate.release(100)
    rig.wait_for_status("frames", ERROR, text)
    rig.wait(lambda: rig.log_lines(text), "a line in the log")
    assert rig.value("frames failed") == "1"
    rig.wait_for_status("answers", OK, "^nothing is published$")
    rig.send(bench.rgb_message(then - 1))
    rig.wait_for_stamp(then - 1)
    assert rig.stamps("points") == [then - 1]
    rig.wait_for_status("frames", OK, "Hz")


def test_late_answers_are_published_by_default(make_rig, bench):
    engine = bench.WallEngine(gate=threading.Semaphore(0))
    rig = make_rig(engine, parameters={"use_sim_time": True})
    rig.wait_active()
    rig.set_clock(5000.5)
    rig.send(bench.rgb_message(5000.0))
    assert engine.entered.acquire(timeout=bench.PATIENCE)
    rig.set_clock(5008.0)
    engine.gate.release(100)
    rig.wait_for_stamp(5000.0)


def test_answers_before_a_new_activation_are_not_reported(make_rig, bench):
    rig = make_rig(bench.WallEngine())
    rig.wait_active()
    rig.wait_for_stamp(rig.send_good())
    rig.wait_for_status("answers", OK, "12 published")
    assert rig.change_state("deactivate") and rig.change_state("activate")
    rig.wait_for_status("answers", OK, "^nothing is published$")
