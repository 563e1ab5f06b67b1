# SPDX-License-Identifier: Apache-2.0
"""The lifecycle node under every node that asks a model about a camera's images."""

from __future__ import annotations

import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
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
from vlm3_ros.errors import MessageError, Vlm3Error
from vlm3_ros.geometry.camera import GeometryError, PinholeCamera
from vlm3_ros.geometry.lens import LensCamera
from vlm3_ros.messages.cameras import CalibrationHistory, UncalibratedError
from vlm3_ros.messages.classes import stamp_nanoseconds
from vlm3_ros.messages.images import rgb_from_message
from vlm3_ros.parameters import ParameterError
from vlm3_ros.paths import Task
from vlm3_ros.ros.diagnostics import Throttle, diagnostic_status
from vlm3_ros.ros.executor import SlowCallbackGroup
from vlm3_ros.ros.fallback import FallbackIntrinsics
from vlm3_ros.ros.node_parameters import CameraModelParameters
from vlm3_ros.ros.parameters import changed, declare_parameters
from vlm3_ros.ros.worker import FrameWorker

EngineLoader = Callable[[EngineSettings, Callable[[str], None]], Engine]
"""Makes an engine, and tells of its progress in words."""

DIAGNOSTICS_PERIOD = 1.0
"""Seconds between two messages on /diagnostics."""

LOG_PERIOD = 10.0
"""Seconds in which a message is logged once, however often its cause comes back."""

_QOS_OVERRIDES = (
    QoSPolicyKind.HISTORY,
    QoSPolicyKind.DEPTH,
    QoSPolicyKind.RELIABILITY,
    QoSPolicyKind.DURABILITY,
)


class FrameError(Vlm3Error):
    """A frame that cannot be answered; the text names the topic and what to do."""


_TELLING_ERRORS = (FrameError, EngineError, GeometryError, ParameterError)
"""Whose text says what to do."""


@dataclass(frozen=True)
class CameraFrame:
    """A rectified image with its camera.

    header: of the source image.
    image: shape (camera.height, camera.width, 3), uint8 RGB.
    visible: which of its pixels show something, shape (camera.height, camera.width); rectification
        leaves the others black.
    lens: of the image as it came; None where that is the rectified one.
    """

    header: Header
    image: NDArray[np.uint8]
    camera: PinholeCamera
    visible: NDArray[np.bool_]
    lens: LensCamera | None = None


