# SPDX-License-Identifier: Apache-2.0
"""Parameters of the depth node."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlm3_ros.parameters import ParameterError, parameter
from vlm3_ros.ros.mounts import check_frame_name, mount_from_text
from vlm3_ros.ros.node import CameraFrame
from vlm3_ros.ros.node_parameters import FrameParameters
from vlm3_ros.tasks.depth import DepthLimits, uniform_grid
from vlm3_ros.tasks.sampling import adaptive_pixels
from vlm3_ros.tasks.scan import ScanLimits

PIXEL_CHOICES: dict[str, Callable[[CameraFrame, int, int], NDArray[np.float64]]] = {
    "uniform": lambda frame, columns, rows: uniform_grid(frame.camera, columns, rows),
    "adaptive": lambda frame, columns, rows: adaptive_pixels(
        frame.image, columns * rows, frame.visible
    ),
}
"""How rows * columns pixels of an image are chosen, shape (rows * columns, 2)."""


@dataclass(frozen=True)
class DepthParameters(FrameParameters):
    """Parameters of the depth node."""

    grid_columns: int = parameter(
        16, "Columns of the grid of pixels that the model is asked.", minimum=1, maximum=1024
    )
    grid_rows: int = parameter(
        12, "Rows of the grid of pixels that the model is asked.", minimum=1, maximum=1024
    )
    pixel_choice: str = parameter(
        "uniform",
        "Where in the image the pixels lie: uniform, in the middles of the grid's cells; adaptive, "
        "as many of them in the middles of patches of one colour, more where edges are.",
        choices=tuple(PIXEL_CHOICES),
    )
    unified_focal: float = parameter(
        0.0,
        "Focal length at which images enter the model, px; 0 for the checkpoint's own. A smaller "
        "one is faster and coarser.",
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
        "Answers whose standard deviation is a larger share of their depth are not published, nor "
        "those whose standard deviation is unknown; 0 for all.",
        minimum=0.0,
        maximum=1e3,
    )
    scan_frame: str = parameter(
        "base_link", "Frame of `scan`: on the robot, fixed to the camera, x forward and z up."
    )
    scan_from_camera: str = parameter(
        "",
        "Place of the camera's optical frame in scan_frame: `x y z qx qy qz qw`, metres and a "
        "quaternion, as static_transform_publisher takes them. Empty: from TF.",
    )
    scan_min_height: float = parameter(
        0.3,
        "Answers below are not in `scan`, metres over scan_frame. An answer about the floor that "
        "is too near by some share lies over it, by this share of the camera's height.",
        minimum=-1e3,
        maximum=1e3,
    )
    scan_max_height: float = parameter(
        1.5, "Answers above are not in `scan`, metres over scan_frame.", minimum=-1e3, maximum=1e3
    )
    scan_min_range: float = parameter(
        0.1, "Nearer answers are -inf in `scan`, metres.", minimum=0.0, maximum=1e6
    )
    scan_max_range: float = parameter(
        10.0, "Farther answers are inf in `scan`, metres.", minimum=0.0, maximum=1e6
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

    def depth_limits(self) -> DepthLimits:
        """Which answers are published."""
        return DepthLimits(self.min_depth, self.max_depth, self.max_uncertainty)

    def scan_limits(self) -> ScanLimits:
        """Which of these are in the scan."""
        return ScanLimits(
            self.scan_min_height, self.scan_max_height, self.scan_min_range, self.scan_max_range
        )
