# SPDX-License-Identifier: Apache-2.0
"""The life cycle of the nodes that ask a model about a camera's images."""

from __future__ import annotations

import copy
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

from diagnostic_msgs.msg import DiagnosticStatus
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import (
    LifecycleNodeMixin,
    LifecyclePublisher,
    LifecycleState,
    TransitionCallbackReturn,
)
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSPolicyKind, QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import CompressedImage, Image
from typing_extensions import override

from vlm3_ros.engines.known import known_model
from vlm3_ros.engines.load import load_engine
from vlm3_ros.engines.memory import report_memory
from vlm3_ros.engines.settings import EngineSettings, task_settings
from vlm3_ros.paths import Task
from vlm3_ros.ros.camera_input import CameraFrame, CameraInput
from vlm3_ros.ros.executor import SlowCallbackGroup
from vlm3_ros.ros.health import Health, error_report, error_text
from vlm3_ros.ros.image_sizes import ImageSizes
from vlm3_ros.ros.model_handle import EngineLoader, ModelHandle
from vlm3_ros.ros.node_parameters import CameraModelParameters
from vlm3_ros.ros.parameter_changes import apply_change, judge_change
from vlm3_ros.ros.parameters import declare_parameters
from vlm3_ros.ros.worker import Item, QueueWorker
from vlm3_ros.tasks.task import Model

_QOS_OVERRIDES = (
    QoSPolicyKind.HISTORY,
    QoSPolicyKind.DEPTH,
    QoSPolicyKind.RELIABILITY,
    QoSPolicyKind.DURABILITY,
)

_memory_lock = threading.Lock()


