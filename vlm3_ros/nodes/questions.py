# SPDX-License-Identifier: Apache-2.0
"""The clicks and questions of the query node: each one gets exactly one answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import Point, PointStamped
from rclpy.lifecycle import LifecyclePublisher
from rclpy.qos import QoSProfile
from std_msgs.msg import Header, String

from vlm3_ros.messages.detections import referred_box
from vlm3_ros.nodes.detected_objects import DetectedObjects
from vlm3_ros.nodes.query_images import QueryImages
from vlm3_ros.nodes.query_parameters import QUESTION_DEPTH, QueryParameters
from vlm3_ros.nodes.query_scale import QueryScale
from vlm3_ros.ros.camera_input import FrameError
from vlm3_ros.ros.diagnostics import FrameStatistics
from vlm3_ros.ros.node import CameraModelNode
from vlm3_ros.ros.recent_images import KeptImage
from vlm3_ros.tasks.queries import (
    PixelQuery,
    Query,
    QueryAnswer,
    QueryError,
    answer_query,
    names_detections,
    refused,
    resolved,
)
from vlm3_ros.tasks.query_json import AskedQuery, answer_json, parse_question


@dataclass(frozen=True, eq=False)
class _Request:
    """A question that waits for its answer.

    text: as it came. query: None if it could not be understood. image: that it is about, None if
    it was not found. arrived: on `time.monotonic`.
    """

    text: str
    id: str | int | None
    query: Query | None
    is_click: bool
    image: KeptImage | None
    arrived: float


class Questions:
    """Answers clicks and questions one by one, in a thread of its own.

    Attributes:
        statistics: since the node was activated.
    """

    def __init__(
        self,
        node: CameraModelNode,
        parameters: Callable[[], QueryParameters],
        images: QueryImages,
        objects: DetectedObjects,
        scale: QueryScale,
    ) -> None:
        """Add the thread to a node.

        Args:
            node: whose camera, model and health are used.
            parameters: returns the node's present parameters.
            images: that questions are about.
            objects: detections that questions may name.
            scale: of depths.
        """
        self._node = node
        self._parameters = parameters
        self._images = images
        self._objects = objects
        self._scale = scale
        self.statistics = FrameStatistics()
        self._worker = node.add_worker(self._work, lambda: parameters().question_queue)
        self._unanswered: set[_Request] = set()
        self._lock = threading.Lock()
        self._clicked_point: LifecyclePublisher
        self._answer: LifecyclePublisher

    @property
    def unanswered(self) -> int:
        """Number of questions without an answer."""
        return len(self._unanswered)

    def create_outputs(self) -> None:
        """Create the publishers."""
        self._clicked_point = self._node.create_output(PointStamped, "clicked_point")
        self._answer = self._node.create_output(String, "answer", QUESTION_DEPTH)

    def subscribe(self) -> None:
        """Subscribe to clicks and questions."""
        qos = QoSProfile(depth=QUESTION_DEPTH)
        self._node.create_input(PointStamped, "clicked_pixel", self._receive_click, qos)
        self._node.create_input(String, "question", self.receive, qos)

    def receive(self, message: String) -> None:
        """Take a question; a callback."""
        try:
            asked = parse_question(message.data)
        except QueryError as error:
            self.statistics.received()
            request = self._request(message.data, error.id)
            self._refuse(request, f"{self._node.resolve_topic_name('question')}: {error}")
            return
        self._take(message.data, asked)

    def refuse_all(self) -> None:
        """Refuse all unanswered questions."""
        with self._lock:
            unanswered = sorted(self._unanswered, key=lambda request: request.arrived)
        for request in unanswered:
            self._refuse(
                request, f"{self._node.get_name()} was deactivated before the model answered"
            )

    def status(self) -> DiagnosticStatus:
        """The status of the questions."""
        report = self.statistics.report()
        values = {
            "questions received": str(report.received),
            "questions answered": str(report.answered),
            "questions refused": str(report.failed),
            **report.speed(),
            "last refusal": report.fault or "",
        }
        text = f"{report.answered} questions answered"
        return self._node.stream_status(
            "questions", report.newest_fault(), text, values, report.fault
        )

    def _receive_click(self, message: PointStamped) -> None:
        u, v, stamp = message.point.x, message.point.y, message.header.stamp
        named = (stamp.sec, stamp.nanosec) if message.header.frame_id else (0, 0)
        asked = AskedQuery(PixelQuery("point", (u, v)), None, named if any(named) else None)
        self._take(f"clicked_pixel ({u:g}, {v:g})", asked, is_click=True)

    def _take(self, text: str, asked: AskedQuery, is_click: bool = False) -> None:
        """Queue a question for the model; refuse it if its image is missing."""
        self.statistics.received()
        try:
            query, image = self._resolved(asked)
        except (FrameError, QueryError) as error:
            self._refuse(self._request(text, asked.id), str(error))
            return
        pushed_out = self._worker.put(self._request(text, asked.id, query, is_click, image))
        if pushed_out:
            self._refuse(
                pushed_out,
                f"question_queue is full ({self._parameters().question_queue} wait for the model): "
                "ask more slowly, or raise it",
            )

    def _request(
        self,
        text: str,
        id: str | int | None,
        query: Query | None = None,
        is_click: bool = False,
        image: KeptImage | None = None,
    ) -> _Request:
        request = _Request(text, id, query, is_click, image, time.monotonic())
        with self._lock:
            self._unanswered.add(request)
        return request

    def _resolved(self, asked: AskedQuery) -> tuple[Query, KeptImage]:
        """The query with boxes in place of detections, and the image that it is about."""
        if not names_detections(asked.query):
            return asked.query, self._images.find(asked.stamp)
        message, image = self._objects.newest()
        stamp = message.header.stamp
        if asked.stamp not in (None, (stamp.sec, stamp.nanosec)):
            raise FrameError(
                f"the newest detections are of the image {stamp.sec}.{stamp.nanosec:09d}, not of "
                "the one that the question names"
            )
        self._images.check_age(image)
        boxes = message.detections
        return resolved(asked.query, lambda reference: referred_box(boxes, reference)), image

    def _work(self, request: _Request) -> None:
        """Answer a question; no error may end the thread."""
        engines = self._node.model.engines
        try:
            assert request.image and request.query
            frame = self._images.rectified(request.image)
            is_depth = isinstance(request.query, PixelQuery)
            answer = answer_query(
                engines["depth"],
                frame.image,
                frame.camera,
                request.query,
                frame.lens,
                engines["objects"],
                self._scale.factor(frame) if is_depth else 1.0,
            )
        except Exception as error:
            if self._node.context.ok():
                self._refuse(request, self._node.health.error(error))
            return
        if answer.status == "unread":
            self._node.health.warn(f"{answer.reason}: {answer.raw[:100]!r}", kind="unread answer")
        self._reply(request, answer)

    def _refuse(self, request: _Request, reason: str) -> None:
        self._node.health.warn(f"refused {request.text[:100]!r}: {reason}", kind=reason)
        self._reply(request, refused(reason))

    def _reply(self, request: _Request, answer: QueryAnswer) -> None:
        """Publish an answer, unless the question has one already, or ROS has ended."""
        header = request.image.message.header if request.image else Header()
        # Publish under the lock: a deactivation, which silences the publishers, waits for it.
        with self._lock:
            if request not in self._unanswered:
                return
            self._unanswered.remove(request)
            try:
                self._publish(request, header, answer)
            except Exception:
                if self._node.context.ok():
                    raise
                return
        if answer.status == "refused":
            self.statistics.failed(answer.reason)
        else:
            latency = time.monotonic() - request.arrived
            is_unread = answer.status == "unread"
            age = self._node.camera.age(header)
            self.statistics.answered(latency, age, 1, int(is_unread))

    def _publish(self, request: _Request, header: Header, answer: QueryAnswer) -> None:
        if request.is_click and answer.status == "ok" and isinstance(answer.value, tuple):
            x, y, z = answer.value
            self._clicked_point.publish(PointStamped(header=header, point=Point(x=x, y=y, z=z)))
        stamp = (header.stamp.sec, header.stamp.nanosec) if request.image else None
        text = answer_json(answer, request.text, request.id, header.frame_id, stamp)
        self._answer.publish(String(data=text))
