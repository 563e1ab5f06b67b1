# SPDX-License-Identifier: Apache-2.0
"""The work on a stream of frames: each frame that the model has time for is answered."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from vlm3_ros.ros.camera_input import NEWEST, CameraFrame
from vlm3_ros.ros.diagnostics import FrameReport, FrameStatistics
from vlm3_ros.ros.node import CameraModelNode
from vlm3_ros.ros.node_parameters import FrameParameters

TF_BUFFER = 10.0
"""Seconds that a tf2 buffer keeps by default: a cloud that is older cannot be transformed."""


@dataclass(frozen=True)
class Published:
    """What was published about a frame: number of questions asked, and texts that were not read."""

    questions: int
    unread: Sequence[str]


class FrameWorker:
    """Answers frames as they come, in a thread of its own; counts them.

    While the model is busy, the newest frame waits, and the others are dropped, unless
    process_every_frame is set.

    Attributes:
        statistics: since the node was activated.
    """

    def __init__(
        self,
        node: CameraModelNode,
        parameters: Callable[[], FrameParameters],
        answer: Callable[[CameraFrame], Published],
        arrived: Callable[[Header], None] = lambda header: None,
    ) -> None:
        """Add the thread to a node.

        Args:
            node: whose camera, model and health are used.
            parameters: returns the node's present parameters.
            answer: asks about a frame and publishes; called in the thread.
            arrived: is called at once with the header of each image, and must not wait.
        """
        self._node = node
        self._parameters = parameters
        self._answer = answer
        self._arrived = arrived
        self.statistics = FrameStatistics()
        self._worker = node.add_worker(self._work, self._room)

    def subscribe(self) -> None:
        """Subscribe to the camera."""
        qos = NEWEST
        if self._parameters().process_every_frame:
            qos = QoSProfile(
                depth=self._parameters().queue_size, reliability=ReliabilityPolicy.RELIABLE
            )
        self._node.camera.subscribe(self._node.create_input, self._receive, qos)

    def skip_waiting(self) -> None:
        """Discard the frames that wait for the model."""
        for _ in range(self._worker.clear()):
            self.statistics.skipped()

    def status(self) -> DiagnosticStatus:
        """The status of the stream."""
        report = self.statistics.report()
        text = f"{report.rate:.2f} Hz"
        if self._parameters().lazy and not self._node.has_listeners():
            text = "idle: nobody subscribes to an output"
        return self._node.stream_status(
            "frames", self._problems(report), text, report.values(), report.fault
        )

    def _room(self) -> int:
        parameters = self._parameters()
        return parameters.queue_size if parameters.process_every_frame else 1

    def _receive(self, message: Image | CompressedImage) -> None:
        self.statistics.received()
        if self._parameters().lazy and not self._node.has_listeners():
            self.statistics.skipped()
            return
        self._arrived(message.header)
        if self._worker.put((time.monotonic(), message)):
            self.statistics.dropped()

    def _work(self, arrival: tuple[float, Image | CompressedImage]) -> None:
        """Answer a frame; no error may end the thread."""
        (arrived, message), node = arrival, self._node
        try:
            node.camera.check_age(message.header, "compare the clocks (use_sim_time?), or raise it")
            frame = node.frame(message)
            if frame is None:
                self.statistics.skipped()
                return
            published = self._answer(frame)
            if not node.is_active:  # deactivated meanwhile: the publishers kept silent
                self.statistics.skipped()
                return
            latency = time.monotonic() - arrived
            questions, unread = published.questions, published.unread
            age = node.camera.age(frame.header)
            self.statistics.answered(latency, age, questions, len(unread))
        except Exception as error:
            if not node.context.ok():
                return
            if not node.is_active:  # deactivated meanwhile: nobody waits for it
                self.statistics.skipped()
                return
            self.statistics.failed(node.health.error(error))
            return
        if unread:
            node.health.warn(
                f"{len(unread)} of {questions} answers cannot be read, such as {unread[0][:100]!r}",
                kind="unread answers",
            )

    def _problems(self, report: FrameReport) -> Iterator[tuple[bytes, str]]:
        """Levels and texts of what is wrong with the stream."""
        warning, error = DiagnosticStatus.WARN, DiagnosticStatus.ERROR
        if report.is_failing and report.fault:
            yield error, report.fault
        yield from self._node.camera.problems(report.arrived)
        if self._parameters().process_every_frame and report.dropped:
            yield (
                warning,
                f"dropped {report.dropped} of {report.received} frames because the queue is full: "
                "play slower, or raise queue_size",
            )
        if report.unread_in_last:
            yield (
                error if report.unread_in_last == report.asked_in_last else warning,
                f"{report.unread_in_last} of {report.asked_in_last} answers about the last frame "
                "cannot be read",
            )
        if report.age is not None and report.age > TF_BUFFER:
            yield (
                warning,
                f"answers come more than {TF_BUFFER:g} s after the frame's stamp, when TF has "
                "forgotten that time: ask less, or compare the clocks (use_sim_time?)",
            )
