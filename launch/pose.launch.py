# SPDX-License-Identifier: Apache-2.0
"""Start pose_node on a camera.

ros2 launch vlm3_ros pose.launch.py image:=/camera/image_raw camera_info:=/camera/camera_info
"""

from __future__ import annotations

from pathlib import Path

from launch import LaunchDescription

from vlm3_ros.ros.launching import MODEL, ODOMETRY, camera_model_launch, parameter_file

CONFIG = Path(__file__).resolve().parent.parent / "config"


def generate_launch_description() -> LaunchDescription:
    return camera_model_launch(
        "pose_node",
        files=[parameter_file("params_file", CONFIG / "pose.yaml", "the node")],
        settings=[*MODEL, *ODOMETRY],
        name="pose_node",
    )
