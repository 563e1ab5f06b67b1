"""Answers on demand about a camera's images: the node."""

from __future__ import annotations

import sys
import threading
import time
from dataclasses import dataclass
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import Point, PointStamped
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header, String

from vlm3_ros.engines.load import load_engine
from vlm3_ros.ros.diagnostics import FrameStatistics
from vlm3_ros.ros.node import CameraModelNode, EngineLoader, FrameError
from vlm3_ros.ros.node_parameters import CameraModelParameters
from vlm3_ros.ros.parameters import parameter
from vlm3_ros.ros.recent_images import KeptImage, RecentImages
from vlm3_ros.ros.running import run_nodes
from vlm3_ros.ros.worker import FrameWorker
from vlm3_ros.tasks.queries import (
    AskedQuery,
    PixelQuery,
    Query,
    QueryAnswer,
    QueryError,
    answer_json,
    answer_query,
    parse_question,
    refused,
)

QUESTION_DEPTH = 1000
"""Messages that wait in DDS: none is lost on the way to the queue, which tells what it refuses."""


@dataclass(frozen=True)
class QueryParameters(CameraModelParameters):
    """Parameters of the query node."""

    recent_images: int = parameter(
        30,
        "Images that are kept for clicks, questions and detections that name one by its stamp: "
        "28 MB of raw 640x480.",
        minimum=1,
        maximum=1000,
    )
    max_image_age: float = parameter(
        5.0,
        "Refuse questions about an image that came longer ago than this, in seconds: the camera "
        "has stopped. 0 for any age.",
        minimum=0.0,
        maximum=1e6,
    )
    question_queue: int = parameter(
        10,
        "Questions and clicks that may wait for the model; for another the oldest is refused.",
        minimum=1,
        maximum=QUESTION_DEPTH,
        changes="unconfigured",
    )


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


class QueryNode(CameraModelNode):
    """Answers clicks and questions about the images of a camera.

    Subscribers:
        image (sensor_msgs/Image): the camera, any colour encoding
        image/compressed (sensor_msgs/CompressedImage): instead, with image_transport: compressed
        camera_info (sensor_msgs/CameraInfo): its calibration
        clicked_pixel (geometry_msgs/PointStamped): x and y are a pixel of `image` as it is
            published. A stamp of zero, or no frame: of the newest image; else of that with the
            stamp
        question (std_msgs/String): JSON, see `vlm3_ros.tasks.queries`, or any other text, which
            the model gets as it is

    Publishers (reliable; stamp and frame of the image; metres in the optical frame):
        clicked_point (geometry_msgs/PointStamped): where the clicked pixel is
        answer (std_msgs/String): JSON, one for each question and each click, refused ones too;
            see `vlm3_ros.tasks.queries.answer_json`
        /diagnostics (diagnostic_msgs/DiagnosticArray): model, images and questions, once a second

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
        super().__init__("query_node", QueryParameters, engine_loader, **node_arguments)

    def create_outputs(self) -> None:
        """See the base class."""
        self._clicked_point = self.create_output(PointStamped, "clicked_point")
        self._answer = self.create_output(String, "answer", QUESTION_DEPTH)

    def create_workers(self) -> list[FrameWorker[Any]]:
        """See the base class."""
        room = self.parameters.question_queue
        self._questions = FrameWorker(self._work, room, name=f"{self.get_name()} worker")
        return [self._questions]

    def create_inputs(self) -> None:
        """See the base class."""
        super().create_inputs()
        qos = QoSProfile(depth=QUESTION_DEPTH)
        self.create_input(PointStamped, "clicked_pixel", self._on_click, qos)
        self.create_input(String, "question", self._on_question, qos)

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
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """See the base class. What is asked is refused while the publishers still speak."""
        self._unsubscribe()
        self._refuse_all()
        self._images.clear()
        return super().on_deactivate(state)

    def statuses(self) -> list[DiagnosticStatus]:
        """See the base class."""
        images, newest, report = self._images, self._images.newest, self._statistics.report()
        counts = {
            "questions received": report.received,
            "questions answered": report.answered,
            "questions refused": report.failed,
        }
        values = {name: str(count) for name, count in counts.items()} | report.speed()
        values["last refusal"] = report.fault or ""
        refusal = [(DiagnosticStatus.WARN, report.fault)] if report.is_failing else []
        return [
            self._stream_status(
                "images",
                self._camera_problems(newest.arrived if newest else None),
                f"{len(images)} images are kept",
                {"images received": str(images.received), "images kept": str(len(images))},
            ),
            self._stream_status(
                "questions",
                [(level, text) for level, text in refusal if text],
                f"{report.answered} questions answered",
                values,
                report.fault,
            ),
        ]

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
            image = self._image_of(asked.stamp)
        except FrameError as error:
            self._refuse(self._request(text, asked.id), str(error))
            return
        request = self._request(text, asked.id, asked.query, is_click, image)
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

    def _image_of(self, stamp: tuple[int, int] | None) -> KeptImage:
        """The image that a question is about; None: the newest."""
        parameters = self.parameters
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
                    f"({parameters.recent_images}); a stamp of zero asks about the newest"
                )
        age = (self.get_clock().now().nanoseconds - image.clock) / 1e9
        if 0 < parameters.max_image_age < age:
            raise FrameError(
                f"{self._image_topic}: the image came {age:.1f} s ago, before max_image_age "
                f"({parameters.max_image_age:g} s): see that the camera runs, or raise it"
            )
        self._check_age(image.message.header)
        return image

    def _work(self, request: _Request) -> None:
        """Answer a question; whatever happens, the thread lives on."""
        assert request.image and request.query and self.engine
        try:
            frame = self._camera_frame(request.image.message)
            if frame is None:
                raise FrameError(f"{self._camera_info_topic}: no CameraInfo has come yet")
            answer = answer_query(self.engine, frame.image, frame.camera, request.query, frame.lens)
        except Exception as error:
            if self.context.ok():
                self._refuse(request, self._log_fault(error))
            return
        if answer.status == "unread" and self._log_throttle.passes("unread answer"):
            self.get_logger().warning(f"{answer.reason}: {answer.raw[:100]!r}")
        self._reply(request, answer)

    def _reply(self, request: _Request, answer: QueryAnswer) -> None:
        """Publish an answer, unless the question has one already."""
        with self._unanswered_lock:
            if request not in self._unanswered:
                return
            self._unanswered.remove(request)
        header = request.image.message.header if request.image else Header()
        stamp = (header.stamp.sec, header.stamp.nanosec) if request.image else None
        if request.is_click and answer.status == "ok" and isinstance(answer.value, tuple):
            x, y, z = answer.value
            self._clicked_point.publish(PointStamped(header=header, point=Point(x=x, y=y, z=z)))
        text = answer_json(answer, request.text, request.id, header.frame_id, stamp)
        self._answer.publish(String(data=text))
        if answer.status == "refused":
            self._statistics.failed(answer.reason)
        else:
            latency = time.monotonic() - request.arrived
            is_unread = answer.status == "unread"
            self._statistics.answered(latency, self._age(header), 1, int(is_unread))

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
        self._images.clear()
        super()._release()


def main(arguments: list[str] | None = None) -> int:
    """Run the node: `ros2 run vlm3_ros query_node`."""
    return run_nodes(lambda end: [QueryNode()], arguments)


if __name__ == "__main__":
    sys.exit(main())
