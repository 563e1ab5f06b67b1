# SPDX-License-Identifier: Apache-2.0
"""Depth, odometry and answers from one camera: three nodes in one process that share models."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from vlm3_ros.engines.sharing import EnginePool
from vlm3_ros.nodes.depth_node import DepthNode
from vlm3_ros.nodes.pose_node import PoseNode
from vlm3_ros.nodes.query_node import QueryNode
from vlm3_ros.ros.node import CameraModelNode
from vlm3_ros.ros.running import run_nodes


def main(arguments: list[str] | None = None) -> int:
    """Run depth_node, pose_node and query_node: `ros2 run vlm3_ros perception_node`.

    Nodes share a model if all parameters that choose it are equal.
    """
    return run_nodes(lambda end: perception_nodes(), arguments)


def perception_nodes(**node_arguments: Any) -> list[CameraModelNode]:
    """Create the nodes, which share their models.

    Args:
        node_arguments: of rclpy.node.Node, for each of them.

    Raises:
        ParameterError: if a node was started with a value that it does not take.
    """
    pool = EnginePool()
    makers: list[Callable[..., CameraModelNode]] = [DepthNode, PoseNode, QueryNode]
    nodes = [make(pool.load, **node_arguments) for make in makers]
    for node in nodes:
        node.siblings = nodes
    return nodes


if __name__ == "__main__":
    sys.exit(main())
