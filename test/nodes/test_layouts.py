# SPDX-License-Identifier: Apache-2.0
"""The layouts of RViz and Foxglove against what the nodes publish."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
import yaml
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.publisher import Publisher
from rclpy.qos import ReliabilityPolicy

from vlm3_ros.nodes.depth_node import DepthNode
from vlm3_ros.nodes.pose_node import PoseNode
from vlm3_ros.nodes.query_node import QueryNode
from vlm3_ros.paths import share_folder
from vlm3_ros.ros.diagnostics import FrameReport
from vlm3_ros.ros.node import CameraModelNode

NODES = (DepthNode, PoseNode, QueryNode)

WITH_VISION_MSGS = {"objects/markers"}
"""Published only if that package is installed."""

SHOWN_BY = {
    "rviz_default_plugins/Image": "Image",
    "rviz_default_plugins/LaserScan": "LaserScan",
    "rviz_default_plugins/MarkerArray": "MarkerArray",
    "rviz_default_plugins/Odometry": "Odometry",
    "rviz_default_plugins/Path": "Path",
    "rviz_default_plugins/PointCloud2": "PointCloud2",
    "rviz_default_plugins/PointStamped": "PointStamped",
}
"""Message types of RViz's displays, as its plugins_description.xml has them."""


@pytest.fixture
def nodes(ros, bench) -> Iterator[list[CameraModelNode]]:
    """All nodes, configured."""
    place = Parameter("base_from_camera", value="0 0 0 0 0 0 1")
    made = [
        node_class(
            lambda settings, progress: bench.WallEngine(),
            parameter_overrides=[place] if node_class is PoseNode else [],
        )
        for node_class in NODES
    ]
    for node in made:
        assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    yield made
    for node in made:
        node.destroy_node()


@pytest.fixture
def published(nodes) -> dict[str, Publisher]:
    return {p.topic_name.removeprefix("/"): p for node in nodes for p in node.publishers}


@pytest.fixture
def subscribed(nodes) -> dict[str, str]:
    """Message types by topic of all subscriptions of the active nodes."""
    for node in nodes:
        node.trigger_activate()
    return {
        s.topic_name.removeprefix("/"): s.msg_type.__name__
        for node in nodes
        for s in node.subscriptions
    }


def type_name(publisher: Publisher) -> str:
    return publisher.msg_type.__name__


def test_rviz_shows_topics_of_the_nodes(published, subscribed):
    layout = yaml.safe_load((share_folder() / "rviz" / "vlm3.rviz").read_text())
    shown = {
        display["Topic"]["Value"]: (display["Class"], display["Topic"])
        for display in layout["Visualization Manager"]["Displays"]
        if "Topic" in display
    }
    assert shown.pop("image")[0] == "rviz_default_plugins/Image"
    assert subscribed["image"] == "Image"
    assert "debug_image" in shown
    missing = set(shown) - set(published)
    assert missing <= WITH_VISION_MSGS
    for topic, (plugin, qos) in shown.items():
        if topic in missing:
            continue
        assert type_name(published[topic]) == SHOWN_BY[plugin], topic
        reliable = published[topic].qos_profile.reliability == ReliabilityPolicy.RELIABLE
        assert reliable or qos["Reliability Policy"] == "Best Effort", topic


def leaves(layout: dict | str) -> list[str]:
    if isinstance(layout, str):
        return [layout]
    return leaves(layout["first"]) + leaves(layout["second"])


def test_foxglove_shows_topics_of_the_nodes(published, subscribed, nodes):
    layout = json.loads((share_folder() / "foxglove" / "vlm3.json").read_text())
    panels = layout["configById"]
    assert sorted(leaves(layout["layout"])) == sorted(panels)
    known = {f"/{topic}" for topic in [*published, "image", "camera_info"]}
    shown = set(panels["3D!vlm3"]["topics"])
    for name, panel in panels.items():
        if name.startswith("Image!"):
            mode = panel["imageMode"]
            shown |= {mode[key] for key in ("imageTopic", "calibrationTopic") if key in mode}
            # No camera_info describes it: it is enlarged, and has a legend.
            assert ("calibrationTopic" in mode) == (mode["imageTopic"] != "/debug_image")
        if name.startswith("RawMessages!"):
            shown.add(panel["topicPath"].partition(".")[0])
        if name.startswith("Publish!"):
            kind = panel["datatype"].rpartition("/")[2]
            assert subscribed[panel["topicName"].removeprefix("/")] == kind
            json.loads(panel["value"])
    assert {topic[1:] for topic in shown - known} <= WITH_VISION_MSGS
    assert "/debug_image" in shown
    keys = FrameReport(latency_p50=0.0, latency_p95=0.0).values()
    statuses = {node.health.status_name(part) for node in nodes for part in ("frames", "questions")}
    for path in panels["Plot!latency"]["paths"]:
        name, key = re.findall(r'=="([^"]+)"', path["value"])
        assert name in statuses
        assert key in keys
