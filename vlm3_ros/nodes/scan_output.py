# SPDX-License-Identifier: Apache-2.0
"""The depth node's `scan`: the camera's place on the robot, the message, what is told of it."""

from __future__ import annotations

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from numpy.typing import NDArray
from rclpy.lifecycle import LifecyclePublisher
from rclpy.node import Node
from std_msgs.msg import Header

from vlm3_ros.errors import Vlm3Error
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.geometry.motion import Transform
from vlm3_ros.messages.scans import scan_message
from vlm3_ros.nodes.depth_parameters import DepthParameters
from vlm3_ros.ros.frames import FrameTree
from vlm3_ros.ros.mounts import mount_from_text
from vlm3_ros.tasks.scan import planar_scan

TF_PATIENCE = 1.0
"""Seconds that TF has, once, to tell a place that is known: latched transforms come in a moment."""


class ScanError(Vlm3Error):
    """A scan that cannot be made, though the other outputs can; the text says what to do."""


class ScanOutput:
    """Publishes scans of a node's answers.

    Attributes:
        level, text: of what became of the last one, for /diagnostics.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._frame_tree: FrameTree | None = None
        self._mounts: dict[tuple[str, str], Transform] = {}
        self.level, self.text = DiagnosticStatus.OK, "nobody subscribes"

    def publish(
        self,
        publisher: LifecyclePublisher,
        parameters: DepthParameters,
        header: Header,
        camera: PinholeCamera,
        pixels: NDArray[np.float64],
        depth: NDArray[np.float32],
    ) -> None:
        """Publish a scan where somebody listens.

        Args:
            publisher: of sensor_msgs/LaserScan.
            parameters: of the node.
            header: of the image.
            camera: rectified.
            pixels: (u, v) that were asked, shape (n, 2).
            depth: metres, shape (n,), NaN where unknown.

        Raises:
            ScanError: where the camera's place in scan_frame is not known.
        """
        if not publisher.get_subscription_count():
            self._stop_listening()
            self.level, self.text = DiagnosticStatus.OK, "nobody subscribes"
            return
        try:
            mount = self._mount(publisher, parameters, header.frame_id)
        except ScanError as error:
            self.level, self.text = DiagnosticStatus.WARN, str(error)
            raise
        limits = parameters.scan_limits()
        columns, rows = parameters.grid_columns, parameters.grid_rows
        scan = planar_scan(camera, pixels, depth, columns, rows, mount, limits)
        own_header = Header(stamp=header.stamp, frame_id=parameters.scan_frame)
        publisher.publish(scan_message(own_header, scan, limits))
        known = np.count_nonzero(~np.isnan(scan.ranges))
        self.level = DiagnosticStatus.OK
        self.text = f"{known} of {len(scan.ranges)} beams known, in {parameters.scan_frame}"

    def _mount(
        self, publisher: LifecyclePublisher, parameters: DepthParameters, camera_frame: str
    ) -> Transform:
        """T_scan_camera."""
        frame = parameters.scan_frame
        given = mount_from_text("scan_from_camera", parameters.scan_from_camera)
        known = given if given is not None else self._mounts.get((frame, camera_frame))
        if known is not None:
            self._stop_listening()
            return known
        patience = 0.0 if self._frame_tree else TF_PATIENCE
        try:
            self._frame_tree = self._frame_tree or FrameTree(self._node)
        except ImportError:
            raise ScanError(
                "no scan: tf2_ros is not installed here, so that the camera's place must be told: "
                "set scan_from_camera to x y z qx qy qz qw of the camera's optical frame in "
                f"'{frame}'"
            ) from None
        mount = self._frame_tree.newest(
            frame, camera_frame, patience, is_wanted=lambda: publisher.is_activated
        )
        if mount is None:
            raise ScanError(
                f"no scan: no transform from '{camera_frame}' to '{frame}' on TF: publish it "
                "(robot_state_publisher, static_transform_publisher), correct scan_frame, or set "
                "scan_from_camera"
            )
        self._mounts = {(frame, camera_frame): mount}
        self._stop_listening()  # it does not change
        return mount

    def _stop_listening(self) -> None:
        """A robot's /tf is busy."""
        if self._frame_tree:
            self._frame_tree.close()
            self._frame_tree = None