class CameraModelNode(LifecycleNodeMixin, Node, ABC):
    """Wires a camera's topics to a model; derived nodes say when to ask, what, and what to publish.

    The model loads in `on_configure`, which fails with one message where it cannot; the node then
    stays unconfigured. Publishers and workers live from configure, subscriptions from activate.
    The model is asked in threads of their own, so that parameters, services and shutdown never
    wait for it.

    Spin it by `vlm3_ros.ros.running`, or another executor with two threads: one may load the model.
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
        self._workers: list[FrameWorker[Any]] = []
        self._fallback = FallbackIntrinsics()
        Node.__init__(self, name, **node_arguments)
        lifecycle_group = SlowCallbackGroup()  # it loads models
        LifecycleNodeMixin.__init__(self, callback_group=lifecycle_group)
        self.parameters = declare_parameters(self, table)
        self.add_on_set_parameters_callback(self._set_parameters)
        self._engine_loader = engine_loader
        self._is_configured = False
        self._transition_fault: str | None = None
        self._base_topic = self.resolve_topic_name("image")
        self._camera_info_topic = self.resolve_topic_name("camera_info")
        self._calibrations = CalibrationHistory()
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
    def create_workers(self) -> list[FrameWorker[Any]]:
        """The threads in which the node asks `self.engine`, while configuring."""

    @abstractmethod
    def receive(self, message: Image | CompressedImage) -> None:
        """Take an image that came in; a callback, which must not wait for the model."""

    @abstractmethod
    def statuses(self) -> list[DiagnosticStatus]:
        """What the node tells on /diagnostics beside the model."""

    def create_inputs(self) -> None:
        """Subscribe with `create_input`, while activating: to the camera, here."""
        is_compressed = self.parameters.image_transport == "compressed"
        calibration_qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
        self.create_input(
            CameraInfo, self._camera_info_topic, self._calibrations.add, calibration_qos
        )
        self.create_input(
            CompressedImage if is_compressed else Image,
            self._image_topic,
            self.receive,
            self.image_qos(),
        )

    def image_qos(self) -> QoSProfile:
        """Of the subscription to the camera."""
        return QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)

    def diagnostic_name(self, part: str) -> str:
        """Of the status of a part of the node."""
        # Nodes of one name in several namespaces share /diagnostics.
        return f"{self.get_fully_qualified_name().removeprefix('/')}: {part}"

    def create_input(
        self, message_type: type, topic: str, callback: Callable[[Any], None], qos: QoSProfile
    ) -> None:
        """A subscription that lives while the node is active, its QoS overridable."""
        overridable = QoSOverridingOptions(_QOS_OVERRIDES)
        self._inputs.append(
            self.create_subscription(
                message_type, topic, callback, qos, qos_overriding_options=overridable
            )
        )

    def refuse_old(self, header: Header, remedy: str) -> None:
        """Go on with a frame only while it is of this time.

        Args:
            header: of the image.
            remedy: what the user can do where it is too old.

        Raises:
            FrameError: when its stamp is more than max_frame_age from now, in the past or, after a
                jump of the clock, in the future.
        """
        limit, age = self.parameters.max_frame_age, self._age(header)
        if not limit or abs(age) <= limit:
            return
        if age < 0:
            raise FrameError(
                f"{self._image_topic}: the frame's stamp lies {-age:.1f} s in the future, more "
                f"than max_frame_age ({limit:g} s): has the clock jumped back (use_sim_time?)"
            )
        raise FrameError(
            f"{self._image_topic}: the frame is {age:.1f} s old, older than max_frame_age "
            f"({limit:g} s): {remedy}"
        )

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
        """Load the model, create the publishers, start the workers."""
        self._is_configured = True
        self._transition_fault = None
        try:
            self.engine = self._engine_loader(
                chosen_settings(vars(self.parameters), self.task), self._log_progress
            )
            self.create_outputs()
            self._workers = self.create_workers()
        except Exception as error:
            self._release()
            return self._fail(
                "the node stays unconfigured",
                error,
                f"; set its parameters, then `ros2 lifecycle set {self.get_fully_qualified_name()} "
                "configure`",
            )
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe to the camera."""
        self._transition_fault = None
        self._calibrations.clear()
        self._fallback.clear()
        self._activated = time.monotonic()
        result = super().on_activate(state)  # before the first frame, whose answers need it
        try:
            self.create_inputs()
        except Exception as error:
            self._unsubscribe()
            super().on_deactivate(state)
            return self._fail("the node stays inactive", error)
        self.get_logger().info(f"ready for images on {self._image_topic}")
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe. What the model works on is not published any more."""
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

    def _unsubscribe(self) -> None:
        for subscription in self._inputs:
            self.destroy_subscription(subscription)
        self._inputs = []
        for worker in self._workers:
            worker.clear()

    def _release(self) -> None:
        self._unsubscribe()
        for worker in self._workers:
            worker.stop()
        self._workers = []
        for publisher in self._outputs:
            self.destroy_lifecycle_publisher(publisher)
        self._outputs = []
        if self.engine:
            self.engine.close()
            self.engine = None
        self._fallback.clear()
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

    def _log_fault(self, error: Exception) -> str:
        """Log what is wrong, the same once in a while; returns it in one line."""
        text = _text(error)
        if self._log_throttle.passes(text):
            self.get_logger().error(_report(error))
        return text

    def _camera_frame(self, message: Image | CompressedImage) -> CameraFrame | None:
        """The frame in a message; None while its camera is not known yet.

        Raises:
            FrameError: when it cannot be used.
        """
        header, parameters = message.header, self.parameters
        if not header.frame_id:
            raise FrameError(
                f"{self._image_topic}: header.frame_id is empty: set the frame of the camera "
                "in its driver"
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
        return CameraFrame(header, lens.rectify(image), lens.rectified, lens.rectified_mask(), lens)

    def _lens(
        self, header: Header, image: NDArray[np.uint8], parameters: CameraModelParameters
    ) -> LensCamera | None:
        if parameters.fallback_intrinsics == "none":  # it may have been another
            self._fallback.words = ""
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
            message.status = [self._model_status(), *self.statuses()]
        except Exception as error:  # of an engine that is asked for its memory, say
            self._log_fault(error)
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

    def _stream_status(
        self,
        part: str,
        problems: Iterable[tuple[bytes, str]],
        text: str,
        values: Mapping[str, str],
        logged: str | None = None,
    ) -> DiagnosticStatus:
        """How it goes with the images, or with what comes along with them; logs what is wrong.

        Args:
            part: of the node.
            problems: levels and texts.
            text: where there is none.
            values: key-value pairs.
            logged: the problem that is in the log already.
        """
        level = DiagnosticStatus.OK
        if not self._inputs:
            text = "not active"
            if self.engine and self._transition_fault:
                level, text = DiagnosticStatus.ERROR, self._transition_fault
        elif found := list(problems):
            level = max(level for level, _ in found)
            text = "; ".join(problem for _, problem in found)
            for _, problem in found:
                if problem != logged and self._log_throttle.passes(problem):
                    self.get_logger().warning(problem)
        values = {**values, "intrinsics": self._fallback.words or "camera_info"}
        return diagnostic_status(self.diagnostic_name(part), self._image_topic, level, text, values)

    def _camera_problems(self, arrived: float | None) -> Iterator[tuple[bytes, str]]:
        """Levels and texts of what is wrong with what the camera sends.

        Args:
            arrived: when the newest image came in, on `time.monotonic`.
        """
        parameters, now = self.parameters, time.monotonic()
        warning = DiagnosticStatus.WARN
        if now - (arrived or self._activated) > parameters.image_timeout:
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
