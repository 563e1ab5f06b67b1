# SPDX-License-Identifier: Apache-2.0
"""Parameters of nodes that may take the metric scale from the ground."""

from __future__ import annotations

from dataclasses import dataclass

from vlm3_ros.parameters import ParameterError, ParameterTable, parameter
from vlm3_ros.ros.mounts import check_frame_name, mount_from_text


@dataclass(frozen=True)
class GroundParameters(ParameterTable):
    """Parameters of nodes that may take the metric scale from the ground."""

    scale_from: str = parameter(
        "none",
        "What gives the metric scale besides the model. none: nothing. ground: the ground, whose "
        "depth follows from the camera's pose in ground_frame; one factor, smoothed over frames, "
        "multiplies all depths and their standard deviations. No depth is published until the "
        "ground was found.",
        choices=("none", "ground"),
    )
    ground_frame: str = parameter(
        "base_footprint",
        "Frame on the ground below the robot, fixed to the camera, z up (REP-120), for scale_from.",
    )
    ground_from_camera: str = parameter(
        "",
        "Pose of the camera's optical frame in ground_frame: `x y z qx qy qz qw`, where z is the "
        "camera's height in metres, and a quaternion. Empty: from TF. If set, depth_node's "
        "diagnostics report the factor with scale_from: none, too.",
    )
    ground_window: float = parameter(
        5.0,
        "The factor is the median over this many seconds, and follows it by at most 10 % per "
        "second.",
        minimum=0.1,
        maximum=1e3,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_frame_name("ground_frame", self.ground_frame)
        ground = mount_from_text("ground_from_camera", self.ground_from_camera)
        if ground is not None and ground[2, 3] <= 0:
            raise ParameterError(
                f"parameter 'ground_from_camera': the camera's height z is {ground[2, 3]:g} m; it "
                "must be above the ground"
            )
