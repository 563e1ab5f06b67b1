# SPDX-License-Identifier: Apache-2.0
"""What the launch files have in common: arguments, and what they set (needs launch_ros)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

CAMERA = (
    DeclareLaunchArgument(
        "image", default_value="image", description="Image topic of the camera (sensor_msgs/Image)"
    ),
    DeclareLaunchArgument(
        "camera_info",
        default_value="camera_info",
        description="Topic of its calibration (sensor_msgs/CameraInfo)",
    ),
)

REQUESTS = (
    DeclareLaunchArgument(
        "clicked_pixel",
        default_value="clicked_pixel",
        description="Topic of pixels to locate (geometry_msgs/PointStamped)",
    ),
    DeclareLaunchArgument(
        "question",
        default_value="question",
        description="Topic of questions, in JSON or in words (std_msgs/String)",
    ),
    DeclareLaunchArgument(
        "detections",
        default_value="detections",
        description="Topic of objects to locate (vision_msgs/Detection2DArray)",
    ),
)

MODEL = (
    DeclareLaunchArgument(
        "engine",
        default_value="",
        choices=["", "transformers", "openai", "recorded"],
        description="Who answers: a model in the node, a server such as vLLM, or a recording; "
        "empty for that of the parameter file",
    ),
    DeclareLaunchArgument(
        "model",
        default_value="",
        description="Checkpoint: a folder or a Hugging Face id; empty for that of the parameter "
        "file, and where that is empty, too, for the embedded one",
    ),
    DeclareLaunchArgument(
        "base_url",
        default_value="",
        description="Server of engine openai; empty for that of the parameter file",
    ),
    DeclareLaunchArgument(
        "profile",
        default_value="",
        description="What the server's model was trained for: a vlm3.json, or a folder with one; "
        "empty for that of the parameter file",
    ),
    DeclareLaunchArgument(
        "recording",
        default_value="",
        description="File that engine recorded replays; empty for that of the parameter file",
    ),
    DeclareLaunchArgument(
        "record_to",
        default_value="",
        description="File to which all answers are added; empty for that of the parameter file",
    ),
    DeclareLaunchArgument(
        "image_transport",
        default_value="",
        choices=["", "raw", "compressed"],
        description="Whether to subscribe to image or to image/compressed; empty for that of the "
        "parameter file",
    ),
)

ODOMETRY = (
    DeclareLaunchArgument(
        "base_frame",
        default_value="",
        description="Frame of the robot whose motion is told; empty for that of the parameter file",
    ),
    DeclareLaunchArgument(
        "base_from_camera",
        default_value="",
        description="Place of the camera's optical frame in it: 'x y z qx qy qz qw'; empty for "
        "that of the parameter file, and where that is empty, too, for TF's",
    ),
    DeclareLaunchArgument(
        "publish_tf",
        default_value="",
        choices=["", "true", "false"],
        description="Publish odom to base_frame on /tf; empty for that of the parameter file",
    ),
)

PROCESS = (
    DeclareLaunchArgument(
        "namespace",
        default_value="",
        description="Namespace of nodes and topics, one for each camera",
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


def parameter_file(name: str, default: Path, node: str) -> DeclareLaunchArgument:
    """An argument that names a parameter file."""
    return DeclareLaunchArgument(
        name, default_value=str(default), description=f"Parameters of {node}"
    )


def camera_model_launch(
    executable: str,
    files: Sequence[DeclareLaunchArgument],
    settings: Sequence[DeclareLaunchArgument],
    name: str | None = None,
    topics: Sequence[DeclareLaunchArgument] = CAMERA,
) -> LaunchDescription:
    """One process on one camera.

    Args:
        executable: of this package.
        files: arguments that name parameter files.
        settings: arguments that set the parameter of their name where they are not empty.
        name: of the node; None for those that the executable gives to its nodes.
        topics: arguments that remap the topic of their name.
    """

    def process(context: LaunchContext) -> list[Node]:
        overrides: dict[str, ParameterValue] = {
            "use_sim_time": ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool)
        }
        for argument in settings:
            if LaunchConfiguration(argument.name).perform(context):
                kind = bool if argument.choices == ["", "true", "false"] else str
                overrides[argument.name] = ParameterValue(
                    LaunchConfiguration(argument.name), value_type=kind
                )
        return [
            Node(
                package="vlm3_ros",
                executable=executable,
                name=name,
                namespace=LaunchConfiguration("namespace"),
                parameters=[*(LaunchConfiguration(file.name) for file in files), overrides],
                remappings=[(topic.name, LaunchConfiguration(topic.name)) for topic in topics],
                ros_arguments=["--log-level", LaunchConfiguration("log_level")],
                sigterm_timeout="30",  # seconds: at Ctrl-C it finishes what the model works on
                output="screen",
                emulate_tty=True,
            )
        ]

    return LaunchDescription(
        [*topics, *settings, *files, *PROCESS, OpaqueFunction(function=process)]
    )
