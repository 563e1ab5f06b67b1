# SPDX-License-Identifier: Apache-2.0
"""The images of the query node: kept for a while, found by their stamps, rectified on demand."""

from __future__ import annotations

from collections.abc import Callable

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

from vlm3_ros.nodes.query_parameters import QueryParameters
from vlm3_ros.ros.camera_input import CameraFrame, FrameError
from vlm3_ros.ros.node import CameraModelNode
from vlm3_ros.ros.recent_images import KeptImage, RecentImages

_QOS = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
"""Deeper than for newest-wins nodes: a question may name any image by its stamp."""


class QueryImages:
    """Keeps the newest images of the camera.

    Attributes:
        recent: the kept images.
    """

    def __init__(self, node: CameraModelNode, parameters: Callable[[], QueryParameters]) -> None:
        self._node = node
        self._parameters = parameters
        self.recent = RecentImages()

    def subscribe(self) -> None:
        """Subscribe to the camera."""
        self._node.camera.subscribe(self._node.create_input, self.receive, _QOS)

    def receive(self, message: Image | CompressedImage) -> None:
        """Keep an image; a callback."""
        now = self._node.get_clock().now().nanoseconds
        self.recent.add(message, now, self._parameters().recent_images)

    def find(self, stamp: tuple[int, int] | None) -> KeptImage:
        """Return the image with a stamp, (seconds, nanoseconds); the newest one if None.

        Raises:
            FrameError: if there is no such image, or it is too old.
        """
        topic = self._node.camera.topic
        if stamp is None:
            image = self.recent.newest
            if image is None:
                raise FrameError(f"{topic}: no image has come yet")
        else:
            sec, nanosec = stamp
            image = self.recent.find(sec * 1_000_000_000 + nanosec)
            if image is None:
                raise FrameError(
                    f"{topic}: none of the {len(self.recent)} images that are kept has the stamp "
                    f"{sec}.{nanosec:09d}: ask sooner, or raise recent_images "
                    f"({self._parameters().recent_images}); a stamp of zero asks about the newest"
                )
        self.check_age(image)
        return image

    def check_age(self, image: KeptImage) -> None:
        """Refuse an image that came, or was taken, too long ago.

        Raises:
            FrameError: if it is older than max_image_age or max_frame_age.
        """
        limit = self._parameters().max_image_age
        age = (self._node.get_clock().now().nanoseconds - image.clock) / 1e9
        if 0 < limit < age:
            raise FrameError(
                f"{self._node.camera.topic}: the image came {age:.1f} s ago, before max_image_age "
                f"({limit:g} s): see that the camera runs, or raise it"
            )
        self._node.camera.check_age(
            image.message.header, "ask sooner, compare the clocks (use_sim_time?), or raise it"
        )

    def rectified(self, image: KeptImage) -> CameraFrame:
        """Rectify an image.

        Raises:
            FrameError: if it cannot be used, or its camera is not known yet.
            GeometryError: if a model cannot take images of its camera.
        """
        camera = self._node.camera
        frame = self._node.frame(image.message)
        if frame is None:
            missing = camera.fallback.description or "no CameraInfo has come yet"
            raise FrameError(f"{camera.info_topic}: {missing}: ask again")
        return frame

    def status(self) -> DiagnosticStatus:
        """The status of the images."""
        images, newest = self.recent, self.recent.newest
        problems = self._node.camera.problems(newest.arrived if newest else None)
        values = {
            "images received": str(images.received),
            "images kept": str(len(images)),
            "memory of them (MB)": f"{images.bytes / 1e6:.1f}",
        }
        text = f"{len(images)} images are kept"
        return self._node.stream_status("images", problems, text, values)
