# SPDX-License-Identifier: Apache-2.0
"""The camera of a node: its topics, its calibration, and the rectified frames from both."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from vlm3_ros.errors import MessageError, Vlm3Error
from vlm3_ros.geometry.camera import GeometryError
from vlm3_ros.geometry.frame import RectifiedFrame, rectified_frame
from vlm3_ros.geometry.lens import LensCamera, UncalibratedError
from vlm3_ros.messages.cameras import CalibrationHistory, is_called_rectified
from vlm3_ros.messages.classes import stamp_nanoseconds
from vlm3_ros.messages.images import rgb_from_message
from vlm3_ros.ros.fallback import FallbackIntrinsics
from vlm3_ros.ros.node_parameters import CameraModelParameters

NEWEST = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
"""Of a subscription to which only the newest message matters."""

_CALIBRATION_QOS = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)

_TRANSPORTS = ("raw", "compressed", "compressedDepth", "theora", "zstd", "ffmpeg")
"""Of image_transport."""

_SIMULATED_START = 1.0
"""Seconds of simulated time in which a stamp of 0 is taken for a true one."""

InputFactory = Callable[[type, str, Callable[[Any], None], QoSProfile], None]
"""Subscribes to a topic: message type, topic, callback, QoS."""


class FrameError(Vlm3Error):
    """A frame that cannot be answered; the text names the topic and what to do."""


@dataclass(frozen=True, eq=False, kw_only=True)
class CameraFrame(RectifiedFrame):
    """A rectified frame with the header of its image."""

    header: Header


class CameraInput:
    """Subscribes to a camera, and makes rectified frames of its images.

    Attributes:
        info_topic: of the calibration, after remapping.
        calibrations: that came since the last `restart`.
        fallback: intrinsics of a camera without calibration.
    """

    def __init__(self, node: Node, parameters: Callable[[], CameraModelParameters]) -> None:
        """Resolve the topics.

        Args:
            node: that subscribes.
            parameters: returns its present parameters.
        """
        self._node = node
        self._parameters = parameters
        self._base_topic = node.resolve_topic_name("image")
        self.info_topic = node.resolve_topic_name("camera_info")
        self.calibrations = CalibrationHistory()
        self.fallback = FallbackIntrinsics()
        self._started = 0.0
        self._remarks: tuple[str, ...] = ()
        """What is unusual about the newest image and its calibration, though it can be used."""

    @property
    def topic(self) -> str:
        """The image topic, after remapping."""
        # As image_transport names them: remapping `image` moves the compressed topic, too.
        return self._base_topic + ("/compressed" if self._is_compressed else "")

    @property
    def intrinsics(self) -> str:
        """Where the intrinsics come from, for diagnostics."""
        return self.fallback.description or "camera_info"

    def subscribe(
        self,
        create_input: InputFactory,
        receive: Callable[[Image | CompressedImage], None],
        qos: QoSProfile = NEWEST,
    ) -> None:
        """Subscribe to calibration and images.

        Args:
            create_input: creates a subscription.
            receive: is called with each image, and must not wait for the model.
            qos: of the images.
        """
        create_input(CameraInfo, self.info_topic, self.calibrations.add, _CALIBRATION_QOS)
        message_type = CompressedImage if self._is_compressed else Image
        create_input(message_type, self.topic, receive, qos)

    def restart(self) -> None:
        """Forget all calibrations; timeouts count from now."""
        self.calibrations.clear()
        self.fallback.clear()
        self._remarks = ()
        self._started = time.monotonic()

    def frame(self, message: Image | CompressedImage) -> CameraFrame | None:
        """Rectify an image. Return None while its camera is not known yet.

        Raises:
            FrameError: if the image or its calibration cannot be used.
        """
        header, parameters = message.header, self._parameters()
        if not header.frame_id:
            raise FrameError(
                f"{self.topic}: header.frame_id is empty: set the frame of the camera in its driver"
            )
        try:
            image = rgb_from_message(message)
        except MessageError as error:
            raise FrameError(f"{self.topic}: {error}") from None
        lens = self._lens(header, image, parameters)
        if lens is None:
            return None
        self._remarks = tuple(f"{self.info_topic}: {text}" for text in lens.assumptions)
        if self._is_stamp_unset(header):
            self._remarks += (
                f"{self.topic}: header.stamp is 0, so nobody knows when the image was taken: TF "
                "takes the newest transforms for it, and pose_node cannot use it; set it in the "
                "driver",
            )
        frame = rectified_frame(image, lens)
        if frame.lens is not None and is_called_rectified(self._base_topic):
            self._remarks += (
                f"{self.topic} is called rectified, but {self.info_topic} has distortion, with "
                "which its images are rectified: set image_is_rectified if they are already",
            )
        return CameraFrame(**vars(frame), header=header)

    def age(self, header: Header) -> float:
        """Seconds from a stamp until now, on the node's clock."""
        return (self._node.get_clock().now().nanoseconds - stamp_nanoseconds(header)) / 1e9

    def check_age(self, header: Header, remedy: str) -> None:
        """Refuse a frame that is too old.

        Args:
            header: of the image.
            remedy: what the user can do if it is too old.

        Raises:
            FrameError: if the stamp is more than max_frame_age from now, in the past or, after a
                jump of the clock, in the future.
        """
        limit, age = self._parameters().max_frame_age, self.age(header)
        if not limit or abs(age) <= limit:
            return
        if self._is_stamp_unset(header):
            raise FrameError(
                f"{self.topic}: header.stamp is 0, so max_frame_age ({limit:g} s) cannot be "
                "checked: set it in the driver, or set max_frame_age to 0"
            )
        if age < 0:
            raise FrameError(
                f"{self.topic}: the frame's stamp is {-age:.1f} s in the future, more than "
                f"max_frame_age ({limit:g} s): has the clock jumped back (use_sim_time?)"
            )
        raise FrameError(
            f"{self.topic}: the frame is {age:.1f} s old, older than max_frame_age "
            f"({limit:g} s): {remedy}"
        )

    def problems(self, arrived: float | None) -> Iterator[tuple[bytes, str]]:
        """Levels and texts of what is wrong with the messages of the camera.

        Args:
            arrived: when the newest image came in, on `time.monotonic`.
        """
        parameters, now = self._parameters(), time.monotonic()
        warning, has_fallback = DiagnosticStatus.WARN, parameters.fallback_intrinsics != "none"
        if now - (arrived or self._started) > parameters.image_timeout:
            reason = self._why_silent()
            yield (
                warning,
                f"no image on {self.topic} for {parameters.image_timeout:g} s: {reason}",
            )
        elif self.calibrations.is_empty and now - self._started > parameters.camera_info_timeout:
            remedy = "check the topic, or set fallback_intrinsics"
            if has_fallback:
                # No description yet if nobody listens, so that no image needed the fallback.
                remedy = self.fallback.description or "fallback_intrinsics will be used"
            yield warning, f"images, but no CameraInfo on {self.info_topic}: {remedy}"
        elif self.fallback.description and has_fallback:
            yield (
                warning,
                f"{self.info_topic}: the camera is uncalibrated: {self.fallback.description}",
            )
        for remark in self._remarks:
            yield warning, remark

    @property
    def _is_compressed(self) -> bool:
        return self._parameters().image_transport == "compressed"

    def _why_silent(self) -> str:
        """Why no images come, as far as the publishers in the graph tell."""
        expected = f"sensor_msgs/msg/{'CompressedImage' if self._is_compressed else 'Image'}"
        types = [info.topic_type for info in self._node.get_publishers_info_by_topic(self.topic)]
        if expected in types:
            return f"{len(types)} publish it; compare their QoS with `ros2 topic info -v`"
        if types:
            reason = f"it carries {types[0]}, not {expected}"
            base, _, transport = self.topic.rpartition("/")
            if transport == "compressed" and types[0].endswith("/CompressedImage"):
                return f"{reason}: remap image to {base}, and set image_transport:=compressed"
            return f"{reason}: remap image to the camera's topic"
        for name in _TRANSPORTS:
            topic = self._base_topic + (f"/{name}" if name != "raw" else "")
            found = [info.topic_type for info in self._node.get_publishers_info_by_topic(topic)]
            if topic == self.topic or not found:
                continue
            if name == "raw" and found[0].endswith("/CompressedImage"):
                return f"{topic} is compressed: remap image to {topic.rpartition('/')[0]}"
            if name in ("raw", "compressed"):
                return f"only {topic} is published: set image_transport:={name}"
            return (
                f"only {topic} is published, which is not read: publish raw or compressed images "
                "(image_transport republish)"
            )
        return "nobody publishes it"

    def _is_stamp_unset(self, header: Header) -> bool:
        # In simulation, time begins at 0.
        return stamp_nanoseconds(header) == 0 and self.age(header) > _SIMULATED_START

    def _lens(
        self, header: Header, image: NDArray[np.uint8], parameters: CameraModelParameters
    ) -> LensCamera | None:
        if parameters.fallback_intrinsics == "none":  # it may have been another
            self.fallback.description = ""
        try:
            size = (image.shape[1], image.shape[0])
            found = self.calibrations.find(header, size, parameters.image_is_rectified)
        except UncalibratedError as error:
            if parameters.fallback_intrinsics == "none":
                raise FrameError(f"{self.info_topic}: {error}") from None
            return self.fallback.lens(parameters, image, header.frame_id)
        except GeometryError as error:
            raise FrameError(f"{self.info_topic}: {error}") from None
        if found:
            self.fallback.description = ""
            info, lens = found
            if info.header.frame_id != header.frame_id:
                frame = info.header.frame_id
                what = f"has the frame {frame!r}" if frame else "has an empty frame"
                self._node.get_logger().warning(
                    f"{self.info_topic} {what}, {self.topic} has {header.frame_id!r}, which is "
                    "used",
                    once=True,
                )
            return lens
        waited = time.monotonic() - self._started
        if parameters.fallback_intrinsics == "none" or waited < parameters.camera_info_timeout:
            return None
        return self.fallback.lens(parameters, image, header.frame_id)
