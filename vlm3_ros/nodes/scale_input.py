# SPDX-License-Identifier: Apache-2.0
"""The metric scale of a node's depths: the camera's height, the factor, the status."""

from __future__ import annotations

import math

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from numpy.typing import NDArray
from std_msgs.msg import Header

from vlm3_ros.errors import Vlm3Error
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.geometry.ground import MIN_FRAMES, GroundScale
from vlm3_ros.geometry.motion import Transform
from vlm3_ros.messages.classes import stamp_nanoseconds
from vlm3_ros.nodes.ground_parameters import GroundParameters
from vlm3_ros.ros.camera_mounts import CameraMount, MountError
from vlm3_ros.ros.node import CameraModelNode

PATIENCE = 10.0
"""Seconds without ground after which the status warns."""

MAX_JUMP = 0.2
"""Difference of the logarithm of a frame's factor from that in use above which the status warns."""

_NOT_YET = "not measured yet"
_OFF = "not measured: scale_from is none, and ground_from_camera is not set"


class ScaleError(Vlm3Error):
    """The scale is to come from the ground, but is unknown; the text says why."""


class ScaleInput:
    """Gives the factor on a frame's depths.

    Attributes:
        level, text, values: status of the last frame, for /diagnostics.
    """

    def __init__(self, node: CameraModelNode, min_frames: int = MIN_FRAMES) -> None:
        """Prepare for a node; `min_frames`: see `GroundScale`."""
        self._node = node
        self._mount = CameraMount(node, "ground_from_camera", "ground_frame", "scales")
        self._ground = GroundScale(min_frames=min_frames)
        self.level, self.text = DiagnosticStatus.OK, _NOT_YET
        self.values: dict[str, str] = {}

    def factor(
        self,
        parameters: GroundParameters,
        header: Header,
        camera: PinholeCamera,
        pixels: NDArray[np.float64],
        depth: NDArray[np.float32],
    ) -> float:
        """Return the factor on depths, and update the status.

        Args:
            parameters: of the node.
            header: of the image.
            camera, pixels, depth: see `vlm3_ros.tasks.frame_depth.DepthScale`.

        Raises:
            ScaleError: if the scale is to come from the ground, but is unknown.
        """
        is_applied = parameters.scale_from == "ground"
        if not is_applied and not parameters.ground_from_camera.strip():
            self.forget()
            self.text = _OFF
            return 1.0
        mount = self.camera_pose(parameters, header)
        factor = self.update(parameters, stamp_nanoseconds(header), camera, pixels, depth, mount)
        return factor if is_applied else 1.0

    def camera_pose(self, parameters: GroundParameters, header: Header) -> Transform:
        """Return T_ground_camera, shape (4, 4), metres.

        Raises:
            ScaleError: if it is unknown.
        """
        try:
            return self._mount.find(
                parameters.ground_frame,
                header.frame_id,
                parameters.ground_from_camera,
                is_wanted=lambda: self._node.is_active,
            )
        except MountError as error:
            self.level, self.values = DiagnosticStatus.ERROR, {}
            self.text = f"scale_from is ground, but the camera's height is unknown: {error}"
            raise ScaleError(self.text) from None

    def update(
        self,
        parameters: GroundParameters,
        time_ns: int,
        camera: PinholeCamera,
        pixels: NDArray[np.float64],
        depth: NDArray[np.float32],
        T_ground_camera: Transform,
    ) -> float:
        """Measure the factor in a frame, update the status, and return the smoothed factor.

        Args:
            parameters: of the node.
            time_ns: of the frame, nanoseconds.
            camera, pixels, depth, T_ground_camera: see `fit_ground`.

        Raises:
            ScaleError: if the scale is to come from the ground, but is unknown.
        """
        self._ground.window = parameters.ground_window
        factor = self._ground.update(camera, pixels, depth, T_ground_camera, time_ns / 1e9)
        is_applied = parameters.scale_from == "ground"
        self._report(factor, is_applied)
        if is_applied and math.isnan(factor):
            raise ScaleError(f"nothing is published, because scale_from is ground: {self.text}")
        return factor

    def forget(self) -> None:
        """Forget the camera's pose and all frames, and stop to listen to TF."""
        self._mount.forget()
        self._ground.reset()
        self.level, self.text, self.values = DiagnosticStatus.OK, _NOT_YET, {}

    def _report(self, factor: float, is_applied: bool) -> None:
        ground, fit = self._ground, self._ground.fit
        assert fit is not None
        self.values = {
            "factor": f"{factor:.4f}",
            "factor of the last frame": f"{fit.factor:.4f}",
            "inliers": str(fit.inliers),
            "answers below the horizon": str(fit.candidates),
            "frames with ground": f"{ground.found} of {ground.frames}",
            "is applied": str(is_applied),
        }
        if math.isnan(factor):
            self.level = DiagnosticStatus.ERROR if is_applied else DiagnosticStatus.OK
            self.text = f"no ground was found yet: {fit.reason}"
            if ground.found:
                least = max(ground.min_frames, math.ceil(ground.frames / 2))
                self.text = (
                    f"the ground was found in {ground.found} of {ground.frames} frames; {least} "
                    f"are needed; last frame: {fit.reason or 'found'}"
                )
            return
        use = "applied" if is_applied else "not applied: scale_from is none"
        self.text = f"factor {factor:.3f} ({use}), {fit.inliers} answers on the ground"
        is_doubtful = False
        if fit.reason:
            is_doubtful = ground.age > PATIENCE
            self.text = (
                f"factor {factor:.3f} ({use}) of {ground.age:.1f} s ago; no ground in the last "
                f"frame: {fit.reason}"
            )
        elif abs(math.log(fit.factor / factor)) > MAX_JUMP:
            is_doubtful = True
            self.text = (
                f"factor {factor:.3f} ({use}), but {fit.factor:.3f} in the last frame: is the "
                "robot on its wheels, and the ground level?"
            )
        self.level = DiagnosticStatus.WARN if is_applied and is_doubtful else DiagnosticStatus.OK
