# SPDX-License-Identifier: Apache-2.0
"""The detected objects of the query node: boxes come in, located objects go out."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.lifecycle import LifecyclePublisher
from std_msgs.msg import Header
from visualization_msgs.msg import MarkerArray

from vlm3_ros.messages.detections import detected_class, located_message, surest_boxes
from vlm3_ros.messages.object_markers import markers_message
from vlm3_ros.nodes.query_images import QueryImages
from vlm3_ros.nodes.query_parameters import QueryParameters
from vlm3_ros.nodes.query_scale import QueryScale
from vlm3_ros.ros.camera_input import NEWEST, FrameError
from vlm3_ros.ros.diagnostics import FrameStatistics
from vlm3_ros.ros.node import CameraModelNode
from vlm3_ros.ros.recent_images import KeptImage
from vlm3_ros.tasks.located import QUESTIONS, LocatedObject, locate_objects

if TYPE_CHECKING:
    from vision_msgs.msg import Detection2D, Detection2DArray


class Detected(NamedTuple):
    """Detections, and the image in which they were detected."""

    message: Detection2DArray
    image: KeptImage


class DetectedObjects:
    """Locates detected objects in a thread of its own; does nothing without vision_msgs.

    Attributes:
        statistics: of the messages with detections, since the node was activated.
    """

    def __init__(
        self,
        node: CameraModelNode,
        parameters: Callable[[], QueryParameters],
        images: QueryImages,
        scale: QueryScale,
    ) -> None:
        """Add the thread to a node.

        Args:
            node: whose camera, model and health are used.
            parameters: returns the node's present parameters.
            images: in which objects are detected.
            scale: of depths.
        """
        self._node = node
        self._parameters = parameters
        self._images = images
        self._scale = scale
        self.statistics = FrameStatistics()
        self._left_out: Counter[str] = Counter()
        self._newest: Detected | None = None
        self._message_type: type | None = None
        self._outputs: list[LifecyclePublisher] = []
        self._worker = node.add_worker(self._locate, lambda: 1, name="objects worker")

    def create_outputs(self) -> None:
        """Create the publishers."""
        try:
            from vision_msgs.msg import Detection2DArray, Detection3DArray
        except ImportError:
            self._node.get_logger().info(
                "vision_msgs is not installed: no detections are received, no objects published",
                once=True,
            )
            return
        self._message_type = Detection2DArray
        self._objects = self._node.create_output(Detection3DArray, "objects/detections")
        self.markers = self._node.create_output(MarkerArray, "objects/markers")
        self._outputs = [self._objects, self.markers]

    def subscribe(self) -> None:
        """Subscribe to detections."""
        if self._message_type:
            self._node.create_input(self._message_type, "detections", self._receive, NEWEST)

    def reset(self) -> None:
        """Set all counts to zero."""
        self.statistics.reset()
        self._left_out.clear()

    def release(self) -> None:
        """Forget the publishers, which the node destroys."""
        self._outputs = []

    def forget(self) -> None:
        """Forget the newest detections."""
        self._newest = None

    def newest(self) -> Detected:
        """Return the newest detections.

        Raises:
            FrameError: if no detections of a known image have come.
        """
        newest = self._newest
        if newest is None:
            raise FrameError(
                f"{self._node.resolve_topic_name('detections')}: no detections of a known image "
                "have come yet"
            )
        return newest

    def statuses(self) -> list[DiagnosticStatus]:
        """The status of the objects; none without vision_msgs."""
        if not self._message_type:
            return []
        report = self.statistics.report()
        text = f"{report.rate:.2f} Hz"
        if self._parameters().lazy and not self._has_listeners():
            text = "idle: nobody subscribes to the objects"
        left_out = dict(self._left_out)  # a copy: the worker adds to it
        values = {f"detections {key}": str(n) for key, n in left_out.items() if n}
        return [
            self._node.stream_status(
                "objects", report.newest_fault(), text, report.values() | values, report.fault
            )
        ]

    def _receive(self, message: Detection2DArray) -> None:
        self.statistics.received()
        stamp = message.header.stamp
        named = (stamp.sec, stamp.nanosec)
        try:
            detected = Detected(message, self._images.find(named if any(named) else None))
        except FrameError as error:
            reason = f"{self._node.resolve_topic_name('detections')}: {error}"
            self.statistics.failed(reason)
            self._node.health.warn(reason)
            return
        self._newest = detected
        if self._parameters().lazy and not self._has_listeners():
            self.statistics.skipped()
        elif self._worker.put((time.monotonic(), detected)):
            self.statistics.dropped()

    def _has_listeners(self) -> bool:
        return any(publisher.get_subscription_count() for publisher in self._outputs)

    def _locate(self, arrival: tuple[float, Detected]) -> None:
        """Locate the detected objects of an image; no error may end the thread."""
        (arrived, detected), node = arrival, self._node
        detections = detected.message.detections
        try:
            frame = self._images.rectified(detected.image)
            chosen, left_out = surest_boxes(
                detections, self._parameters().max_objects, frame.camera, frame.lens
            )
            boxes = [box for _, box in chosen]
            engines = node.model.engines
            objects = locate_objects(
                engines["depth"],
                frame.image,
                frame.camera,
                boxes,
                engines["objects"],
                self._scale.factor(frame) if boxes else 1.0,
            )
            located = [(d, o) for (d, _), o in zip(chosen, objects, strict=True) if o]
            left_out["unanswered"] = len(objects) - len(located)
            if not node.is_active:  # deactivated meanwhile: the publishers keep silent
                self.statistics.skipped()
                return
            self._publish(frame.header, located)
        except Exception as error:
            if node.context.ok():
                self.statistics.failed(node.health.error(error))
            return
        self._left_out.update(left_out)
        reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items() if count)
        if reasons:
            node.health.warn(
                f"{sum(left_out.values())} of {len(detections)} detections are left out: {reasons}",
                kind=reasons,
            )
        latency, questions = time.monotonic() - arrived, QUESTIONS * len(objects)
        unread = QUESTIONS * left_out["unanswered"]
        self.statistics.answered(latency, node.camera.age(frame.header), questions, unread)

    def _publish(self, header: Header, located: list[tuple[Detection2D, LocatedObject]]) -> None:
        named = [(detected_class(detection)[0], found) for detection, found in located]
        self.markers.publish(markers_message(header, named, self._parameters().marker_lifetime))
        self._objects.publish(located_message(header, located))
