# SPDX-License-Identifier: Apache-2.0
"""Start depth_node, pose_node and query_node on a camera, in one process that shares models.

ros2 launch vlm3_ros perception.launch.py image:=/camera/image_raw camera_info:=/camera/camera_info

With the authors' checkpoints, add depth_model:=facebook/VLM3-depth pose_model:=facebook/VLM3-pose
match_model:=facebook/VLM3-corr object_model:=facebook/VLM3-object, or any of them.
"""

from __future__ import annotations

from pathlib import Path

from launch import LaunchDescription

from vlm3_ros.ros.launching import (
    CAMERA,
    MODEL,
    ODOMETRY,
    REQUESTS,
    camera_model_launch,
    parameter_file,
)

CONFIG = Path(__file__).resolve().parent.parent / "config"


def generate_launch_description() -> LaunchDescription:
    return camera_model_launch(
        "perception_node",
        files=[
            parameter_file("depth_params_file", CONFIG / "depth.yaml", "depth_node"),
            parameter_file("pose_params_file", CONFIG / "pose.yaml", "pose_node"),
            parameter_file("query_params_file", CONFIG / "query.yaml", "query_node"),
        ],
        settings=[*MODEL, *ODOMETRY],
        topics=[*CAMERA, *REQUESTS],
    )
