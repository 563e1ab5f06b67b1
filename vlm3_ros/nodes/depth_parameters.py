# SPDX-License-Identifier: Apache-2.0
"""Parameters of the depth node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from vlm3_ros.messages.depth_images import DepthEncoding
from vlm3_ros.nodes.ground_parameters import GroundParameters
from vlm3_ros.parameters import ParameterError, parameter
from vlm3_ros.ros.mounts import check_frame_name, mount_from_text
from vlm3_ros.ros.node_parameters import FrameParameters
from vlm3_ros.tasks.depth import DepthLimits
from vlm3_ros.tasks.frame_depth import PIXEL_CHOICES, FrameDepthSettings
from vlm3_ros.tasks.scan import ScanLimits

_ASKED = FrameDepthSettings()


@dataclass(frozen=True)
class DepthParameters(GroundParameters, FrameParameters):
    """Parameters of the depth node."""

    grid_columns: int = parameter(
        _ASKED.columns,
        "Columns of the grid of pixels that the model is asked about.",
        minimum=1,
        maximum=1024,
    )
    grid_rows: int = parameter(
        _ASKED.rows,
        "Rows of the grid of pixels that the model is asked about.",
        minimum=1,
        maximum=1024,
    )
    pixel_choice: str = parameter(
        _ASKED.pixel_choice,
        "How the pixels are chosen. uniform: the centres of the grid's cells. adaptive: as many "
        "pixels, at the centres of patches of one colour, denser near edges.",
        choices=tuple(PIXEL_CHOICES),
    )
    unified_focal: float = parameter(
        0.0,
        "Focal length at which images enter the model, px; 0 for the checkpoint's own. A smaller "
        "value is faster and coarser.",
        minimum=0.0,
        maximum=1e5,
    )
    min_depth: float = parameter(
        0.0, "Nearer answers are not published, in metres.", minimum=0.0, maximum=1e6
    )
    max_depth: float = parameter(
        1e6, "Farther answers are not published, in metres.", minimum=0.0, maximum=1e6
    )
    max_uncertainty: float = parameter(
        0.0,
        "Answers are not published if their standard deviation is unknown, or is a larger share of "
        "their depth than this. 0: all are published.",
        minimum=0.0,
        maximum=1e3,
    )
    withhold_sky: bool = parameter(
        _ASKED.withhold_sky,
        "Do not ask about pixels of clear sky: blue, without texture, and connected to the upper "
        "border. For use outdoors: a blue wall can look the same.",
    )
    scan_frame: str = parameter(
        "base_link", "Frame of `scan`: on the robot, fixed to the camera, x forward and z up."
    )
    scan_from_camera: str = parameter(
        "",
        "Pose of the camera's optical frame in scan_frame: `x y z qx qy qz qw`, metres and a "
        "quaternion, as for static_transform_publisher. Empty: from TF.",
    )
    scan_min_height: float = parameter(
        0.3,
        "Answers below this height are not in `scan`, metres above scan_frame. An answer about the "
        "floor that is too near by a share s appears above the floor, by s times the camera's "
        "height.",
        minimum=-1e3,
        maximum=1e3,
    )
    scan_max_height: float = parameter(
        1.5,
        "Answers above this height are not in `scan`, metres above scan_frame.",
        minimum=-1e3,
        maximum=1e3,
    )
    scan_min_range: float = parameter(
        0.1, "Nearer answers are -inf in `scan`, metres.", minimum=0.0, maximum=1e6
    )
    scan_max_range: float = parameter(
        10.0, "Farther answers are inf in `scan`, metres.", minimum=0.0, maximum=1e6
    )
    depth_encoding: DepthEncoding = parameter(
        "32FC1",
        "Encoding of depth/image_rect and depth_registered/image_rect (REP-118). 32FC1: metres, "
        "NaN where unknown. 16UC1: whole millimetres, 0 where unknown or beyond 65.534 m, for "
        "subscribers that take nothing else.",
        choices=get_args(DepthEncoding),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for least, most in (
            ("min_depth", "max_depth"),
            ("scan_min_height", "scan_max_height"),
            ("scan_min_range", "scan_max_range"),
        ):
            low, high = getattr(self, least), getattr(self, most)
            if low >= high:
                raise ParameterError(
                    f"parameter '{least}' ({low:g}) must be smaller than '{most}' ({high:g})"
                )
        check_frame_name("scan_frame", self.scan_frame)
        mount_from_text("scan_from_camera", self.scan_from_camera)

    def depth_settings(self) -> FrameDepthSettings:
        """Which pixels are asked, and which answers are published."""
        return FrameDepthSettings(
            columns=self.grid_columns,
            rows=self.grid_rows,
            pixel_choice=self.pixel_choice,
            view_focal=self.unified_focal or None,
            limits=DepthLimits(self.min_depth, self.max_depth, self.max_uncertainty),
            withhold_sky=self.withhold_sky,
        )

    def scan_limits(self) -> ScanLimits:
        """Which published answers are in the scan."""
        return ScanLimits(
            self.scan_min_height, self.scan_max_height, self.scan_min_range, self.scan_max_range
        )
