# SPDX-License-Identifier: Apache-2.0
"""Parameters that the nodes share."""

from __future__ import annotations

from dataclasses import dataclass

from vlm3_ros.engines import anycalib
from vlm3_ros.engines.settings import ModelSettings
from vlm3_ros.geometry.calibration_files import load_calibration
from vlm3_ros.geometry.camera import LARGEST_VIEW, GeometryError
from vlm3_ros.parameters import ParameterError, ParameterTable, parameter


@dataclass(frozen=True)
class CameraModelParameters(ModelSettings, ParameterTable):
    """Parameters of every node that asks a model about camera images."""

    autostart: bool = parameter(True, "Configure and activate the node at start.", changes="start")
    image_transport: str = parameter(
        "raw",
        "Topic to subscribe to: `image` (raw) or `image/compressed` (compressed).",
        choices=("raw", "compressed"),
        changes="unconfigured",
    )
    image_is_rectified: bool = parameter(
        False, "Whether the image topic is rectified, so that P of its CameraInfo describes it."
    )
    max_frame_age: float = parameter(
        0.0,
        "Maximum age of a frame, by its stamp, in seconds. Older frames are refused, and so are "
        "answers whose frame has become older. 0: any age.",
        minimum=0.0,
        maximum=1e6,
    )
    image_timeout: float = parameter(
        5.0, "Warn after this many seconds without an image.", minimum=0.1, maximum=1e6
    )
    camera_info_timeout: float = parameter(
        5.0,
        "Warn, or use fallback_intrinsics, after this many seconds without a CameraInfo.",
        minimum=0.0,
        maximum=1e6,
    )
    fallback_intrinsics: str = parameter(
        "none",
        "Intrinsics of a camera that is uncalibrated or sends no CameraInfo: none (refuse its "
        "frames), from fallback_hfov, from fallback_file, or estimated from its first images by "
        "anycalib, if installed.",
        choices=("none", "hfov", "file", "anycalib"),
    )
    fallback_hfov: float = parameter(
        60.0,
        "Horizontal field of view in degrees, for fallback_intrinsics: hfov.",
        minimum=1.0,
        maximum=LARGEST_VIEW,
    )
    fallback_file: str = parameter(
        "",
        "Calibration file of camera_calibration, ros2 topic echo, OpenCV or Kalibr, for "
        "fallback_intrinsics: file.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.fallback_intrinsics == "anycalib" and not anycalib.is_installed():
            raise ParameterError(
                f"fallback_intrinsics: anycalib needs the package anycalib: {anycalib.INSTALL}"
            )
        if self.fallback_intrinsics != "file":
            return
        if not self.fallback_file:
            raise ParameterError("fallback_intrinsics: file needs parameter 'fallback_file'")
        try:
            load_calibration(self.fallback_file, self.image_is_rectified)
        except GeometryError as error:
            raise ParameterError(f"parameter 'fallback_file': {error}") from None


@dataclass(frozen=True)
class FrameParameters(CameraModelParameters):
    """Parameters of nodes that answer every frame that the model has time for."""

    process_every_frame: bool = parameter(
        False,
        "Queue frames until the model has time, instead of keeping only the newest. For replay.",
        changes="unconfigured",
    )
    queue_size: int = parameter(
        100,
        "Maximum number of queued frames, with process_every_frame.",
        minimum=1,
        maximum=10_000,
        changes="unconfigured",
    )
    lazy: bool = parameter(True, "Ask the model only while an output has a subscriber.")
