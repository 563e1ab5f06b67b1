"""The lifecycle node under every node that asks a model about a camera's images."""

from __future__ import annotations

import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from numpy.typing import NDArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import (
    LifecycleNodeMixin,
    LifecyclePublisher,
    LifecycleState,
    TransitionCallbackReturn,
)
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSPolicyKind, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from vlm3_ros.engines.base import Engine, EngineError
from vlm3_ros.engines.load import load_engine
from vlm3_ros.engines.settings import EngineSettings, chosen_settings
from vlm3_ros.geometry.camera import GeometryError, PinholeCamera
from vlm3_ros.geometry.lens import LensCamera
from vlm3_ros.paths import Task
from vlm3_ros.ros.cameras import CalibrationHistory, UncalibratedError, stamp_nanoseconds
from vlm3_ros.ros.diagnostics import FrameReport, FrameStatistics, Throttle, diagnostic_status
from vlm3_ros.ros.fallback import FallbackIntrinsics
from vlm3_ros.ros.images import MessageError, rgb_from_message
from vlm3_ros.ros.node_parameters import CameraModelParameters
from vlm3_ros.ros.parameters import ParameterError, changed, declare_parameters
from vlm3_ros.ros.worker import FrameWorker

EngineLoader = Callable[[EngineSettings, Callable[[str], None]], Engine]
"""Makes an engine, and tells of its progress in words."""

DIAGNOSTICS_PERIOD = 1.0
"""Seconds between two messages on /diagnostics."""

LOG_PERIOD = 10.0
"""Seconds in which a message is logged once, however often its cause comes back."""

TF_BUFFER = 10.0
"""Seconds that a tf2 buffer keeps by default: who transforms an older cloud drops it."""

_QOS_OVERRIDES = (
    QoSPolicyKind.HISTORY,
    QoSPolicyKind.DEPTH,
    QoSPolicyKind.RELIABILITY,
    QoSPolicyKind.DURABILITY,
)


class FrameError(Exception):
    """A frame that cannot be answered; the text names the topic and what to do."""


_TELLING_ERRORS = (FrameError, EngineError, GeometryError)
"""Whose text says what to do."""


@dataclass(frozen=True)
class CameraFrame:
    """A rectified image with its camera.

    header: of the source image.
    image: shape (camera.height, camera.width, 3), uint8 RGB.
    visible: which of its pixels show something, shape (camera.height, camera.width); rectification
        leaves the others black.
    """

    header: Header
    image: NDArray[np.uint8]
    camera: PinholeCamera
    visible: NDArray[np.bool_]


@dataclass(frozen=True)
class Published:
    """What came of a frame: questions asked, and the texts that could not be read."""

    questions: int
    unread: Sequence[str]


