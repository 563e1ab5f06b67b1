# SPDX-License-Identifier: Apache-2.0
"""The metric scale of the query node's depths: it asks about the ground of the image itself."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus

from vlm3_ros.geometry.ground import ground_pixels
from vlm3_ros.messages.classes import stamp_nanoseconds
from vlm3_ros.nodes.query_parameters import QueryParameters
from vlm3_ros.nodes.scale_input import ScaleInput
from vlm3_ros.ros.camera_input import CameraFrame
from vlm3_ros.ros.node import CameraModelNode
from vlm3_ros.tasks.depth import ask_depth
from vlm3_ros.tasks.frame_depth import nearest_pixels


class QueryScale:
    """Gives the factor on the depths of an image; its threads may be several."""

    def __init__(self, node: CameraModelNode, parameters: Callable[[], QueryParameters]) -> None:
        self._node = node
        self._parameters = parameters
        # A click is a single image, so one frame must do.
        self._input = ScaleInput(node, min_frames=1)
        self._lock = threading.Lock()
        self._known: tuple[QueryParameters, int, str, float] | None = None
        """Parameters, stamp and frame of the last image, and its factor."""

    def factor(self, frame: CameraFrame) -> float:
        """Return the factor on depths; asks the model about the ground of a new image.

        Raises:
            ScaleError: if the scale is to come from the ground, but is unknown.
            EngineError: if the model cannot answer.
        """
        with self._lock:
            parameters, header = self._parameters(), frame.header
            if parameters.scale_from != "ground":
                self._forget()
                return 1.0
            image = (parameters, stamp_nanoseconds(header), header.frame_id)
            if self._known is not None and self._known[:3] == image:
                return self._known[3]
            mount = self._input.camera_pose(parameters, header)
            pixels = ground_pixels(frame.camera, mount)
            u, v = nearest_pixels(pixels)
            pixels = pixels[frame.visible[v, u]]
            depth = np.empty(0, np.float32)
            if len(pixels):
                engine = self._node.model.engines["depth"]
                depth = ask_depth(engine, frame.image, frame.camera, pixels).depth
            # Images may be asked about in any order: the time of asking counts.
            now = self._node.get_clock().now().nanoseconds
            factor = self._input.update(parameters, now, frame.camera, pixels, depth, mount)
            self._known = (*image, factor)
            return factor

    def forget(self) -> None:
        """Forget the camera's pose and all images."""
        with self._lock:
            self._forget()

    def status(self) -> DiagnosticStatus:
        """The status of the scale."""
        scale = self._input
        level, text, values = DiagnosticStatus.OK, "not measured: scale_from is none", {}
        if self._parameters().scale_from == "ground":
            level, values = scale.level, scale.values
            text = f"{scale.text}; what the model for objects says keeps its own scale"
        return self._node.health.status("ground", self._node.camera.topic, level, text, values)

    def _forget(self) -> None:
        self._input.forget()
        self._known = None
