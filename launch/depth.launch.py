"""Start depth_node on a camera.

ros2 launch vlm3_ros depth.launch.py image:=/camera/image_raw camera_info:=/camera/camera_info
"""

from __future__ import annotations

from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

CONFIG = Path(__file__).resolve().parent.parent / "config" / "depth.yaml"

ARGUMENTS = (
    DeclareLaunchArgument(
        "image", default_value="image", description="Image topic of the camera (sensor_msgs/Image)"
    ),
    DeclareLaunchArgument(
        "camera_info",
        default_value="camera_info",
        description="Topic of its calibration (sensor_msgs/CameraInfo)",
    ),
    DeclareLaunchArgument(
        "model",
        default_value="",
        description="Checkpoint: a folder or a Hugging Face id; empty for the one in params_file, "
        "and where that is empty, too, for the embedded vlm3-tiny",
    ),
    DeclareLaunchArgument(
        "image_transport",
        default_value="",
        choices=["", "raw", "compressed"],
        description="Whether to subscribe to image or to image/compressed; empty for params_file's",
    ),
    DeclareLaunchArgument(
        "params_file", default_value=str(CONFIG), description="Parameters of the node"
    ),
    DeclareLaunchArgument(
        "namespace",
        default_value="",
        description="Namespace of the node and of its topics, one for each camera",
    ),
    DeclareLaunchArgument(
        "use_sim_time",
        default_value="false",
        choices=["true", "false"],
        description="Take the time from /clock: for simulation and for bags",
    ),
    DeclareLaunchArgument(
        "log_level",
        default_value="info",
        choices=["debug", "info", "warn", "error", "fatal"],
        description="From which severity on messages are logged",
    ),
)


def depth_node(context: LaunchContext) -> list[Node]:
    overrides = {
        "use_sim_time": ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool)
    }
    for name in ("model", "image_transport"):
        if value := LaunchConfiguration(name).perform(context):
            overrides[name] = ParameterValue(value, value_type=str)
    return [
        Node(
            package="vlm3_ros",
            executable="depth_node",
            name="depth_node",
            namespace=LaunchConfiguration("namespace"),
            parameters=[LaunchConfiguration("params_file"), overrides],
            remappings=[
                ("image", LaunchConfiguration("image")),
                ("camera_info", LaunchConfiguration("camera_info")),
            ],
            ros_arguments=["--log-level", LaunchConfiguration("log_level")],
            sigterm_timeout="30",  # seconds: at Ctrl-C the node finishes what the model works on
            output="screen",
            emulate_tty=True,
        )
    ]


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=depth_node)])