class CameraModelNode(LifecycleNodeMixin, Node, ABC):
    """Wires a camera's topics to a model; derived nodes say what to ask and what to publish.

    The model loads in `on_configure`, which fails with one message where it cannot; the node then
    stays unconfigured. Publishers live from configure, subscriptions from activate. Frames are
    answered in a thread of their own, so that parameters, services and shutdown never wait for
    the model; while it is busy the newest frame waits and the others are dropped.

    Needs an executor with two threads (`vlm3_ros.ros.running`): one may be loading the model.
    """

    parameters: CameraModelParameters
    task: Task = "depth"
    """Which embedded model answers where none is chosen."""

    def __init__(
        self,
        name: str,
        table: type[CameraModelParameters],
        engine_loader: EngineLoader = load_engine,
        **node_arguments: Any,
    ) -> None:
        """Declare parameters, and start the life cycle.

        Args:
            name: of the node.
            table: its parameters.
            engine_loader: makes the engine, in `on_configure`.
            node_arguments: of rclpy.node.Node.

        Raises:
            ParameterError: when the node was started with values that it does not take.
        """
        # Before anything can fail: rclpy destroys what was made half.
        self.engine: Engine | None = None
        self._outputs: list[LifecyclePublisher] = []
        self._inputs: list[Subscription] = []
        self._worker: FrameWorker[tuple[float, Image | CompressedImage]] | None = None
        Node.__init__(self, name, **node_arguments)
        lifecycle_group = MutuallyExclusiveCallbackGroup()
        LifecycleNodeMixin.__init__(self, callback_group=lifecycle_group)
        self.parameters = declare_parameters(self, table)
        self.add_on_set_parameters_callback(self._set_parameters)
        self._engine_loader = engine_loader
        self._is_configured = False
        self._transition_fault: str | None = None
        self._base_topic = self.resolve_topic_name("image")
        self._camera_info_topic = self.resolve_topic_name("camera_info")
        self._calibrations = CalibrationHistory()
        self._fallback = FallbackIntrinsics()
        self._statistics = FrameStatistics()
        self._log_throttle = Throttle(LOG_PERIOD)
        self._activated = 0.0
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # Simulated time may stand still, health does not.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(
            DIAGNOSTICS_PERIOD,
            self._publish_diagnostics,
            MutuallyExclusiveCallbackGroup(),
            clock=steady,
        )
        if self.parameters.autostart:
            self._autostart = self.create_timer(0.0, self._start, lifecycle_group, clock=steady)

    @abstractmethod
    def create_outputs(self) -> None:
        """Create the publishers with `create_output`, while configuring; `self.engine` is there."""

    @abstractmethod
    def answer(self, frame: CameraFrame) -> Published:
        """Ask `self.engine` about a frame and publish, in the worker's thread."""

    def statuses(self) -> list[DiagnosticStatus]:
        """What the node tells on /diagnostics beside model and frames."""
        return []

    def diagnostic_name(self, part: str) -> str:
        """Of the status of a part of the node."""
        # Nodes of one name in several namespaces share /diagnostics.
        return f"{self.get_fully_qualified_name().removeprefix('/')}: {part}"

    def forget_waiting(self) -> None:
        """Leave out the frames that wait for the model."""
        worker = self._worker
        for _ in range(worker.clear() if worker else 0):
            self._statistics.skipped()

    def create_output(self, message_type: type, topic: str, depth: int = 5) -> LifecyclePublisher:
        """A publisher of answers: reliable, its QoS overridable."""
        publisher: LifecyclePublisher = self.create_lifecycle_publisher(
            message_type,
            topic,
            QoSProfile(depth=depth),
            qos_overriding_options=QoSOverridingOptions(_QOS_OVERRIDES),
        )
        self._outputs.append(publisher)
        return publisher

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model, create the publishers, start the worker."""
        parameters = self.parameters
        self._is_configured = True
        self._transition_fault = None
        try:
            self.engine = self._engine_loader(
                chosen_settings(vars(self.parameters), self.task), self._log_progress
            )
            self.create_outputs()
        except Exception as error:
            self._release()
            return self._fail(
                "the node stays unconfigured",
                error,
                f"; set its parameters, then `ros2 lifecycle set {self.get_fully_qualified_name()} "
                "configure`",
            )
        room = parameters.queue_size if parameters.process_every_frame else 1
        self._worker = FrameWorker(self._work, room, name=f"{self.get_name()} worker")
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe to the camera."""
        self._transition_fault = None
        self._calibrations.clear()
        self._fallback.clear()
        self._statistics.reset()
        self._activated = time.monotonic()
        result = super().on_activate(state)  # before the first frame, whose answers need it
        try:
            self._subscribe()
        except Exception as error:
            super().on_deactivate(state)
            return self._fail("the node stays inactive", error)
        self.get_logger().info(f"ready for images on {self._image_topic}")
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe. The frame that the model works on is not published any more."""
        self._unsubscribe()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let go of the model and the publishers."""
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let go of everything."""
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let go of everything; the node becomes unconfigured."""
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def destroy_node(self) -> None:
        """Let go of everything, whatever the state."""
        self._release()
        super().destroy_node()

    def _log_progress(self, message: str) -> None:
        self.get_logger().info(message)

    def _fail(self, outcome: str, error: Exception, remedy: str = "") -> TransitionCallbackReturn:
        self._transition_fault = _text(error)
        self.get_logger().error(f"{_report(error)} ({outcome}{remedy})")
        return TransitionCallbackReturn.FAILURE

    @property
    def _image_topic(self) -> str:
        # As image_transport names them: remapping `image` moves the compressed topic, too.
        suffix = "/compressed" if self.parameters.image_transport == "compressed" else ""
        return self._base_topic + suffix

    def _start(self) -> None:
        self._autostart.cancel()
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    def _subscribe(self) -> None:
        parameters = self.parameters
        compressed = parameters.image_transport == "compressed"
        image_qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        if parameters.process_every_frame:
            image_qos = QoSProfile(
                depth=parameters.queue_size, reliability=ReliabilityPolicy.RELIABLE
            )
        self._inputs = [
            self.create_subscription(
                message_type,
                topic,
                callback,
                qos,
                qos_overriding_options=QoSOverridingOptions(_QOS_OVERRIDES),
            )
            for message_type, topic, callback, qos in (
                (
                    CameraInfo,
                    self._camera_info_topic,
                    self._calibrations.add,
                    QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT),
                ),
                (
                    CompressedImage if compressed else Image,
                    self._image_topic,
                    self._receive,
                    image_qos,
                ),
            )
        ]

    def _unsubscribe(self) -> None:
        for subscription in self._inputs:
            self.destroy_subscription(subscription)
        self._inputs = []
        if self._worker:
            self._worker.clear()

    def _release(self) -> None:
        self._unsubscribe()
        if self._worker:
            self._worker.stop()
            self._worker = None
        for publisher in self._outputs:
            self.destroy_lifecycle_publisher(publisher)
        self._outputs = []
        if self.engine:
            self.engine.close()
            self.engine = None
        self._is_configured = False

    def _set_parameters(self, parameters: Iterable[Parameter]) -> SetParametersResult:
        try:
            self.parameters = changed(
                self.parameters, parameters, is_configured=self._is_configured
            )
        except ParameterError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _has_listeners(self) -> bool:
        return any(publisher.get_subscription_count() for publisher in self._outputs)

    def _receive(self, message: Image | CompressedImage) -> None:
        self._statistics.received()
        if self.parameters.lazy and not self._has_listeners():
            self._statistics.skipped()
        elif self._worker and self._worker.put((time.monotonic(), message)):
            self._statistics.dropped()

    def _work(self, arrival: tuple[float, Image | CompressedImage]) -> None:
        """Answer a frame; whatever happens, the thread lives on."""
        arrived, message = arrival
        try:
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
            text = _text(error)
            self._statistics.failed(text)
            if self._log_throttle.passes(text):
                self.get_logger().error(_report(error))
            return
        if unread and self._log_throttle.passes("unread answers"):
            self.get_logger().warning(
                f"{len(unread)} of {questions} answers cannot be read, such as {unread[0][:100]!r}"
            )

    def _camera_frame(self, message: Image | CompressedImage) -> CameraFrame | None:
        """The frame in a message; None while its camera is not known yet."""
        header, parameters = message.header, self.parameters
        if not header.frame_id:
            raise FrameError(
                f"{self._image_topic}: header.frame_id is empty: set the frame of the camera "
                "in its driver"
            )
        if 0 < parameters.max_frame_age < self._age(header):
            raise FrameError(
                f"{self._image_topic}: the frame is older than max_frame_age "
                f"({parameters.max_frame_age:g} s): compare the clocks (use_sim_time?), or raise it"
            )
        try:
            image = rgb_from_message(message)
        except MessageError as error:
            raise FrameError(f"{self._image_topic}: {error}") from None
        lens = self._lens(header, image, parameters)
        if lens is None:
            return None
        if parameters.image_is_rectified or lens.is_pinhole:
            everything = np.broadcast_to(np.True_, image.shape[:2])
            return CameraFrame(header, image, lens.rectified, everything)
        return CameraFrame(header, lens.rectify(image), lens.rectified, lens.rectified_mask())

    def _lens(
        self, header: Header, image: NDArray[np.uint8], parameters: CameraModelParameters
    ) -> LensCamera | None:
        try:
            found = self._calibrations.find(header, (image.shape[1], image.shape[0]))
        except UncalibratedError as error:
            if parameters.fallback_intrinsics == "none":
                raise FrameError(f"{self._camera_info_topic}: {error}") from None
            return self._fallback.lens(parameters, image, header.frame_id)
        except GeometryError as error:
            raise FrameError(f"{self._camera_info_topic}: {error}") from None
        if found:
            self._fallback.words = ""
            info, lens = found
            if info.header.frame_id != header.frame_id:
                self.get_logger().warning(
                    f"{self._camera_info_topic} has the frame {info.header.frame_id!r}, "
                    f"{self._image_topic} has {header.frame_id!r}, which is used",
                    once=True,
                )
            return lens
        waited = time.monotonic() - self._activated
        if parameters.fallback_intrinsics == "none" or waited < parameters.camera_info_timeout:
            return None
        return self._fallback.lens(parameters, image, header.frame_id)

    def _age(self, header: Header) -> float:
        return (self.get_clock().now().nanoseconds - stamp_nanoseconds(header)) / 1e9

    def _publish_diagnostics(self) -> None:
        message = DiagnosticArray()
        message.header.stamp = self.get_clock().now().to_msg()
        try:
            message.status = [self._model_status(), self._frames_status(), *self.statuses()]
        except Exception as error:  # of an engine that is asked for its memory, say
            if self._log_throttle.passes(_text(error)):
                self.get_logger().error(_report(error))
            return
        self._diagnostics.publish(message)

    def _model_status(self) -> DiagnosticStatus:
        engine = self.engine
        level, text, values = DiagnosticStatus.OK, "not loaded: the node is unconfigured", {}
        if engine:
            text = f"{engine.name} is loaded"
            values["model"] = engine.name
            if engine.warning:
                level, text = DiagnosticStatus.WARN, engine.warning
            memory = engine.memory_bytes()
            if memory is not None:
                values["device memory (MB)"] = f"{memory / 1e6:.0f}"
        elif self._is_configured:
            level, text = DiagnosticStatus.WARN, "loading"
        elif self._transition_fault:
            level, text = DiagnosticStatus.ERROR, self._transition_fault
        return diagnostic_status(
            self.diagnostic_name("model"), self.parameters.device, level, text, values
        )

    def _frames_status(self) -> DiagnosticStatus:
        report = self._statistics.report()
        problems = list(self._frame_problems(report)) if self._inputs else []
        for _, problem in problems:
            if problem != report.fault and self._log_throttle.passes(problem):
                self.get_logger().warning(problem)
        if problems:
            level = max(level for level, _ in problems)
            text = "; ".join(problem for _, problem in problems)
        else:
            level, text = DiagnosticStatus.OK, f"{report.rate:.2f} Hz"
            if not self._inputs:
                text = "not active"
                if self.engine and self._transition_fault:
                    level, text = DiagnosticStatus.ERROR, self._transition_fault
            elif self.parameters.lazy and not self._has_listeners():
                text = "idle: nobody subscribes to an output"
        values = {**report.values(), "intrinsics": self._fallback.words or "camera_info"}
        return diagnostic_status(
            self.diagnostic_name("frames"), self._image_topic, level, text, values
        )

    def _frame_problems(self, report: FrameReport) -> Iterator[tuple[bytes, str]]:
        """Levels and texts of what is wrong with the stream of frames."""
        parameters, now = self.parameters, time.monotonic()
        warning, error = DiagnosticStatus.WARN, DiagnosticStatus.ERROR
        if report.is_failing and report.fault:
            yield error, report.fault
        if now - (report.arrived or self._activated) > parameters.image_timeout:
            publishers = self.count_publishers(self._image_topic)
            reason = "nobody publishes it"
            if publishers:
                reason = f"{publishers} publish it; compare their QoS with `ros2 topic info -v`"
            yield (
                warning,
                f"no image on {self._image_topic} for {parameters.image_timeout:g} s: {reason}",
            )
        elif self._calibrations.is_empty and now - self._activated > parameters.camera_info_timeout:
            remedy = "check the topic, or set fallback_intrinsics"
            if parameters.fallback_intrinsics != "none":
                # No words yet: nobody listens, so that no image needed them.
                remedy = self._fallback.words or "fallback_intrinsics will be used"
            yield warning, f"images, but no CameraInfo on {self._camera_info_topic}: {remedy}"
        elif self._fallback.words and parameters.fallback_intrinsics != "none":
            yield (
                warning,
                f"{self._camera_info_topic}: the camera is uncalibrated: {self._fallback.words}",
            )
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


def _text(error: Exception) -> str:
    """What is wrong, in one line."""
    if isinstance(error, _TELLING_ERRORS):
        return str(error)
    return f"{type(error).__name__}: {error}"


def _report(error: Exception) -> str:
    """What is wrong, for the log; with the way there if the error does not explain itself."""
    if isinstance(error, _TELLING_ERRORS):
        return str(error)
    return "".join(traceback.format_exception(error)).rstrip()
