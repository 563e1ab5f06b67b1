# SPDX-License-Identifier: Apache-2.0
"""The `scan` of the depth node: the camera's pose on the robot, the message, the status."""

from __future__ import annotations

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.lifecycle import LifecyclePublisher
from rclpy.node import Node
from std_msgs.msg import Header

from vlm3_ros.errors import Vlm3Error
from vlm3_ros.messages.scans import scan_message
from vlm3_ros.nodes.depth_parameters import DepthParameters
from vlm3_ros.ros.camera_mounts import CameraMount, MountError
from vlm3_ros.tasks.frame_depth import FrameDepth
from vlm3_ros.tasks.scan import planar_scan


class ScanError(Vlm3Error):
    """No scan can be made, though the other outputs can; the text says what to do."""


class ScanOutput:
    """Publishes scans of the depth node's answers.

    Attributes:
        level, text: status of the last scan, for /diagnostics.
    """

    def __init__(self, node: Node) -> None:
        self._mount = CameraMount(node, "scan_from_camera", "scan_frame", "scans")
        self.level, self.text = DiagnosticStatus.OK, "nobody subscribes"

    def publish(
        self,
        publisher: LifecyclePublisher,
        parameters: DepthParameters,
        header: Header,
        depth: FrameDepth,
    ) -> None:
        """Publish a scan if somebody subscribes.

        Args:
            publisher: of sensor_msgs/LaserScan.
            parameters: of the node.
            header: of the image.
            depth: of the image.

        Raises:
            ScanError: if the camera's pose in scan_frame is unknown.
        """
        if not publisher.get_subscription_count():
            self._mount.stop_listening()
            self.level, self.text = DiagnosticStatus.OK, "nobody subscribes"
            return
        try:
            mount = self._mount.find(
                parameters.scan_frame,
                header.frame_id,
                parameters.scan_from_camera,
                is_wanted=lambda: publisher.is_activated,
            )
        except MountError as error:
            self.level, self.text = DiagnosticStatus.WARN, f"no scan: {error}"
            raise ScanError(self.text) from None
        limits = parameters.scan_limits()
        scan = planar_scan(
            depth.frame.camera,
            depth.pixels,
            depth.depth,
            depth.settings.columns,
            depth.settings.rows,
            mount,
            limits,
            depth.cell_extents,
        )
        own_header = Header(stamp=header.stamp, frame_id=parameters.scan_frame)
        publisher.publish(scan_message(own_header, scan, limits))
        known = np.count_nonzero(~np.isnan(scan.ranges))
        self.level = DiagnosticStatus.OK
        self.text = f"{known} of {len(scan.ranges)} beams known, in {parameters.scan_frame}"

    def forget(self) -> None:
        """Forget the camera's pose, and stop to listen to TF."""
        self._mount.forget()
