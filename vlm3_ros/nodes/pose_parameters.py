# SPDX-License-Identifier: Apache-2.0
"""Parameters of the pose node, and what they stand for."""

from __future__ import annotations

from dataclasses import dataclass, fields

from vlm3_ros.geometry.motion import Transform
from vlm3_ros.parameters import ParameterError, parameter
from vlm3_ros.ros.mounts import check_frame_name, mount_from_text
from vlm3_ros.ros.node_parameters import FrameParameters
from vlm3_ros.tasks.odometry import OdometrySettings
from vlm3_ros.tasks.verification import MIN_MATCHES

_CHAIN = OdometrySettings()


@dataclass(frozen=True)
class PoseParameters(FrameParameters):
    """Parameters of the pose node."""

    lazy: bool = parameter(
        False,
        "Ask the model only while someone subscribes to an output: what moved meanwhile is lost, "
        "and after max_gap odometry starts anew.",
    )
    odom_frame: str = parameter("odom", "Frame of the poses.", changes="unconfigured")
    base_frame: str = parameter(
        "base_link", "Frame whose motion is told, fixed to the camera.", changes="unconfigured"
    )
    publish_tf: bool = parameter(
        True,
        "Publish odom_frame to base_frame on /tf; false where another node does.",
        changes="unconfigured",
    )
    base_from_camera: str = parameter(
        "",
        "Place of the camera's optical frame in base_frame: `x y z qx qy qz qw`, metres and a "
        "quaternion, as static_transform_publisher takes them. Empty: from TF.",
        changes="unconfigured",
    )
    tf_timeout: float = parameter(
        5.0, "Seconds to wait for the camera's place on TF.", minimum=0.0, maximum=3600.0
    )
    path_length: int = parameter(
        1000, "Poses in `path`; the oldest leave.", minimum=1, maximum=100_000
    )
    keyframes: bool = parameter(
        _CHAIN.keyframes,
        "Compare images with a keyframe, which drifts less; false: with the image before.",
    )
    min_overlap: float = parameter(
        _CHAIN.min_overlap,
        "A keyframe is replaced when less than this share of its matches agrees with the motion.",
        minimum=0.0,
        maximum=1.0,
    )
    match_columns: int = parameter(
        _CHAIN.match_columns,
        "Columns of the grid of pixels whose matches are asked, to check motions.",
        minimum=0,
        maximum=256,
    )
    match_rows: int = parameter(
        _CHAIN.match_rows,
        "Rows of that grid. 0: motions are believed unchecked.",
        minimum=0,
        maximum=256,
    )
    check_backward: bool = parameter(
        _CHAIN.check_backward, "Ask the way back, too: it must close with the way there."
    )
    ask_depth: bool = parameter(
        _CHAIN.ask_depth,
        "Ask the depth of the grid, too: matches with depth tell a metric motion of their own.",
    )
    still_flow: float = parameter(
        _CHAIN.still_flow,
        "Images that moved by less than this many pixels (of 320 across) show a standstill, and "
        "the model is not asked. 0: it always is.",
        minimum=0.0,
        maximum=10.0,
    )
    still_distance: float = parameter(
        _CHAIN.still_distance,
        "Answered motions below this, in metres, and below still_rotation_deg are a standstill.",
        minimum=0.0,
        maximum=1.0,
    )
    still_rotation_deg: float = parameter(
        _CHAIN.still_rotation_deg, "See still_distance, degrees.", minimum=0.0, maximum=10.0
    )
    max_speed: float = parameter(
        _CHAIN.max_speed,
        "Faster motions are refused, m/s: what the camera can do at most.",
        minimum=0.01,
        maximum=1e3,
    )
    max_gap: float = parameter(
        _CHAIN.max_gap,
        "Seconds without a pose after which odometry starts anew.",
        minimum=0.01,
        maximum=1e6,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("odom_frame", "base_frame"):
            check_frame_name(name, getattr(self, name))
        if self.odom_frame == self.base_frame:
            raise ParameterError(
                f"parameters 'odom_frame' and 'base_frame' are both {self.base_frame!r}: the "
                "motion of one in the other needs two frames"
            )
        matches = self.match_columns * self.match_rows
        if 0 < matches < MIN_MATCHES:
            raise ParameterError(
                f"parameters 'match_columns' ({self.match_columns}) and 'match_rows' "
                f"({self.match_rows}) make {matches} matches: a check needs {MIN_MATCHES}, and "
                "match_rows: 0 asks none"
            )
        given_mount(self)

    def odometry_settings(self) -> OdometrySettings:
        """How motions are asked, checked and chained."""
        names = (field.name for field in fields(OdometrySettings))
        return OdometrySettings(**{name: getattr(self, name) for name in names})


def given_mount(parameters: PoseParameters) -> Transform | None:
    """T_base_camera of `base_from_camera`, shape (4, 4); None where it is empty.

    Raises:
        ParameterError: when it is no place and quaternion.
    """
    return mount_from_text("base_from_camera", parameters.base_from_camera)
