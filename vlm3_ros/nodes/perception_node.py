# SPDX-License-Identifier: Apache-2.0
"""Depth, odometry and answers from one camera: three nodes in one process, one model in memory."""

from __future__ import annotations

import sys

from vlm3_ros.engines.sharing import EnginePool
from vlm3_ros.nodes.depth_node import DepthNode
from vlm3_ros.nodes.pose_node import PoseNode
from vlm3_ros.nodes.query_node import QueryNode
from vlm3_ros.ros.running import run_nodes


def main(arguments: list[str] | None = None) -> int:
    """Run depth_node, pose_node and query_node: `ros2 run vlm3_ros perception_node`.

    Nodes share a model if all parameters that choose it are equal.
    """
    pool = EnginePool()
    return run_nodes(
        lambda end: [DepthNode(pool.load), PoseNode(pool.load), QueryNode(pool.load)], arguments
    )


if __name__ == "__main__":
    sys.exit(main())
