# SPDX-License-Identifier: Apache-2.0
"""The scan of the depth node, over DDS."""

from __future__ import annotations

import math
import sys
from typing import ClassVar

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.qos import DurabilityPolicy, QoSProfile
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import LaserScan, PointCloud2
from tf2_msgs.msg import TFMessage

from vlm3_ros.geometry.motion import transform
from vlm3_ros.messages.motions import tf_message

OK, WARN = DiagnosticStatus.OK, DiagnosticStatus.WARN

OUTPUTS = {"points": PointCloud2, "scan": LaserScan}

LEVEL = "0.2 0 0.5 -0.5 0.5 -0.5 0.5"
"""A camera at a height of half a metre that looks forward."""


def last(rig, topic):
    rig.wait(lambda: rig.received[topic], topic)
    return rig.received[topic][-1]


def make(make_rig, bench, **parameters):
    return make_rig(
        bench.WallEngine(),
        outputs=OUTPUTS,
        parameters={"scan_min_height": -5.0, "scan_max_height": 5.0, **parameters},
    )


def beams_of(scan):
    return scan.angle_min + np.arange(len(scan.ranges)) * scan.angle_increment


def test_the_scan_shows_the_wall(make_rig, bench):
    rig = make(make_rig, bench, scan_from_camera=LEVEL, scan_frame="robot")
    rig.wait_active()
    stamp = rig.send_good()
    rig.wait_for_stamp(stamp, "scan")
    scan = last(rig, "scan")
    assert scan.header.frame_id == "robot"
    assert scan.range_min == pytest.approx(0.1)
    assert scan.range_max == pytest.approx(10)
    assert scan.angle_max == pytest.approx(beams_of(scan)[-1], abs=1e-4)
    ranges = np.array(scan.ranges)
    # Intersections of the beams with the wall's four columns, each 80 px wide.
    x, y = ranges * np.cos(beams_of(scan)), ranges * np.sin(beams_of(scan))
    column = np.floor((150.5 - 300 * y / (x - 0.2)) / 80)
    known = np.isfinite(ranges)
    np.testing.assert_allclose(
        x[known] - 0.2, bench.wall_depth((column[known] + 0.5) * 500), rtol=1e-4
    )
    assert set(column[known]) == {0, 1, 2, 3}
    assert np.isnan(ranges[np.abs(beams_of(scan)) > 0.7]).all()
    rig.wait_for_status("scan", OK, f"{known.sum()} of {len(ranges)} beams known, in robot")


def test_heights_and_ranges_change_at_run_time(make_rig, bench):
    rig = make(make_rig, bench, scan_from_camera=LEVEL)
    rig.wait_active()
    assert rig.set_parameters(scan_max_range=0.9, scan_min_range=0.5).successful
    rig.wait_for_stamp(rig.send_good(), "scan")
    ranges = np.array(last(rig, "scan").ranges)
    assert np.isinf(ranges).any() and (ranges[~np.isnan(ranges)] == np.inf).all()
    assert rig.set_parameters(scan_min_height=6.0, scan_max_height=7.0).successful
    stamp = rig.send_good()
    rig.wait_for_stamp(stamp, "scan")
    assert np.isnan(last(rig, "scan").ranges).all()
    refused = rig.set_parameters(scan_min_height=8.0)
    assert "'scan_min_height' (8) must be smaller than 'scan_max_height' (7)" in refused.reason
    for value, text in {"scan_frame": "/base_link", "scan_from_camera": "1 2 3"}.items():
        refused = rig.set_parameters(**{value: text})
        assert not refused.successful
        assert value in refused.reason


def test_no_scan_without_a_subscriber(make_rig, bench):
    rig = make_rig(bench.WallEngine(), outputs=OUTPUTS, listen=["points"])
    rig.wait_active()
    rig.wait_for_stamp(rig.send_good())
    rig.wait_for_status("scan", OK, "nobody subscribes")