class CameraModelNode(LifecycleNodeMixin, Node, ABC):
    """Owns a camera input, models and the health; a derived node wires them to its work.

    The models load in `on_configure`; if that fails, one message says why, and the node stays
    unconfigured. Publishers and workers live from configure, subscriptions from activate. Models
    are asked in threads of their own, so parameters, services and shutdown never wait for them.

    Spin it by `vlm3_ros.ros.running`, or another executor with two threads: one may load the model.

    Attributes:
        parameters: the present values.
        tasks: that the node asks.
        siblings: nodes of this process that share models with this one, itself included.
        camera: the input.
        model: the engines while configured.
        health: diagnostics and log.
    """

    parameters: CameraModelParameters
    tasks: ClassVar[tuple[Task, ...]]
    _is_made = False

    def __init__(
        self,
        name: str,
        table: type[CameraModelParameters],
        engine_loader: EngineLoader = load_engine,
        **node_arguments: Any,
    ) -> None:
        """Declare the parameters, and start the life cycle.

        Args:
            name: of the node.
            table: of its parameters.
            engine_loader: loads engines, in `on_configure`.
            node_arguments: of rclpy.node.Node.

        Raises:
            ParameterError: if the node was started with a value that it does not take.
        """
        self.model = ModelHandle(engine_loader, self._log_progress)
        self.siblings: Sequence[CameraModelNode] = (self,)
        self._is_memory_reported = False
        self._outputs: list[LifecyclePublisher] = []
        self._inputs: list[Subscription] = []
        self._workers: list[QueueWorker[Any]] = []
        self._is_configured = False
        self._fault: str | None = None
        """Why the last transition failed."""
        Node.__init__(self, name, **node_arguments)
        lifecycle_group = SlowCallbackGroup()  # it loads models
        LifecycleNodeMixin.__init__(self, callback_group=lifecycle_group)
        self.parameters = declare_parameters(self, table)
        self.add_on_set_parameters_callback(self._judge_parameters)
        self.add_post_set_parameters_callback(self._apply_parameters)
        self.camera = CameraInput(self, lambda: self.parameters)
        self._image_sizes = ImageSizes(lambda text: self.get_logger().warning(text))
        self.health = Health(self, lambda: [self._model_status(), *self.statuses()])
        if self.parameters.autostart:
            steady = Clock(clock_type=ClockType.STEADY_TIME)  # simulated time may stand still
            self._autostart = self.create_timer(0.0, self._start, lifecycle_group, clock=steady)
        self._is_made = True

    @abstractmethod
    def check_models(self, models: Mapping[str, Model]) -> None:
        """Check that models learned what the node asks; called before and after they load.

        Args:
            models: by the name of their task.

        Raises:
            EngineError: if one did not.
        """

    @abstractmethod
    def create_outputs(self) -> None:
        """Create the publishers with `create_output`. Called in configuring."""

    @abstractmethod
    def create_inputs(self) -> None:
        """Subscribe with `camera.subscribe` and `create_input`. Called in activating."""

    @abstractmethod
    def statuses(self) -> list[DiagnosticStatus]:
        """What the node reports on /diagnostics besides the models."""

    def models(self) -> dict[str, EngineSettings]:
        """Return the settings of the engines that the node needs now, by task."""
        return {task: task_settings(self.parameters, task) for task in self.tasks}

    def view_focal(self, task: str) -> float | None:
        """Return the unified focal length that the user set for a task, px; None for its own."""
        return None

    def shortcoming(self) -> str:
        """Return what the node does not do because of its models; empty if nothing."""
        return ""

    def end_work(self) -> None:
        """Unsubscribe, and discard what waits for the models.

        Called in deactivating while the publishers are still active, and before a release.
        """
        for subscription in self._inputs:
            self.destroy_subscription(subscription)
        self._inputs = []
        for worker in self._workers:
            worker.clear()

    def release(self) -> None:
        """Release everything that was created in configuring, in any state."""
        self.end_work()
        for worker in self._workers:
            worker.stop()
        outputs, self._outputs = self._outputs, []
        for publisher in outputs:
            self.destroy_lifecycle_publisher(publisher)
        self.model.release()
        self.camera.fallback.clear()
        self._is_configured = False
        self._is_memory_reported = False

    @property
    def is_active(self) -> bool:
        """Whether the node subscribes. False as soon as a deactivation begins."""
        return bool(self._inputs)

    def frame(self, message: Image | CompressedImage) -> CameraFrame | None:
        """Rectify an image, and note at which sizes it enters the models.

        Returns:
            None while its camera is not known yet.

        Raises:
            FrameError: if the image or its calibration cannot be used.
            GeometryError: if a model cannot take images of this camera.
        """
        frame = self.camera.frame(message)
        if frame:
            self._image_sizes.note(self.model.engines, frame.camera, self.view_focal)
        return frame

    def has_listeners(self) -> bool:
        """Whether anybody subscribes to an output."""
        return any(publisher.get_subscription_count() for publisher in self._outputs)

    def create_input(
        self, message_type: type, topic: str, callback: Callable[[Any], None], qos: QoSProfile
    ) -> None:
        """Create a subscription that lives while the node is active; its QoS can be overridden."""
        own_qos = copy.copy(qos)  # rclpy writes the overrides into the profile
        overridable = QoSOverridingOptions(_QOS_OVERRIDES)
        self._inputs.append(
            self.create_subscription(
                message_type, topic, callback, own_qos, qos_overriding_options=overridable
            )
        )

    def create_output(self, message_type: type, topic: str, depth: int = 5) -> LifecyclePublisher:
        """Create a reliable publisher that lives until cleanup; its QoS can be overridden."""
        publisher: LifecyclePublisher = self.create_lifecycle_publisher(
            message_type,
            topic,
            QoSProfile(depth=depth),
            qos_overriding_options=QoSOverridingOptions(_QOS_OVERRIDES),
        )
        self._outputs.append(publisher)
        return publisher

    def add_worker(
        self, work: Callable[[Item], None], room: Callable[[], int], name: str = "worker"
    ) -> QueueWorker[Item]:
        """Create a thread that runs while the node is configured; see `QueueWorker`."""
        worker = QueueWorker(work, room, f"{self.get_name()} {name}")
        self._workers.append(worker)
        return worker

    def stream_status(
        self,
        part: str,
        problems: Iterable[tuple[bytes, str]],
        text: str,
        values: Mapping[str, str],
        logged: str | None = None,
    ) -> DiagnosticStatus:
        """Build the status of the images, or of what comes with them; log its problems.

        Args:
            part: of the node.
            problems: levels and texts.
            text: if there are no problems.
            values: key-value pairs.
            logged: the problem that is in the log already.
        """
        level = DiagnosticStatus.OK
        if not self.is_active:
            text = "not active"
            if self.model.engines and self._fault:
                level, text = DiagnosticStatus.ERROR, self._fault
        elif present := list(problems):
            level = max(level for level, _ in present)
            text = "; ".join(problem for _, problem in present)
            for _, problem in present:
                if problem != logged:
                    self.health.warn(problem)
        values = {**values, **self._image_sizes.values, "intrinsics": self.camera.intrinsics}
        return self.health.status(part, self.camera.topic, level, text, values)

    @override
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._is_configured = True
        self._fault = None
        try:
            settings = self.models()
            self._check_known(settings)
            self._report_memory()
            self.model.load(settings)
            self.check_models(self.model.engines)
            self.create_outputs()
            for worker in self._workers:
                worker.start()
        except Exception as error:
            self.release()
            return self._fail(
                "the node stays unconfigured",
                error,
                f"; set its parameters, then `ros2 lifecycle set {self.get_fully_qualified_name()} "
                "configure`",
            )
        return super().on_configure(state)

    @override
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._fault = None
        self.camera.restart()
        self._image_sizes.clear()
        result = super().on_activate(state)  # before the first frame, whose answers need it
        try:
            self.create_inputs()
        except Exception as error:
            self.end_work()
            super().on_deactivate(state)
            return self._fail("the node stays inactive", error)
        self.get_logger().info(f"ready for images on {self.camera.topic}")
        return result

    @override
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        # The frame that the model works on is not published any more.
        self.end_work()
        return super().on_deactivate(state)

    @override
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.release()
        return TransitionCallbackReturn.SUCCESS

    @override
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.release()
        return TransitionCallbackReturn.SUCCESS

    @override
    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.release()
        return TransitionCallbackReturn.SUCCESS  # the node becomes unconfigured

    @override
    def destroy_node(self) -> None:
        if self._is_made:  # rclpy also destroys a node whose parameters were refused
            self.release()
        super().destroy_node()

    def _start(self) -> None:
        self._autostart.cancel()
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    def _check_known(self, settings: Mapping[str, EngineSettings]) -> None:
        """Check models before they are downloaded or loaded, if all their profiles are known."""
        known = {chosen: known_model(chosen) for chosen in settings.values()}
        models = {task: model for task, chosen in settings.items() if (model := known[chosen])}
        if len(models) == len(settings):
            self.check_models(models)

    def _report_memory(self) -> None:
        """Log what the models of all siblings take together, once before the first one loads."""
        with _memory_lock:  # siblings configure at the same time
            if any(node._is_memory_reported for node in self.siblings):
                return
            for node in self.siblings:
                node._is_memory_reported = True
            logger = self.get_logger()
            needed = [chosen for node in self.siblings for chosen in node.models().values()]
            for report in report_memory(needed):
                (logger.info if report.fits else logger.warning)(report.text)

    def _log_progress(self, text: str) -> None:
        self.get_logger().info(text)

    def _fail(self, outcome: str, error: Exception, remedy: str = "") -> TransitionCallbackReturn:
        self._fault = error_text(error)
        self.get_logger().error(f"{error_report(error)} ({outcome}{remedy})")
        return TransitionCallbackReturn.FAILURE

    def _judge_parameters(self, parameters: Iterable[Parameter]) -> SetParametersResult:
        return judge_change(self.parameters, parameters, is_configured=self._is_configured)

    def _apply_parameters(self, parameters: Iterable[Parameter]) -> None:
        self.parameters = apply_change(self.parameters, parameters)

    def _model_status(self) -> DiagnosticStatus:
        level, text, values = self.model.status(
            self._is_configured, self._fault, self.shortcoming()
        )
        return self.health.status("model", self.parameters.device, level, text, values)
