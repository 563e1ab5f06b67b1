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
        "engine",
        default_value="",
        choices=["", "transformers", "openai", "recorded"],
        description="Who answers: a model in the node, a server such as vLLM, or a recording; "
        "empty for params_file's",
    ),
    DeclareLaunchArgument(
        "model",
        default_value="",
        description="Checkpoint: a folder or a Hugging Face id; empty for the one in params_file, "
        "and where that is empty, too, for the embedded vlm3-tiny",
    ),
    DeclareLaunchArgument(
        "base_url", default_value="", description="Server of engine openai; empty for params_file's"
    ),
    DeclareLaunchArgument(
        "profile",
        default_value="",
        description="What the server's model was trained for: a vlm3.json, or a folder with one; "
        "empty for params_file's",
    ),
    DeclareLaunchArgument(
        "recording",
        default_value="",
        description="File that engine recorded replays; empty for params_file's",
    ),
    DeclareLaunchArgument(
        "record_to",
        default_value="",
        description="File to which all answers are added; empty for params_file's",
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

_OVERRIDES = ("engine", "model", "base_url", "profile", "recording", "record_to", "image_transport")


def depth_node(context: LaunchContext) -> list[Node]:
    overrides = {
        "use_sim_time": ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool)
    }
    for name in _OVERRIDES:
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
