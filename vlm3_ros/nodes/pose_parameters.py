# SPDX-License-Identifier: Apache-2.0
"""Parameters of the pose node, and the settings that they make."""

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
        "Ask the model only while somebody subscribes to an output. Motion in between is lost, and "
        "after max_gap the odometry restarts.",
    )
    odom_frame: str = parameter("odom", "Frame of the poses.", changes="unconfigured")
    base_frame: str = parameter(
        "base_link",
        "Frame whose motion is published, fixed to the camera.",
        changes="unconfigured",
    )
    publish_tf: bool = parameter(
        True,
        "Publish odom_frame to base_frame on /tf; false if another node does.",
        changes="unconfigured",
    )
    max_prediction: float = parameter(
        3.0,
        "Seconds beyond the last pose for which TF is predicted with the last twist, for each "
        "image as it comes: more than latency and period of the poses together. 0: TF has only "
        "the poses, seconds late.",
        minimum=0.0,
        maximum=60.0,
    )
    base_from_camera: str = parameter(
        "",
        "Pose of the camera's optical frame in base_frame: `x y z qx qy qz qw`, metres and a "
        "quaternion, as for static_transform_publisher. Empty: from TF.",
        changes="unconfigured",
    )
    tf_timeout: float = parameter(
        5.0, "Seconds to wait for the camera's pose on TF.", minimum=0.0, maximum=3600.0
    )
    path_length: int = parameter(
        1000, "Poses in `path`; the oldest are dropped.", minimum=1, maximum=100_000
    )
    keyframes: bool = parameter(
        _CHAIN.keyframes,
        "Compare images with a keyframe, which drifts less; false: with the previous image.",
    )
    min_overlap: float = parameter(
        _CHAIN.min_overlap,
        "A keyframe is replaced if less than this share of its matches agrees with the motion.",
        minimum=0.0,
        maximum=1.0,
    )
    match_columns: int = parameter(
        _CHAIN.match_columns,
        "Columns of the grid of pixels whose matches are asked for, to check motions.",
        minimum=0,
        maximum=256,
    )
    match_rows: int = parameter(
        _CHAIN.match_rows,
        "Rows of that grid. 0: motions are not checked.",
        minimum=0,
        maximum=256,
    )
    check_features: bool = parameter(
        _CHAIN.check_features,
        "Compare motions with image features (SIFT), which need no model: they refuse wrong "
        "rotations and directions. They say nothing where an image has no texture.",
    )
    check_backward: bool = parameter(
        _CHAIN.check_backward, "Ask for the reverse motion, too: both must cancel each other."
    )
    ask_depth: bool = parameter(
        _CHAIN.ask_depth,
        "Ask for the depth of the grid, too: matches with depth give a second metric motion.",
    )
    still_flow: float = parameter(
        _CHAIN.still_flow,
        "An image that moved by fewer pixels than this (at 320 px width) is a standstill, and the "
        "model is not asked. 0: the model is always asked.",
        minimum=0.0,
        maximum=10.0,
    )
    still_distance: float = parameter(
        _CHAIN.still_distance,
        "An answered motion below this, in metres, and below still_rotation_deg is a standstill.",
        minimum=0.0,
        maximum=1.0,
    )
    still_rotation_deg: float = parameter(
        _CHAIN.still_rotation_deg, "See still_distance; degrees.", minimum=0.0, maximum=10.0
    )
    max_speed: float = parameter(
        _CHAIN.max_speed,
        "A motion since the last pose that is faster is refused, m/s: the camera's maximum speed.",
        minimum=0.01,
        maximum=1e3,
    )
    max_bridge: float = parameter(
        _CHAIN.max_bridge,
        "Seconds of a refused motion that the last twist may replace, if the chain can go on "
        "behind it. 0: none.",
        minimum=0.0,
        maximum=60.0,
    )
    max_gap: float = parameter(
        _CHAIN.max_gap,
        "Seconds without a pose after which the odometry restarts.",
        minimum=0.01,
        maximum=1e6,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("odom_frame", "base_frame"):
            check_frame_name(name, getattr(self, name))
        if self.odom_frame == self.base_frame:
            raise ParameterError(
                f"parameters 'odom_frame' and 'base_frame' are both {self.base_frame!r}: they must "
                "be two different frames"
            )
        matches = self.match_columns * self.match_rows
        if 0 < matches < MIN_MATCHES:
            raise ParameterError(
                f"parameters 'match_columns' ({self.match_columns}) and 'match_rows' "
                f"({self.match_rows}) make {matches} matches: a check needs at least "
                f"{MIN_MATCHES}; match_rows: 0 switches it off"
            )
        given_mount(self)

    def odometry_settings(self) -> OdometrySettings:
        """Return how motions are asked for, checked and chained."""
        names = (field.name for field in fields(OdometrySettings))
        return OdometrySettings(**{name: getattr(self, name) for name in names})


def given_mount(parameters: PoseParameters) -> Transform | None:
    """Return T_base_camera from `base_from_camera`, shape (4, 4), metres; None if it is empty.

    Raises:
        ParameterError: if it is no translation and unit quaternion.
    """
    return mount_from_text("base_from_camera", parameters.base_from_camera)
