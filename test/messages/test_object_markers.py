# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy")

from std_msgs.msg import Header
from visualization_msgs.msg import Marker

from vlm3_ros.messages.object_markers import markers_message
from vlm3_ros.tasks.located import LocatedObject

HEADER = Header(frame_id="camera")
NEAR = LocatedObject(np.array([1.0, 2.0, 2.0]), np.array([0.5, 1.5, 0.25]), 0.1)
FAR = LocatedObject(np.array([0.0, 0.0, 30.0]), np.array([2.0, 3.0, 2.0]), float("nan"))


def test_each_object_gets_a_box_and_a_text():
    markers = markers_message(HEADER, [("chair", NEAR), ("", FAR)], 0.5).markers
    first, box, text, far_box, far_text = markers
    assert first.action == Marker.DELETEALL
    assert (box.type, text.type) == (Marker.CUBE, Marker.TEXT_VIEW_FACING)
    assert (box.scale.x, box.scale.y, box.scale.z) == (0.5, 1.5, 0.25)
    assert (box.pose.position.x, box.pose.position.y, box.pose.position.z) == (1.0, 2.0, 2.0)
    assert box.pose.orientation.w == 1.0
    assert text.pose.position.y < 2.0 - 0.75  # above: Y points down
    assert (text.text, far_text.text) == ("chair 3.00 m", "30.00 m")
    assert far_text.scale.z > text.scale.z  # legible from the camera
    assert len({(marker.ns, marker.id) for marker in markers[1:]}) == 4
    assert all((m.lifetime.sec, m.lifetime.nanosec) == (0, 500_000_000) for m in markers[1:])
    assert box.color.a < 1.0 and far_box.color.a < 1.0


def test_a_class_has_one_colour():
    def colour(name: str):
        return markers_message(HEADER, [("other", FAR), (name, NEAR)], 0.0).markers[3].color

    assert colour("chair") == colour("chair")
    assert colour("chair") != colour("table")


def test_no_objects_delete_the_earlier_ones():
    (only,) = markers_message(HEADER, [], 1.0).markers
    assert only.action == Marker.DELETEALL
