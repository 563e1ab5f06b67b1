# SPDX-License-Identifier: Apache-2.0
"""docs/topics.md, docs/parameters.md and config/*.yaml match the nodes."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("transformers")

from checkpoint_page import checkpoints_page
from interface_pages import CAMERA_NODES, CONFIG, DOCS, config_files, parameters_page, topics_page
from rclpy.node import Node
from topic_table import (
    DocumentationError,
    Documented,
    Existing,
    check,
    documented_sections,
    existing_interfaces,
)

import vlm3_ros.nodes
from vlm3_ros.nodes.bag_player import BagPlayer
from vlm3_ros.ros.node import CameraModelNode

STALE = "is stale: run `python tools/interface_pages.py`"

POINTS = Documented("Publishers", "points", "sensor_msgs/PointCloud2", "the answers")
CLOUD = Existing("sensor_msgs/PointCloud2", "reliable, depth 5")


def test_the_topics_are_those_of_running_nodes():
    assert (DOCS / "topics.md").read_text() == topics_page(), f"docs/topics.md {STALE}"


def test_the_parameters_are_those_of_the_nodes():
    assert (DOCS / "parameters.md").read_text() == parameters_page(), f"docs/parameters.md {STALE}"


def test_the_checkpoints_are_asked_as_their_profiles_say():
    page = (DOCS / "checkpoints.md").read_text()
    assert page == checkpoints_page(page), f"docs/checkpoints.md {STALE}"


@pytest.mark.parametrize("name", [f"{name.removesuffix('_node')}.yaml" for name in CAMERA_NODES])
def test_the_parameter_files_match_the_nodes(name):
    assert (CONFIG / name).read_text() == config_files()[name], f"config/{name} {STALE}"


def test_no_node_is_left_out():
    for module in pkgutil.iter_modules(vlm3_ros.nodes.__path__, "vlm3_ros.nodes."):
        importlib.import_module(module.name)

    def derived(base: type) -> set[type]:
        return {base}.union(*(derived(c) for c in base.__subclasses__()))

    ours = {c for c in derived(CameraModelNode) if c.__module__.startswith("vlm3_ros.nodes.")}
    assert ours == set(CAMERA_NODES.values())


def test_what_is_documented_exists():
    check("node", [POINTS], {("Publishers", "points"): CLOUD})
    with pytest.raises(DocumentationError, match="node: Publishers points is documented and does"):
        check("node", [POINTS], {})
    with pytest.raises(DocumentationError, match=r"Subscribers points .* is not documented"):
        check(
            "node",
            [POINTS],
            {("Publishers", "points"): CLOUD, ("Subscribers", "points"): CLOUD},
        )
    with pytest.raises(DocumentationError, match="points is sensor_msgs/Image, documented as"):
        check("node", [POINTS], {("Publishers", "points"): Existing("sensor_msgs/Image", "")})


def test_the_names_of_a_running_node_are_those_of_its_docstring(ros):
    from sensor_msgs.msg import Image
    from std_srvs.srv import Trigger

    node = Node("asker", namespace="front")
    try:
        node.create_publisher(Image, "depth/image_rect", 3)
        node.create_publisher(Image, "/shared", 3)
        node.create_service(Trigger, "~/reset", lambda request, response: response)
        assert existing_interfaces(node) == {
            ("Publishers", "depth/image_rect"): Existing("sensor_msgs/Image", "reliable, depth 3"),
            ("Publishers", "/shared"): Existing("sensor_msgs/Image", "reliable, depth 3"),
            ("Services", "~/reset"): Existing("std_srvs/Trigger", ""),
        }
    finally:
        node.destroy_node()


def test_a_docstring_that_cannot_be_read_is_named():
    class Mute(Node):
        """Says nothing of its topics."""

    class Vague(Node):
        """Says too little.

        Publishers:
            points: the answers
        """

    with pytest.raises(DocumentationError, match="Mute: its docstring has none of Subscribers"):
        documented_sections(Mute)
    with pytest.raises(DocumentationError, match="Vague: 'points: the answers' does not read"):
        documented_sections(Vague)
    with pytest.raises(DocumentationError, match="BagPlayer: 'every topic of the bag"):
        documented_sections(BagPlayer)  # whose topics are the bag's
