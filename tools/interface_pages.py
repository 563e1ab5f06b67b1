# SPDX-License-Identifier: Apache-2.0
"""Write docs/topics.md and docs/parameters.md from the nodes themselves (needs ROS 2 and torch)."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from pathlib import Path

import rclpy
from parameter_table import parameter_table
from rclpy.context import Context
from rclpy.node import Node
from rclpy.parameter import Parameter
from topic_table import Existing, existing_interfaces, summary, topic_tables

from vlm3_ros.engines.sharing import EnginePool
from vlm3_ros.nodes.bag_player import BagPlayer
from vlm3_ros.nodes.depth_node import DepthNode
from vlm3_ros.nodes.pose_node import PoseNode
from vlm3_ros.nodes.query_node import QueryNode
from vlm3_ros.ros.node import CameraModelNode
from vlm3_ros.ros.node_parameters import CameraModelParameters, FrameParameters
from vlm3_ros.ros.parameters import ParameterTable

DOCS = Path(__file__).resolve().parents[1] / "docs"

CAMERA_NODES: dict[str, type[CameraModelNode]] = {
    "depth_node": DepthNode,
    "pose_node": PoseNode,
    "query_node": QueryNode,
}
"""The nodes that ask a model about a camera, in the order of the pages."""

_GENERATED = (
    "<!-- Written by tools/interface_pages.py from the nodes' own descriptions: change those. -->"
)

_TOPICS = f"""\
{_GENERATED}

# Topics and services

What each node has, read from a running one. Names are relative: put a camera's nodes into a
namespace, remap what is named otherwise (`-r image:=/camera/image_raw`, or the launch files'
arguments). The QoS of each topic can be overridden by the parameters
`qos_overrides.<topic>.<publisher or subscription>.<policy>`; with `process_every_frame` images are
subscribed to reliably, with a depth of `queue_size`. Frames, units, signs and what NaN means are in
[conventions.md](conventions.md), parameters in [parameters.md](parameters.md).

Every node but `bag_player` is a lifecycle node with ROS's lifecycle and parameter services.
`perception_node` is the nodes below in one process, with one model in memory where they are given
the same. `bag_player` publishes the topics of a bag, reliable with depth 10 and as they were
recorded, and `/clock`.
"""

_PARAMETERS = f"""\
{_GENERATED}

# Parameters

Set them in a file (`params_file:=my.yaml`, of the form of
[config/depth.yaml](../config/depth.yaml)), on the command line (`--ros-args -p grid_columns:=24`)
or while the node runs (`ros2 param set /depth_node grid_columns 24`). The last column says when: at
*any time*; while the lifecycle node is *unconfigured* (`ros2 lifecycle set /depth_node deactivate`,
then `cleanup`, before, and `configure`, `activate` after); or at *start* only. A value that a node
does not take is refused with the reason, and the old one stays. `ros2 param describe /depth_node
NAME` tells the same.
"""


def topics_page() -> str:
    """The text of docs/topics.md.

    Raises:
        DocumentationError: when a docstring and its node differ.
    """
    pool = EnginePool()
    parts = [_TOPICS]
    for name, node_class in CAMERA_NODES.items():
        existing = running_interfaces(node_class, pool)
        parts += [f"## {name}\n", f"{summary(node_class)}\n"]
        parts += [f"{topic_tables(node_class, existing)}\n"]
    return "\n".join(parts)


def parameters_page() -> str:
    """The text of docs/parameters.md."""
    shared = {
        "Every node": CameraModelParameters,
        "Nodes that answer every frame": FrameParameters,
    }
    parts = [_PARAMETERS]
    for title, table in shared.items():
        users = [
            name for name, node in CAMERA_NODES.items() if issubclass(parameter_class(node), table)
        ]
        parts += [f"## {title}\n", f"{', '.join(users)}:\n\n{_own_parameters(table)}\n"]
    for name, node_class in CAMERA_NODES.items():
        own = _own_parameters(parameter_class(node_class))
        parts += [f"## {name}\n", f"Beside those above:\n\n{own}\n"]
    parts += ["## bag_player\n", f"{_own_parameters(parameter_class(BagPlayer))}\n"]
    return "\n".join(parts)


def running_interfaces(
    node_class: type[CameraModelNode], pool: EnginePool
) -> dict[tuple[str, str], Existing]:
    """What a node of this class has while it is active, over all ways to receive images."""
    context = Context()
    rclpy.init(args=[], context=context)
    try:
        make_node: Callable[..., CameraModelNode] = node_class
        node = make_node(
            pool.load,
            context=context,
            namespace="camera",
            parameter_overrides=[
                Parameter("autostart", value=False),
                # Of pose_node, which then needs no TF.
                Parameter("base_from_camera", value="0 0 0 0 0 0 1"),
            ],
        )
        existing = {}
        for transport in ("raw", "compressed"):
            node.set_parameters([Parameter("image_transport", value=transport)])
            node.trigger_configure()
            node.trigger_activate()
            existing.update(existing_interfaces(node))
            node.trigger_deactivate()
            node.trigger_cleanup()
        node.destroy_node()
        return existing
    finally:
        context.try_shutdown()


def _own_parameters(table: type[ParameterTable]) -> str:
    """A Markdown table of the parameters that this table's base does not have."""
    return parameter_table(table, beyond=table.__mro__[1])


def parameter_class(node_class: type[Node]) -> type[ParameterTable]:
    """The node's parameter table: the type of its attribute `parameters`."""
    table: type[ParameterTable] = inspect.get_annotations(node_class, eval_str=True)["parameters"]
    return table


def main() -> None:
    """Write both pages."""
    (DOCS / "topics.md").write_text(topics_page())
    (DOCS / "parameters.md").write_text(parameters_page())


if __name__ == "__main__":
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    main()
