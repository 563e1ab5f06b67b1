# SPDX-License-Identifier: Apache-2.0
"""The pose of a camera on its robot, from a parameter or TF, as long as it is needed."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from rclpy.node import Node

from vlm3_ros.errors import Vlm3Error
from vlm3_ros.geometry.motion import Transform
from vlm3_ros.ros.frames import FrameTree
from vlm3_ros.ros.mounts import mount_from_text

TF_PATIENCE = 1.0
"""Seconds to wait, once, for a transform: latched transforms arrive within moments."""

TF_PERIOD = 10.0
"""Seconds after which a transform is looked up again: somebody may have corrected it."""


class MountError(Vlm3Error):
    """The camera's pose on the robot is unknown; the text says what to do."""


class CameraMount:
    """Knows the pose of a camera in a frame of the robot; listens to TF only while it must."""

    def __init__(
        self,
        node: Node,
        parameter: str,
        frame_parameter: str,
        user: str,
        tolerance: float = 1e-6,
    ) -> None:
        """Name what messages tell.

        Args:
            node: that listens to TF.
            parameter: name of the parameter with the pose.
            frame_parameter: name of the parameter with the frame.
            user: what needs the pose, in the plural.
            tolerance: metres, and radians, below which a change is noise: the known pose stays.
        """
        self._node = node
        self._parameter, self._frame_parameter, self._user = parameter, frame_parameter, user
        self._tolerance = tolerance
        self._frame_tree: FrameTree | None = None
        self._has_waited = False
        self._mount_of: tuple[str, str] | None = None
        """Frames of the known mount: the robot's and the camera's."""
        self._known_mount: Transform | None = None
        self._known_since = 0.0

    def listen(self, frame: str) -> FrameTree:
        """Listen to TF for the camera's pose in a frame of the robot.

        Raises:
            MountError: if tf2_ros is not installed.
        """
        try:
            tree = self._frame_tree = self._frame_tree or FrameTree(self._node)
        except ImportError:
            raise MountError(
                "tf2_ros is not installed, so the camera's pose is unknown: set "
                f"{self._parameter} to x y z qx qy qz qw of the camera's optical frame in "
                f"'{frame}'"
            ) from None
        return tree

    def find(
        self,
        frame: str,
        camera_frame: str,
        text: str,
        is_wanted: Callable[[], bool],
        patience: float = TF_PATIENCE,
    ) -> Transform:
        """Return T_frame_camera, shape (4, 4), metres.

        Args:
            frame: of the robot.
            camera_frame: the camera's optical frame.
            text: of the parameter, see `mount_from_text`; empty: from TF.
            is_wanted: whether to go on waiting for TF.
            patience: seconds to wait, once, for a transform.

        Raises:
            MountError: if it is unknown.
        """
        given = mount_from_text(self._parameter, text)
        if given is not None:
            self.forget()
            return given
        if self._mount_of != (frame, camera_frame):
            self._mount_of, self._known_mount = (frame, camera_frame), None
            self._has_waited = False
        known = self._known_mount
        if known is not None and time.monotonic() - self._known_since < TF_PERIOD:
            return known
        if self._has_waited or known is not None:
            patience = 0.0
        mount = self.listen(frame).newest(frame, camera_frame, patience, is_wanted)
        self._has_waited = True
        if mount is None and known is not None:
            return known  # TF is still on its way
        if mount is None:
            raise MountError(
                f"no transform from '{camera_frame}' to '{frame}' on TF: publish it "
                "(robot_state_publisher, static_transform_publisher), correct "
                f"{self._frame_parameter}, or set {self._parameter}"
            )
        if known is not None and np.allclose(mount, known, rtol=0.0, atol=self._tolerance):
            mount = known
        elif known is not None:
            self._node.get_logger().warning(
                f"the transform from '{camera_frame}' to '{frame}' has changed on TF: "
                f"{self._user} use the new one"
            )
        self._known_mount, self._known_since = mount, time.monotonic()
        self.stop_listening()
        return mount

    def forget(self) -> None:
        """Forget the camera's pose, and stop to listen to TF."""
        self._mount_of = self._known_mount = None
        self._has_waited = False
        self.stop_listening()

    def stop_listening(self) -> None:
        """Stop to listen to TF; a known pose stays known."""
        if self._frame_tree is not None:
            self._frame_tree.close()
            self._frame_tree = None
