# SPDX-License-Identifier: Apache-2.0
"""The metric scale of the depth node's answers: the camera's height, the factor, the status."""

from __future__ import annotations

import math

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from numpy.typing import NDArray
from std_msgs.msg import Header

from vlm3_ros.errors import Vlm3Error
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.geometry.ground import GroundScale
from vlm3_ros.messages.classes import stamp_nanoseconds
from vlm3_ros.nodes.depth_parameters import DepthParameters
from vlm3_ros.ros.camera_mounts import CameraMount, MountError
from vlm3_ros.ros.node import CameraModelNode

PATIENCE = 10.0
"""Seconds without ground after which the status warns."""

_OFF = "not measured: scale_from is none, and ground_from_camera is not set"


class ScaleError(Vlm3Error):
    """The scale is to come from the ground, but is unknown; the text says why."""


class ScaleInput:
    """Gives the factor on a frame's depths.

    Attributes:
        level, text, values: status of the last frame, for /diagnostics.
    """

    def __init__(self, node: CameraModelNode) -> None:
        self._node = node
        self._mount = CameraMount(node, "ground_from_camera", "ground_frame", "scales")
        self._ground = GroundScale()
        self.level, self.text = DiagnosticStatus.OK, _OFF
        self.values: dict[str, str] = {}

    def factor(
        self,
        parameters: DepthParameters,
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
            return 1.0
        try:
            mount = self._mount.find(
                parameters.ground_frame,
                header.frame_id,
                parameters.ground_from_camera,
                is_wanted=lambda: self._node.is_active,
            )
        except MountError as error:
            self.level, self.values = DiagnosticStatus.ERROR, {}
            self.text = f"scale_from is ground, but the camera's height is unknown: {error}"
            raise ScaleError(self.text) from None
        self._ground.window = parameters.ground_window
        factor = self._ground.update(camera, pixels, depth, mount, stamp_nanoseconds(header) / 1e9)
        self._report(factor, is_applied)
        if not is_applied:
            return 1.0
        if math.isnan(factor):
            raise ScaleError(f"nothing is published, because scale_from is ground: {self.text}")
        return factor

    def forget(self) -> None:
        """Forget the camera's pose and all frames, and stop to listen to TF."""
        self._mount.forget()
        self._ground.reset()
        self.level, self.text, self.values = DiagnosticStatus.OK, _OFF, {}

    def _report(self, factor: float, is_applied: bool) -> None:
        ground, fit = self._ground, self._ground.fit
        assert fit is not None
        self.values = {
            "factor": f"{factor:.4f}",
            "factor of the last frame": f"{fit.factor:.4f}",
            "inliers": str(fit.inliers),
            "answers below the horizon": str(fit.candidates),
            "is applied": str(is_applied),
        }
        self.level = DiagnosticStatus.OK
        if math.isnan(factor):
            self.level = DiagnosticStatus.ERROR if is_applied else DiagnosticStatus.OK
            self.text = f"no ground was found yet: {fit.reason}"
            return
        use = "applied" if is_applied else "not applied: scale_from is none"
        self.text = f"factor {factor:.3f} ({use}), {fit.inliers} answers on the ground"
        if fit.reason:
            if is_applied and ground.age > PATIENCE:
                self.level = DiagnosticStatus.WARN
            self.text = (
                f"factor {factor:.3f} ({use}) of {ground.age:.1f} s ago; no ground in the last "
                f"frame: {fit.reason}"
            )
