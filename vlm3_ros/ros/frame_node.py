# SPDX-License-Identifier: Apache-2.0
"""The lifecycle node under those that ask a model about every frame that it has time for."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

from vlm3_ros.engines.load import load_engine
from vlm3_ros.ros.diagnostics import FrameReport, FrameStatistics
from vlm3_ros.ros.node import CameraFrame, CameraModelNode, EngineLoader
from vlm3_ros.ros.node_parameters import FrameParameters
from vlm3_ros.ros.worker import FrameWorker

TF_BUFFER = 10.0
"""Seconds that a tf2 buffer keeps by default: who transforms an older cloud drops it."""


@dataclass(frozen=True)
class Published:
    """What came of a frame: questions asked, and the texts that could not be read."""

    questions: int
    unread: Sequence[str]


class FrameNode(CameraModelNode):
    """Answers frames as they come; while the model is busy the newest one waits.

    The others are dropped, unless the parameters say that frames wait.
    """

    parameters: FrameParameters

    def __init__(
        self,
        name: str,
        table: type[FrameParameters],
        engine_loader: EngineLoader = load_engine,
        **node_arguments: Any,
    ) -> None:
        """See the base class."""
        self._statistics = FrameStatistics()
        self._worker: FrameWorker[tuple[float, Image | CompressedImage]] | None = None
        super().__init__(name, table, engine_loader, **node_arguments)

    @abstractmethod
    def answer(self, frame: CameraFrame) -> Published:
        """Ask `self.engine` about a frame and publish, in the worker's thread."""

    def forget_waiting(self) -> None:
        """Leave out the frames that wait for the model."""
        worker = self._worker
        for _ in range(worker.clear() if worker else 0):
            self._statistics.skipped()

    def create_workers(self) -> list[FrameWorker[Any]]:
        """See the base class."""
        parameters = self.parameters
        room = parameters.queue_size if parameters.process_every_frame else 1
        self._worker = FrameWorker(self._work, room, name=f"{self.get_name()} worker")
        return [self._worker]

    def image_qos(self) -> QoSProfile:
        """See the base class."""
        if not self.parameters.process_every_frame:
            return super().image_qos()
        return QoSProfile(depth=self.parameters.queue_size, reliability=ReliabilityPolicy.RELIABLE)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """See the base class."""
        self._statistics.reset()
        return super().on_activate(state)

    def statuses(self) -> list[DiagnosticStatus]:
        """See the base class."""
        return [self._frames_status()]

    def receive(self, message: Image | CompressedImage) -> None:
        """See the base class."""
        self._statistics.received()
        if self.parameters.lazy and not self._has_listeners():
            self._statistics.skipped()
        elif self._worker and self._worker.put((time.monotonic(), message)):
            self._statistics.dropped()

    def _work(self, arrival: tuple[float, Image | CompressedImage]) -> None:
        """Answer a frame; whatever happens, the thread lives on."""
        arrived, message = arrival
        try:
            self.refuse_old(message.header, "compare the clocks (use_sim_time?), or raise it")
            frame = self._camera_frame(message)
            if frame is None:
                self._statistics.skipped()
                return
            published = self.answer(frame)
            if not self._inputs:  # deactivated meanwhile: the publishers kept silent
                self._statistics.skipped()
                return
            latency = time.monotonic() - arrived
            questions, unread = published.questions, published.unread
            self._statistics.answered(latency, self._age(frame.header), questions, len(unread))
        except Exception as error:
            if not self.context.ok():
                return
            if not self._inputs:  # deactivated meanwhile: nobody waits for it
                self._statistics.skipped()
                return
            self._statistics.failed(self._log_fault(error))
            return
        if unread and self._log_throttle.passes("unread answers"):
            self.get_logger().warning(
                f"{len(unread)} of {questions} answers cannot be read, such as {unread[0][:100]!r}"
            )

    def _frames_status(self) -> DiagnosticStatus:
        report = self._statistics.report()
        text = f"{report.rate:.2f} Hz"
        if self.parameters.lazy and not self._has_listeners():
            text = "idle: nobody subscribes to an output"
        return self._stream_status(
            "frames", self._frame_problems(report), text, report.values(), report.fault
        )

    def _frame_problems(self, report: FrameReport) -> Iterator[tuple[bytes, str]]:
        """Levels and texts of what is wrong with the stream of frames."""
        parameters = self.parameters
        warning, error = DiagnosticStatus.WARN, DiagnosticStatus.ERROR
        if report.is_failing and report.fault:
            yield error, report.fault
        yield from self._camera_problems(report.arrived)
        if parameters.process_every_frame and report.dropped:
            yield (
                warning,
                f"dropped {report.dropped} of {report.received} frames, for the queue is full: "
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
                f"answers come more than {TF_BUFFER:g} s after the frame's stamp, so that TF has "
                "forgotten it: ask less, or compare the clocks (use_sim_time?)",
            )
