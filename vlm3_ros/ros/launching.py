# SPDX-License-Identifier: Apache-2.0
"""Launch arguments and the launched process, shared by the launch files (needs launch_ros)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from vlm3_ros.engines.settings import ModelSettings
from vlm3_ros.parameters import parameter_specs

CAMERA = (
    DeclareLaunchArgument(
        "image", default_value="image", description="Image topic of the camera (sensor_msgs/Image)"
    ),
    DeclareLaunchArgument(
        "camera_info",
        default_value="camera_info",
        description="Topic of the camera's calibration (sensor_msgs/CameraInfo)",
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
        description="Topic of questions, in JSON or plain words (std_msgs/String)",
    ),
    DeclareLaunchArgument(
        "detections",
        default_value="detections",
        description="Topic of objects to locate (vision_msgs/Detection2DArray)",
    ),
)


@dataclass(frozen=True)
class Setting:
    """A launch argument that sets the node parameter of its name unless it is empty."""

    name: str
    description: str
    value_type: type = str
    choices: tuple[str, ...] = ()

    def argument(self) -> DeclareLaunchArgument:
        """Return the argument, whose default leaves the parameter as in the parameter file."""
        choices = ("true", "false") if self.value_type is bool else self.choices
        return DeclareLaunchArgument(
            self.name,
            default_value="",
            choices=["", *choices] if choices else None,
            description=f"{self.description} Default: as in the parameter file.",
        )


MODEL = (
    *(
        Setting(field.name, spec.description, type(field.default), spec.choices)
        for field, spec in zip(
            fields(ModelSettings), parameter_specs(ModelSettings).values(), strict=True
        )
        if spec.launch
    ),
    Setting(
        "image_transport",
        "Whether to subscribe to image or to image/compressed.",
        choices=("raw", "compressed"),
    ),
)

ODOMETRY = (
    Setting("base_frame", "Frame of the robot whose motion is published."),
    Setting(
        "base_from_camera",
        "Pose of the camera's optical frame in base_frame: 'x y z qx qy qz qw'. If the parameter "
        "file leaves it empty, too: from TF.",
    ),
    Setting("publish_tf", "Publish odom to base_frame on /tf.", value_type=bool),
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
        description="Take the time from /clock, for simulation and bags",
    ),
    DeclareLaunchArgument(
        "log_level",
        default_value="info",
        choices=["debug", "info", "warn", "error", "fatal"],
        description="Lowest severity of messages that are logged",
    ),
)


def parameter_file(name: str, default: Path, node: str) -> DeclareLaunchArgument:
    """Declare an argument that names a parameter file."""
    return DeclareLaunchArgument(
        name, default_value=str(default), description=f"Parameters of {node}"
    )


def camera_model_launch(
    executable: str,
    files: Sequence[DeclareLaunchArgument],
    settings: Sequence[Setting],
    name: str | None = None,
    topics: Sequence[DeclareLaunchArgument] = CAMERA,
) -> LaunchDescription:
    """Describe one process on one camera.

    Args:
        executable: of this package.
        files: arguments that name parameter files.
        settings: arguments that set parameters; they override the files.
        name: of the node; None to keep the names that the executable gives to its nodes.
        topics: arguments that remap the topic of their name.
    """

    def process(context: LaunchContext) -> list[Node]:
        overrides: dict[str, ParameterValue] = {
            "use_sim_time": ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool)
        }
        for setting in settings:
            value = LaunchConfiguration(setting.name)
            if value.perform(context):
                overrides[setting.name] = ParameterValue(value, value_type=setting.value_type)
        return [
            Node(
                package="vlm3_ros",
                executable=executable,
                name=name,
                namespace=LaunchConfiguration("namespace"),
                parameters=[*(LaunchConfiguration(file.name) for file in files), overrides],
                remappings=[(topic.name, LaunchConfiguration(topic.name)) for topic in topics],
                ros_arguments=["--log-level", LaunchConfiguration("log_level")],
                sigterm_timeout="30",  # seconds, for the model to finish its answer at Ctrl-C
                output="screen",
                emulate_tty=True,
            )
        ]

    arguments = [setting.argument() for setting in settings]
    return LaunchDescription(
        [*topics, *arguments, *files, *PROCESS, OpaqueFunction(function=process)]
    )
