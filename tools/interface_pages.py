# SPDX-License-Identifier: Apache-2.0
"""Write docs/{topics,parameters,checkpoints}.md and config/*.yaml from the code's declarations.

Needs ROS 2 and torch.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from pathlib import Path

import rclpy
from checkpoint_page import checkpoints_page
from parameter_table import parameter_file, parameter_table
from rclpy.context import Context
from rclpy.node import Node
from rclpy.parameter import Parameter
from topic_table import Existing, existing_interfaces, summary, topic_tables

from vlm3_ros.engines.settings import ModelSettings
from vlm3_ros.engines.sharing import EnginePool
from vlm3_ros.nodes.bag_player import BagPlayer
from vlm3_ros.nodes.depth_node import DepthNode
from vlm3_ros.nodes.pose_node import PoseNode
from vlm3_ros.nodes.query_node import QueryNode
from vlm3_ros.parameters import ParameterTable
from vlm3_ros.ros.node import CameraModelNode
from vlm3_ros.ros.node_parameters import CameraModelParameters, FrameParameters

ROOT = Path(__file__).resolve().parents[1]
DOCS, CONFIG = ROOT / "docs", ROOT / "config"

CAMERA_NODES: dict[str, type[CameraModelNode]] = {
    "depth_node": DepthNode,
    "pose_node": PoseNode,
    "query_node": QueryNode,
}
"""The nodes that ask a model about camera images, in the order of the pages."""

_NOTE = "Written by tools/interface_pages.py from the nodes' own descriptions: change those."
_GENERATED = f"<!-- {_NOTE} -->"

_TOPICS = f"""\
{_GENERATED}

# Topics and services

The topics and services of each node, read from a running one. Names are relative: put the nodes of
a camera into a namespace, and remap other names (`-r image:=/camera/image_raw`, or the arguments of
the launch files). The QoS of each topic can be overridden by the parameters
`qos_overrides.<topic>.<publisher or subscription>.<policy>`; with `process_every_frame`, the
image subscription is reliable and its depth is `queue_size`. Frames, units, signs and the meaning
of NaN are in [conventions.md](conventions.md), parameters in [parameters.md](parameters.md).

Every node but `bag_player` is a lifecycle node with ROS's lifecycle and parameter services.
`perception_node` runs the nodes below in one process; nodes whose settings choose the same model
share it in memory. `bag_player` publishes the topics of a bag as they were recorded, reliable with
depth 10, and `/clock`.
"""

_PARAMETERS = f"""\
{_GENERATED}

# Parameters

Set parameters in a file (`params_file:=my.yaml`, in the form of
[config/depth.yaml](../config/depth.yaml)), on the command line (`--ros-args -p grid_columns:=24`)
or while the node runs (`ros2 param set /depth_node grid_columns 24`). The last column says when a
parameter can change: at *any time*; while the lifecycle node is *unconfigured* (`ros2 lifecycle set
/depth_node deactivate`, then `cleanup`, before the change, and `configure`, `activate` after it);
or at *start* only. If a node refuses a value, it says why and keeps the old one. `ros2 param
describe /depth_node NAME` shows the same text.
"""

_CONFIG = f"""\
# {_NOTE}
# Every parameter of {{node}} with its default. docs/parameters.md says when each can change.
"""


def topics_page() -> str:
    """Return the text of docs/topics.md.

    Raises:
        DocumentationError: if a docstring and its node differ.
    """
    pool = EnginePool()
    parts = [_TOPICS]
    for name, node_class in CAMERA_NODES.items():
        existing = running_interfaces(node_class, pool)
        parts += [f"## {name}\n", f"{summary(node_class)}\n"]
        parts += [f"{topic_tables(node_class, existing)}\n"]
    return "\n".join(parts)


def parameters_page() -> str:
    """Return the text of docs/parameters.md."""
    shared: dict[str, type] = {
        "The models": ModelSettings,
        "Every node": CameraModelParameters,
        "Nodes that answer every frame": FrameParameters,
    }
    parts = [_PARAMETERS]
    beyond: type = ParameterTable
    for title, table in shared.items():
        users = [
            name for name, node in CAMERA_NODES.items() if issubclass(parameter_class(node), table)
        ]
        parts += [f"## {title}\n", f"{', '.join(users)}:\n\n{parameter_table(table, beyond)}\n"]
        beyond = table
    for name, node_class in CAMERA_NODES.items():
        table = parameter_class(node_class)
        own = parameter_table(table, beyond=table.__mro__[1])
        parts += [f"## {name}\n", f"In addition to those above:\n\n{own}\n"]
    parts += ["## bag_player\n", f"{parameter_table(parameter_class(BagPlayer))}\n"]
    return "\n".join(parts)


def config_files() -> dict[str, str]:
    """Return the text of each file in config/ that holds the parameters of a node."""
    return {
        f"{name.removesuffix('_node')}.yaml": _CONFIG.format(node=name)
        + parameter_file(name, parameter_class(node_class))
        for name, node_class in CAMERA_NODES.items()
    }


def running_interfaces(
    node_class: type[CameraModelNode], pool: EnginePool
) -> dict[tuple[str, str], Existing]:
    """Return the topics and services of an active node, with each image transport."""
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
                # pose_node then needs no TF.
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


def parameter_class(node_class: type[Node]) -> type[ParameterTable]:
    """Return the parameter table of a node: the type of its attribute `parameters`."""
    table: type[ParameterTable] = inspect.get_annotations(node_class, eval_str=True)["parameters"]
    return table


def main() -> None:
    """Write the pages and the parameter files."""
    (DOCS / "topics.md").write_text(topics_page())
    (DOCS / "parameters.md").write_text(parameters_page())
    checkpoints = DOCS / "checkpoints.md"
    checkpoints.write_text(checkpoints_page(checkpoints.read_text()))
    for name, text in config_files().items():
        (CONFIG / name).write_text(text)


if __name__ == "__main__":
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    main()