def test_points_are_published_without_a_camera_pose_for_the_scan(make_rig, bench, monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2_ros", None)
    rig = make(make_rig, bench)
    rig.wait_active()
    stamp = rig.send_good()
    rig.wait_for_stamp(stamp)
    rig.wait_for_status("scan", WARN, "tf2_ros is not installed.*set scan_from_camera")
    rig.wait(lambda: rig.log_lines("set scan_from_camera"), "a line in the log")
    rig.wait_for_status("frames", OK, "Hz")
    assert not rig.received["scan"]
    assert rig.set_parameters(scan_from_camera=LEVEL).successful
    rig.wait_for_stamp(rig.send_good(), "scan")
    rig.wait_for_status("scan", OK, "beams known")


def publish_place(rig, bench):
    """Publish on /tf_static; return the publisher, which must stay alive."""
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    static = rig.peer.create_publisher(TFMessage, "/tf_static", latched)
    T = transform(Rotation.from_quat([-0.5, 0.5, -0.5, 0.5]), [0.2, 0, 0.5])
    message = tf_message(bench.header(bench.now(), "base_link"), bench.FRAME, T)
    static.publish(message)
    return static


def tf_listeners(rig):
    return [
        info.node_name
        for info in rig.peer.get_subscriptions_info_by_topic("/tf")
        if info.node_namespace == rig.namespace
    ]


def test_a_pose_that_tf_knows_is_not_reported_as_missing(make_rig, bench):
    pytest.importorskip("tf2_ros")
    rig = make(make_rig, bench)
    static = publish_place(rig, bench)
    rig.wait_active()
    rig.wait_for_stamp(rig.send_good(), "scan")
    assert len(rig.received["scan"]) == 1
    assert not rig.log_lines("no transform")
    rig.wait(lambda: not tf_listeners(rig), "end of the listening to /tf")
    rig.peer.destroy_publisher(static)


def test_tf_is_listened_to_only_while_it_is_needed(make_rig, bench):
    pytest.importorskip("tf2_ros")
    rig = make(make_rig, bench)
    rig.wait_active()
    rig.wait_for_stamp(rig.send_good())
    rig.wait_for_status("scan", WARN, "no transform")
    rig.wait(lambda: tf_listeners(rig), "a listener to /tf")
    assert rig.set_parameters(scan_from_camera=LEVEL).successful
    rig.wait_for_stamp(rig.send_good(), "scan")
    rig.wait(lambda: not tf_listeners(rig), "end of the listening to /tf")


def test_the_camera_pose_for_the_scan_comes_from_tf(make_rig, bench):
    pytest.importorskip("tf2_ros")
    rig = make(make_rig, bench)
    rig.wait_active()
    rig.wait_for_stamp(rig.send_good())
    rig.wait_for_status("scan", WARN, f"no transform from '{bench.FRAME}' to 'base_link' on TF")
    static = publish_place(rig, bench)
    rig.send_until(rig.send_good, lambda: rig.received["scan"], "a scan")
    rig.wait_for_status("scan", OK, "in base_link")
    scan = last(rig, "scan")
    ahead = round((0 - scan.angle_min) / scan.angle_increment)
    assert math.isfinite(scan.ranges[ahead])
    rig.peer.destroy_publisher(static)


class Tree:
    """Stands in for the TF of a robot, without DDS."""

    mounts: ClassVar[dict[tuple[str, str], np.ndarray]] = {}
    opened: ClassVar[list[Tree]] = []

    def __init__(self, node):
        self.is_closed = False
        self.opened.append(self)

    def newest(self, target, source, timeout, is_wanted):
        return self.mounts.get((target, source))

    def close(self):
        self.is_closed = True


def test_a_mount_that_changes_on_tf_is_looked_up_again(make_rig, bench, monkeypatch):
    monkeypatch.setattr("vlm3_ros.ros.camera_mounts.FrameTree", Tree)
    monkeypatch.setattr("vlm3_ros.ros.camera_mounts.TF_PERIOD", 0.5)
    rotation = Rotation.from_quat([-0.5, 0.5, -0.5, 0.5])
    key = ("base_link", bench.FRAME)
    monkeypatch.setattr(Tree, "mounts", {key: transform(rotation, [0.2, 0, 0.5])})
    rig = make(make_rig, bench)
    rig.wait_active()

    def nearest() -> float:
        rig.wait_for_stamp(rig.send_good(), "scan")
        return np.nanmin(last(rig, "scan").ranges)

    before = nearest()
    Tree.mounts[key] = transform(rotation, [1.2, 0, 0.5])
    rig.wait(lambda: abs(nearest() - before) > 0.5, "a scan from the new place")
    assert rig.log_lines("the transform .* has changed on TF: scans use the new one")
    del Tree.mounts[key]  # the publisher has ended: the last place counts
    opened = len(Tree.opened)
    rig.wait(lambda: nearest() and len(Tree.opened) > opened, "another look at TF")
    assert not rig.log_lines("no transform")


def test_a_node_that_is_activated_again_forgets_the_mount(make_rig, bench, monkeypatch):
    monkeypatch.setattr("vlm3_ros.ros.camera_mounts.FrameTree", Tree)
    rotation = Rotation.from_quat([-0.5, 0.5, -0.5, 0.5])
    key = ("base_link", bench.FRAME)
    monkeypatch.setattr(Tree, "mounts", {key: transform(rotation, [0.2, 0, 0.5])})
    rig = make(make_rig, bench)
    rig.wait_active()
    rig.wait_for_stamp(rig.send_good(), "scan")
    assert rig.change_state("deactivate")
    del Tree.mounts[key]
    assert rig.change_state("activate")
    rig.send_until(rig.send_good, lambda: rig.log_lines("no transform"), "the missing transform")
