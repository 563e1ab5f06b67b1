# SPDX-License-Identifier: Apache-2.0
"""The `scan` of the depth node: the camera's pose on the robot, the message, the status."""

from __future__ import annotations

import time

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.lifecycle import LifecyclePublisher
from rclpy.node import Node
from std_msgs.msg import Header

from vlm3_ros.errors import Vlm3Error
from vlm3_ros.geometry.motion import Transform
from vlm3_ros.messages.scans import scan_message
from vlm3_ros.nodes.depth_parameters import DepthParameters
from vlm3_ros.ros.frames import FrameTree
from vlm3_ros.ros.mounts import mount_from_text
from vlm3_ros.tasks.frame_depth import FrameDepth
from vlm3_ros.tasks.scan import planar_scan

TF_PATIENCE = 1.0
"""Seconds to wait, once, for a transform: latched transforms arrive within moments."""


TF_PERIOD = 10.0
"""Seconds after which a transform is looked up again: somebody may have corrected it."""


class ScanError(Vlm3Error):
    """No scan can be made, though the other outputs can; the text says what to do."""


class ScanOutput:
    """Publishes scans of the depth node's answers.

    Attributes:
        level, text: status of the last scan, for /diagnostics.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._frame_tree: FrameTree | None = None
        self._mount_of: tuple[str, str] | None = None
        """Frames of the known mount: scan_frame and the camera's."""
        self._known_mount: Transform | None = None
        self._known_since = 0.0
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
            self._stop_listening()
            self.level, self.text = DiagnosticStatus.OK, "nobody subscribes"
            return
        try:
            mount = self._mount(publisher, parameters, header.frame_id)
        except ScanError as error:
            self.level, self.text = DiagnosticStatus.WARN, str(error)
            raise
        limits = parameters.scan_limits()
        scan = planar_scan(
            depth.frame.camera,
            depth.pixels,
            depth.depth,
            depth.settings.columns,
            depth.settings.rows,
            mount,
            limits,
        )
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
        if given is not None:
            self.forget()
            return given
        if self._mount_of != (frame, camera_frame):
            self._mount_of, self._known_mount = (frame, camera_frame), None
        known = self._known_mount
        if known is not None and time.monotonic() - self._known_since < TF_PERIOD:
            return known
        patience = 0.0 if self._frame_tree or known is not None else TF_PATIENCE
        try:
            self._frame_tree = self._frame_tree or FrameTree(self._node)
        except ImportError:
            raise ScanError(
                "no scan: tf2_ros is not installed, so the camera's pose is unknown: set "
                "scan_from_camera to x y z qx qy qz qw of the camera's optical frame in "
                f"'{frame}'"
            ) from None
        mount = self._frame_tree.newest(
            frame, camera_frame, patience, is_wanted=lambda: publisher.is_activated
        )
        if mount is None and known is not None:
            return known  # TF is still on its way
        if mount is None:
            raise ScanError(
                f"no scan: no transform from '{camera_frame}' to '{frame}' on TF: publish it "
                "(robot_state_publisher, static_transform_publisher), correct scan_frame, or set "
                "scan_from_camera"
            )
        if known is not None and not np.allclose(mount, known, atol=1e-6):
            self._node.get_logger().warning(
                f"the transform from '{camera_frame}' to '{frame}' has changed on TF: scans use "
                "the new one"
            )
        self._known_mount, self._known_since = mount, time.monotonic()
        self._stop_listening()
        return mount

    def forget(self) -> None:
        """Forget the camera's pose, and stop to listen to TF."""
        self._mount_of = self._known_mount = None
        self._stop_listening()

    def _stop_listening(self) -> None:
        # A robot's /tf is busy.
        if self._frame_tree:
            self._frame_tree.close()
            self._frame_tree = None
