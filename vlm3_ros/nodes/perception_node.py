"""Depth and odometry from one camera, with one model in memory: two nodes in one process."""

from __future__ import annotations

import sys

from vlm3_ros.engines.sharing import EnginePool
from vlm3_ros.nodes.depth_node import DepthNode
from vlm3_ros.nodes.pose_node import PoseNode
from vlm3_ros.ros.running import run_nodes


def main(arguments: list[str] | None = None) -> int:
    """Run depth_node and pose_node: `ros2 run vlm3_ros perception_node`.

    The model is shared where the parameters of both that choose it are equal.
    """
    pool = EnginePool()
    return run_nodes(lambda end: [DepthNode(pool.load), PoseNode(pool.load)], arguments)


if __name__ == "__main__":
    sys.exit(main())
