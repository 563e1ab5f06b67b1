# SPDX-License-Identifier: Apache-2.0
"""Answers on demand about a camera's images: the node."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import Point, PointStamped
from rclpy.lifecycle import LifecyclePublisher, LifecycleState, TransitionCallbackReturn
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header, String
from visualization_msgs.msg import MarkerArray

from vlm3_ros.engines.load import load_engine
from vlm3_ros.messages.detections import detected_class, located_message, referred_box, surest_boxes
from vlm3_ros.messages.object_markers import markers_message
from vlm3_ros.nodes.query_parameters import QUESTION_DEPTH, QueryParameters
from vlm3_ros.ros.diagnostics import FrameReport, FrameStatistics
from vlm3_ros.ros.node import CameraFrame, CameraModelNode, EngineLoader, FrameError
from vlm3_ros.ros.recent_images import KeptImage, RecentImages
from vlm3_ros.ros.running import run_nodes
from vlm3_ros.ros.worker import FrameWorker
from vlm3_ros.tasks.located import QUESTIONS, LocatedObject, locate_objects
from vlm3_ros.tasks.queries import (
    AskedQuery,
    PixelQuery,
    Query,
    QueryAnswer,
    QueryError,
    answer_json,
    answer_query,
    names_detections,
    parse_question,
    refused,
    resolved,
)

if TYPE_CHECKING:
    from vision_msgs.msg import Detection2D, Detection2DArray


@dataclass(frozen=True, eq=False)
class _Request:
    """A question on its way.

    text: as it came. image: that it is about, None where there is none. arrived: on
    `time.monotonic`.
    """

    text: str
    id: str | int | None
    query: Query | None
    is_click: bool
    image: KeptImage | None
    arrived: float


@dataclass(frozen=True)
class _Detected:
    """Detections and the image that they are of."""

    message: Detection2DArray
    image: KeptImage


class QueryNode(CameraModelNode):
    """Answers clicks and questions about the images of a camera, and locates detected objects.

    Subscribers:
        image (sensor_msgs/Image): the camera, any colour encoding
        image/compressed (sensor_msgs/CompressedImage): instead, with image_transport: compressed
        camera_info (sensor_msgs/CameraInfo): its calibration
        clicked_pixel (geometry_msgs/PointStamped): x and y are a pixel of `image` as it is
            published. A stamp of zero, or no frame: of the newest image; else of that with the
            stamp
        question (std_msgs/String): JSON, see `vlm3_ros.tasks.queries`, or any other text, which
            the model gets as it is
        detections (vision_msgs/Detection2DArray): boxes in `image` as it is published, with the
            stamp of the image; where vision_msgs is installed

    Publishers (reliable; stamp and frame of the image; metres in the optical frame):
        clicked_point (geometry_msgs/PointStamped): where the clicked pixel is
        answer (std_msgs/String): JSON, one for each question and each click, refused ones too;
            see `vlm3_ros.tasks.queries.answer_json`
        objects/markers (visualization_msgs/MarkerArray): a box and a text for each detected
            object, for RViz
        objects/detections (vision_msgs/Detection3DArray): the same with the classes, scores and
            ids of the detections; an object without an answer stays out of both
        /diagnostics (diagnostic_msgs/DiagnosticArray): model, images, questions and objects,
            once a second

    Parameters: `QueryParameters` and `CameraModelParameters`, each with its description; also in
    `ros2 param describe /query_node NAME`.
    """

    parameters: QueryParameters

    def __init__(self, engine_loader: EngineLoader = load_engine, **node_arguments: Any) -> None:
        self._images = RecentImages()
        self._statistics = FrameStatistics()
        self._questions: FrameWorker[_Request] | None = None
        self._unanswered: set[_Request] = set()
        self._unanswered_lock = threading.Lock()
        self._detection_type: type | None = None
        self._object_outputs: list[LifecyclePublisher] = []
        self._detected: _Detected | None = None
        self._located = FrameStatistics()
        self._left_out: Counter[str] = Counter()
        self._detections: FrameWorker[tuple[float, _Detected]] | None = None
        super().__init__("query_node", QueryParameters, engine_loader, **node_arguments)

    def create_outputs(self) -> None:
        """See the base class."""
        self._clicked_point = self.create_output(PointStamped, "clicked_point")
        self._answer = self.create_output(String, "answer", QUESTION_DEPTH)
        try:
            from vision_msgs.msg import Detection2DArray, Detection3DArray
        except ImportError:
            self.get_logger().info(
                "vision_msgs is not installed here: no detections are taken, no objects published",
                once=True,
            )
            return
        self._detection_type = Detection2DArray
        self._objects = self.create_output(Detection3DArray, "objects/detections")
        self._markers = self.create_output(MarkerArray, "objects/markers")
        self._object_outputs = [self._objects, self._markers]

    def create_workers(self) -> list[FrameWorker[Any]]:
        """See the base class."""
        room = self.parameters.question_queue
        self._questions = FrameWorker(self._work, room, name=f"{self.get_name()} worker")
        self._detections = FrameWorker(
            self._locate, room=1, name=f"{self.get_name()} objects worker"
        )
        return [self._questions, self._detections]

    def create_inputs(self) -> None:
        """See the base class."""
        super().create_inputs()
        qos = QoSProfile(depth=QUESTION_DEPTH)
        self.create_input(PointStamped, "clicked_pixel", self._on_click, qos)
        self.create_input(String, "question", self._on_question, qos)
        if self._detection_type:
            newest = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
            self.create_input(self._detection_type, "detections", self._on_detections, newest)

    def image_qos(self) -> QoSProfile:
        """See the base class. Deeper: who names an image by its stamp wants it to be there."""
        return QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)

    def receive(self, message: Image | CompressedImage) -> None:
        """See the base class."""
        now = self.get_clock().now().nanoseconds
        self._images.add(message, now, self.parameters.recent_images)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """See the base class."""
        self._statistics.reset()
        self._located.reset()
        self._left_out.clear()
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """See the base class. What is asked is refused while the publishers still speak."""
        self._unsubscribe()
        self._refuse_all()
        self._forget_images()
        return super().on_deactivate(state)

    def statuses(self) -> list[DiagnosticStatus]:
        """See the base class."""
        statuses = [self._images_status(), self._questions_status()]
        return [*statuses, self._objects_status()] if self._detection_type else statuses

    def _images_status(self) -> DiagnosticStatus:
        images, newest = self._images, self._images.newest
        problems = self._camera_problems(newest.arrived if newest else None)
        values = {
            "images received": str(images.received),
            "images kept": str(len(images)),
            "memory of them (MB)": f"{images.bytes / 1e6:.1f}",
        }
        return self._stream_status("images", problems, f"{len(images)} images are kept", values)

    def _questions_status(self) -> DiagnosticStatus:
        report = self._statistics.report()
        values = {
            "questions received": str(report.received),
            "questions answered": str(report.answered),
            "questions refused": str(report.failed),
            **report.speed(),
            "last refusal": report.fault or "",
        }
        text = f"{report.answered} questions answered"
        return self._stream_status("questions", _newest_fault(report), text, values, report.fault)

    def _objects_status(self) -> DiagnosticStatus:
        report = self._located.report()
        text = f"{report.rate:.2f} Hz"
        if self.parameters.lazy and not self._has_object_listeners():
            text = "idle: nobody subscribes to the objects"
        left_out = dict(self._left_out)  # at once: the worker adds to it
        values = {f"detections {key}": str(n) for key, n in left_out.items() if n}
        return self._stream_status(
            "objects", _newest_fault(report), text, report.values() | values, report.fault
        )

    def _on_click(self, message: PointStamped) -> None:
        u, v, stamp = message.point.x, message.point.y, message.header.stamp
        named = (stamp.sec, stamp.nanosec) if message.header.frame_id else (0, 0)
        asked = AskedQuery(PixelQuery("point", (u, v)), None, named if any(named) else None)
        self._take(f"clicked_pixel ({u:g}, {v:g})", asked, is_click=True)

    def _on_question(self, message: String) -> None:
        try:
            asked = parse_question(message.data)
        except QueryError as error:
            self._statistics.received()
            request = self._request(message.data, error.id)
            self._refuse(request, f"{self.resolve_topic_name('question')}: {error}")
            return
        self._take(message.data, asked)

    def _take(self, text: str, asked: AskedQuery, is_click: bool = False) -> None:
        """Let a question wait for the model; refuse it where there is no image of it."""
        self._statistics.received()
        try:
            query, image = self._about(asked)
        except (FrameError, QueryError) as error:
            self._refuse(self._request(text, asked.id), str(error))
            return
        request = self._request(text, asked.id, query, is_click, image)
        assert self._questions is not None
        left = self._questions.put(request)
        if left:
            self._refuse(
                left,
                f"question_queue is full ({self.parameters.question_queue} wait for the model): "
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
        with self._unanswered_lock:
            self._unanswered.add(request)
        return request

    def _about(self, asked: AskedQuery) -> tuple[Query, KeptImage]:
        """A query of boxes, and the image that it is about."""
        if not names_detections(asked.query):
            return asked.query, self._image_of(asked.stamp)
        detected = self._detected
        if detected is None:
            raise FrameError(
                f"{self.resolve_topic_name('detections')}: no detections of a known image have "
                "come yet"
            )
        stamp = detected.message.header.stamp
        if asked.stamp not in (None, (stamp.sec, stamp.nanosec)):
            raise FrameError(
                f"the newest detections are of the image {stamp.sec}.{stamp.nanosec:09d}, not of "
                "the one that the question names"
            )
        self._check_age(detected.image)
        detections = detected.message.detections
        query = resolved(asked.query, lambda reference: referred_box(detections, reference))
        return query, detected.image

    def _image_of(self, stamp: tuple[int, int] | None) -> KeptImage:
        """The image of a stamp; None: the newest."""
        if stamp is None:
            image = self._images.newest
            if image is None:
                raise FrameError(f"{self._image_topic}: no image has come yet")
        else:
            sec, nanosec = stamp
            image = self._images.find(sec * 1_000_000_000 + nanosec)
            if image is None:
                raise FrameError(
                    f"{self._image_topic}: none of the {len(self._images)} images that are kept "
                    f"has the stamp {sec}.{nanosec:09d}: ask sooner, or raise recent_images "
                    f"({self.parameters.recent_images}); a stamp of zero asks about the newest"
                )
        self._check_age(image)
        return image

    def _check_age(self, image: KeptImage) -> None:
        parameters = self.parameters
        age = (self.get_clock().now().nanoseconds - image.clock) / 1e9
        if 0 < parameters.max_image_age < age:
            raise FrameError(
                f"{self._image_topic}: the image came {age:.1f} s ago, before max_image_age "
                f"({parameters.max_image_age:g} s): see that the camera runs, or raise it"
            )
        self.refuse_old(
            image.message.header, "ask sooner, compare the clocks (use_sim_time?), or raise it"
        )

    def _work(self, request: _Request) -> None:
        """Answer a question; whatever happens, the thread lives on."""
        assert request.image and request.query and self.engine
        try:
            frame = self._frame_of(request.image)
            answer = answer_query(self.engine, frame.image, frame.camera, request.query, frame.lens)
        except Exception as error:
            if self.context.ok():
                self._refuse(request, self._log_fault(error))
            return
        if answer.status == "unread" and self._log_throttle.passes("unread answer"):
            self.get_logger().warning(f"{answer.reason}: {answer.raw[:100]!r}")
        self._reply(request, answer)

    def _frame_of(self, image: KeptImage) -> CameraFrame:
        frame = self._camera_frame(image.message)
        if frame is None:
            missing = self._fallback.words or "no CameraInfo has come yet"
            raise FrameError(f"{self._camera_info_topic}: {missing}: ask again")
        return frame

    def _reply(self, request: _Request, answer: QueryAnswer) -> None:
        """Publish an answer, unless the question has one already, or ROS has ended."""
        header = request.image.message.header if request.image else Header()
        # Publishing under the lock: a deactivation waits for it, which silences the publishers.
        with self._unanswered_lock:
            if request not in self._unanswered:
                return
            self._unanswered.remove(request)
            try:
                self._publish_answer(request, header, answer)
            except Exception:
                if self.context.ok():
                    raise
                return
        if answer.status == "refused":
            self._statistics.failed(answer.reason)
        else:
            latency = time.monotonic() - request.arrived
            is_unread = answer.status == "unread"
            self._statistics.answered(latency, self._age(header), 1, int(is_unread))

    def _publish_answer(self, request: _Request, header: Header, answer: QueryAnswer) -> None:
        if request.is_click and answer.status == "ok" and isinstance(answer.value, tuple):
            x, y, z = answer.value
            self._clicked_point.publish(PointStamped(header=header, point=Point(x=x, y=y, z=z)))
        stamp = (header.stamp.sec, header.stamp.nanosec) if request.image else None
        text = answer_json(answer, request.text, request.id, header.frame_id, stamp)
        self._answer.publish(String(data=text))

    def _refuse(self, request: _Request, reason: str) -> None:
        if self._log_throttle.passes(reason):
            self.get_logger().warning(f"refused {request.text[:100]!r}: {reason}")
        self._reply(request, refused(reason))

    def _refuse_all(self) -> None:
        with self._unanswered_lock:
            unanswered = sorted(self._unanswered, key=lambda request: request.arrived)
        for request in unanswered:
            self._refuse(request, f"{self.get_name()} was deactivated before the model answered")

    def _release(self) -> None:
        self._unsubscribe()
        self._refuse_all()
        self._forget_images()
        self._object_outputs = []
        super()._release()

    def _forget_images(self) -> None:
        self._images.clear()
        self._detected = None

    def _on_detections(self, message: Detection2DArray) -> None:
        self._located.received()
        stamp = message.header.stamp
        named = (stamp.sec, stamp.nanosec)
        try:
            self._detected = _Detected(message, self._image_of(named if any(named) else None))
        except FrameError as error:
            reason = f"{self.resolve_topic_name('detections')}: {error}"
            self._located.failed(reason)
            if self._log_throttle.passes(reason):
                self.get_logger().warning(reason)
            return
        if self.parameters.lazy and not self._has_object_listeners():
            self._located.skipped()
        elif self._detections and self._detections.put((time.monotonic(), self._detected)):
            self._located.dropped()

    def _has_object_listeners(self) -> bool:
        return any(publisher.get_subscription_count() for publisher in self._object_outputs)

    def _locate(self, arrival: tuple[float, _Detected]) -> None:
        """Locate the detected objects of an image; whatever happens, the thread lives on."""
        arrived, detected = arrival
        assert self.engine
        try:
            frame = self._frame_of(detected.image)
            chosen, left_out = surest_boxes(
                detected.message.detections, self.parameters.max_objects, frame.camera, frame.lens
            )
            boxes = [box for _, box in chosen]
            found = locate_objects(self.engine, frame.image, frame.camera, boxes)
            located = [(some, o) for (some, _), o in zip(chosen, found, strict=True) if o]
            left_out["unanswered"] = len(found) - len(located)
            if not self._inputs:  # deactivated meanwhile: the publishers keep silent
                self._located.skipped()
                return
            self._publish_objects(frame.header, located)
        except Exception as error:
            if self.context.ok():
                self._located.failed(self._log_fault(error))
            return
        self._left_out.update(left_out)
        reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items() if count)
        if reasons and self._log_throttle.passes(reasons):
            self.get_logger().warning(
                f"of {len(detected.message.detections)} detections are left out: {reasons}"
            )
        latency, questions = time.monotonic() - arrived, QUESTIONS * len(found)
        unread = QUESTIONS * left_out["unanswered"]
        self._located.answered(latency, self._age(frame.header), questions, unread)

    def _publish_objects(
        self, header: Header, located: list[tuple[Detection2D, LocatedObject]]
    ) -> None:
        named = [(detected_class(detection)[0], some) for detection, some in located]
        self._markers.publish(markers_message(header, named, self.parameters.marker_lifetime))
        self._objects.publish(located_message(header, located))


def _newest_fault(report: FrameReport) -> list[tuple[bytes, str]]:
    return [(DiagnosticStatus.WARN, report.fault)] if report.is_failing and report.fault else []


def main(arguments: list[str] | None = None) -> int:
    """Run the node: `ros2 run vlm3_ros query_node`."""
    return run_nodes(lambda end: [QueryNode()], arguments)


if __name__ == "__main__":
    sys.exit(main())
