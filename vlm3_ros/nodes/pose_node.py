# SPDX-License-Identifier: Apache-2.0
"""Visual odometry from a camera: the node."""

from __future__ import annotations

import sys
import threading
from collections import Counter, deque
from collections.abc import Mapping
from typing import Any, get_args

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Odometry, Path
from rclpy.clock import JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.publisher import Publisher
from rclpy.time import Time
from std_msgs.msg import Header
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage
from typing_extensions import override

from vlm3_ros.engines.load import load_engine
from vlm3_ros.engines.settings import EngineSettings, has_own_model
from vlm3_ros.geometry.motion import Transform, without_plane_coupling
from vlm3_ros.messages.classes import stamp_nanoseconds
from vlm3_ros.messages.motions import odometry_message, pose_message, tf_message
from vlm3_ros.nodes.pose_parameters import PoseParameters, given_mount
from vlm3_ros.ros.camera_input import CameraFrame
from vlm3_ros.ros.camera_mounts import CameraMount
from vlm3_ros.ros.frame_worker import FrameWorker, Published
from vlm3_ros.ros.model_handle import EngineLoader
from vlm3_ros.ros.node import CameraModelNode
from vlm3_ros.ros.running import run_nodes
from vlm3_ros.tasks.odometry import (
    OdometrySettings,
    OdometryStep,
    VisualOdometry,
    check_learned,
    why_no_matches,
)
from vlm3_ros.tasks.pose_prediction import PosePrediction
from vlm3_ros.tasks.task import Model
from vlm3_ros.tasks.verification import Check

TF_DEPTH = 100
"""Queue depth of /tf for slow listeners, as in tf2_ros."""

MOUNT_TOLERANCE = 0.005
"""Metres and radians by which the camera's pose on the robot may change: joints tremble."""


class PoseNode(CameraModelNode):
    """Asks how the camera has moved from image to image, and chains the answers to odometry.

    One model answers questions about the motion; the same or another one answers those about the
    matches that check it. If the model for the motion did not learn matches and match_model is
    empty, motions are published without this check.

    Subscribers (sensor data QoS, the newest image wins):
        image (sensor_msgs/Image): the camera, any colour encoding
        image/compressed (sensor_msgs/CompressedImage): instead, with image_transport: compressed
        camera_info (sensor_msgs/CameraInfo): its calibration
        /tf, /tf_static (tf2_msgs/TFMessage): the camera's pose on the robot, which must be fixed;
            until it is known, and for moments every 10 s, unless base_from_camera is set

    Publishers (reliable; stamp of the newer image; frame odom_frame; metres):
        pose (geometry_msgs/PoseStamped): of base_frame in odom_frame (REP-105)
        odom (nav_msgs/Odometry): the same with covariance, and the twist in base_frame; from the
            second image of a chain on
        path (nav_msgs/Path): the last path_length poses of the chain; only while subscribed
        /tf (tf2_msgs/TFMessage): odom_frame to base_frame, with publish_tf; for every image as it
            comes, predicted from the last pose for at most max_prediction
        /diagnostics (diagnostic_msgs/DiagnosticArray): model, frames and odometry, once a second

    Services:
        ~/reset (std_srvs/Trigger): restart at the identity with the next image

    The odometry starts at the identity. It restarts there, with a warning, after a reset, after a
    jump of time backwards (a bag that loops), after max_gap seconds without a pose, with another
    camera, and if the camera's pose on the robot changes on TF. A motion that fails its checks is
    not published; see `vlm3_ros.tasks.odometry`.

    Parameters: `PoseParameters`, `FrameParameters` and `CameraModelParameters`, each with its
    description; also in `ros2 param describe /pose_node NAME`.
    """

    parameters: PoseParameters
    tasks = ("pose", "correspondence", "depth")

    def __init__(self, engine_loader: EngineLoader = load_engine, **node_arguments: Any) -> None:
        super().__init__("pose_node", PoseParameters, engine_loader, **node_arguments)
        self.frames = FrameWorker(
            self, lambda: self.parameters, self._answer, self._predict_transform
        )
        self._odometry: VisualOdometry | None = None
        self._resetting = threading.Lock()
        self._camera_frame_id = ""
        self._no_matches = ""
        """Why no matches can be asked; empty if they can."""
        self._mount = CameraMount(self, "base_from_camera", "base_frame", "poses", MOUNT_TOLERANCE)
        self._tf: Publisher | None = None
        self._prediction = PosePrediction()
        self._missed = 0
        """Images without TF until the last diagnostics."""
        self._steps: Counter[str] = Counter()
        self._refused_by: Counter[str] = Counter()
        """Motions, by the check that refused them."""
        self._last_step: OdometryStep | None = None
        self._path: deque[PoseStamped] = deque()
        self.create_service(Trigger, "~/reset", self._serve_reset)
        self._jumps = self.get_clock().create_jump_callback(
            JumpThreshold(
                min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=False
            ),
            post_callback=self._time_jumped,
        )

    @override
    def models(self) -> dict[str, EngineSettings]:
        every = super().models()
        if not has_own_model(self.parameters, "depth"):
            every["depth"] = every["pose"]
        needed = {every[task] for task in self.parameters.odometry_settings().tasks}
        # A task that is not asked yet may be switched on later if its model is loaded anyway.
        return {task: settings for task, settings in every.items() if settings in needed}

    @override
    def check_models(self, models: Mapping[str, Model]) -> None:
        settings = self.parameters.odometry_settings()
        check_learned(models, settings.without_matches() if why_no_matches(models) else settings)

    @override
    def shortcoming(self) -> str:
        if not (self._no_matches and self.parameters.odometry_settings().asks_matches):
            return ""
        return f"motions are not checked by matches: {self._no_matches}"

    @override
    def create_outputs(self) -> None:
        parameters = self.parameters
        self._no_matches = why_no_matches(self.model.engines)
        if shortcoming := self.shortcoming():
            self.get_logger().warning(shortcoming)
        if given_mount(parameters) is None:
            self._mount.listen(parameters.base_frame)
        self._pose = self.create_output(PoseStamped, "pose")
        self._odom = self.create_output(Odometry, "odom")
        self._path_output = self.create_output(Path, "path")
        self._tf = None
        if parameters.publish_tf:
            self._tf = self.create_output(TFMessage, "/tf", TF_DEPTH)

    @override
    def create_inputs(self) -> None:
        self.frames.subscribe()

    @override
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.frames.statistics.reset()
        self._odometry = None
        self._prediction, self._missed = PosePrediction(), 0
        self._steps.clear()
        self._refused_by.clear()
        self._last_step = None
        return super().on_activate(state)

    @override
    def end_work(self) -> None:
        super().end_work()
        self._odometry = None  # it holds images
        self._mount.forget()

    @override
    def statuses(self) -> list[DiagnosticStatus]:
        step, level, text = self._last_step, DiagnosticStatus.OK, "no image yet"
        if step:
            text = f"{step.status}: {step.reason}"
            if step.status in ("refused", "skipped", "reset"):
                level = DiagnosticStatus.WARN
        names = ("first", "reset", "accepted", "fused", "standstill", "refused", "skipped")
        values = {f"images {name}": str(self._steps[name]) for name in names}
        values |= {f"motions refused by {by}": str(self._refused_by[by]) for by in get_args(Check)}
        if self._tf is not None and self.parameters.max_prediction:
            missed, self._missed = self._prediction.missed - self._missed, self._prediction.missed
            values["images without TF"] = str(self._missed)
            if missed:
                level = DiagnosticStatus.WARN
                text += (
                    f"; {missed} images came later than max_prediction "
                    f"({self.parameters.max_prediction:g} s) after the last pose and have no TF"
                )
        odometry = self.health.status("odometry", self._camera_frame_id, level, text, values)
        return [self.frames.status(), odometry]

    def _answer(self, frame: CameraFrame) -> Published:
        """Ask for the motion to a frame and publish its pose, in the worker's thread."""
        odometry = self._odometry_of(frame.header.frame_id)
        odometry.settings = self._odometry_settings()
        stamp = stamp_nanoseconds(frame.header)
        step = odometry.update(frame.image, frame.camera, stamp, frame.visible)
        with self._resetting:
            # A late image is skipped before a reset as well; other steps belong to the old chain.
            is_current = not odometry.awaits_reset or step.status == "skipped"
            if odometry is self._odometry and is_current:
                self._note(step)
                if step.has_pose:
                    self._learn_and_publish(frame.header, step)
        asked, unread = 0, list[str]()
        for pair in step.attempts:
            if pair.pose:
                asked += len(pair.pose.texts)
                unread += [failure.text for failure in pair.pose.failures]
            if pair.matches:
                asked += len(pair.matches.texts)
        return Published(asked, unread)

    def _learn_and_publish(self, image_header: Header, step: OdometryStep) -> None:
        if step.status in ("first", "reset"):
            self._path.clear()
            self._prediction.begin(step.stamp_ns, step.T_odom_base)
        else:
            self._prediction.correct(step.stamp_ns, step.T_odom_base, step.twist)
        self.camera.check_age(image_header, "its pose came late: ask less, or raise it")
        self._publish(image_header, step)

    def _odometry_settings(self) -> OdometrySettings:
        settings = self.parameters.odometry_settings()
        return settings.without_matches() if self._no_matches else settings

    def _odometry_of(self, camera_frame: str) -> VisualOdometry:
        """Return the chain of a camera; start one if needed."""
        parameters, odometry = self.parameters, self._odometry
        mount = self._mount.find(
            parameters.base_frame,
            camera_frame,
            parameters.base_from_camera,
            is_wanted=lambda: self.is_active,
            patience=parameters.tf_timeout,
        )
        if odometry is None:
            odometry = VisualOdometry(self.model.engines, mount, self._odometry_settings())
            self._odometry = odometry
        elif camera_frame != self._camera_frame_id:
            self._prediction.end()
            odometry.remount(
                mount,
                f"the images' frame is {camera_frame!r} now, no longer {self._camera_frame_id!r}",
            )
        elif not np.array_equal(mount, odometry.T_base_camera):
            self._prediction.end()
            odometry.remount(mount, "the camera's pose on the robot has changed")
        self._camera_frame_id = camera_frame
        return odometry

    def _note(self, step: OdometryStep) -> None:
        """Count a step, and log its problem."""
        self._steps[step.status] += 1
        self._refused_by.update(pair.refused_by for pair in step.attempts if pair.refused_by)
        self._last_step = step
        if step.status in ("refused", "skipped", "reset"):
            self.health.warn(f"{step.status}: {step.reason}")

    def _publish(self, image_header: Header, step: OdometryStep) -> None:
        """Publish a known pose on all topics, TF first: listeners of the others look it up."""
        parameters = self.parameters
        transforms = [(step.stamp_ns, step.T_odom_base)]
        if horizon := parameters.max_prediction:
            transforms = self._prediction.at_known(horizon)
        for stamp_ns, T_odom_base in transforms:
            self._publish_transform(stamp_ns, T_odom_base)
        header = Header(stamp=image_header.stamp, frame_id=parameters.odom_frame)
        pose = pose_message(header, step.T_odom_base)
        self._pose.publish(pose)
        if np.isfinite(step.twist).all():
            self._odom.publish(
                odometry_message(
                    header,
                    parameters.base_frame,
                    step.T_odom_base,
                    without_plane_coupling(step.covariance_odom_base),
                    step.twist,
                    without_plane_coupling(step.covariance_twist),
                )
            )
        self._path.append(pose)
        while len(self._path) > parameters.path_length:
            self._path.popleft()
        if self._path_output.get_subscription_count():
            self._path_output.publish(Path(header=header, poses=list(self._path)))

    def _predict_transform(self, header: Header) -> None:
        """Publish TF for an image that has come, if it can be predicted."""
        horizon = self.parameters.max_prediction
        if self._tf is None or not horizon or header.frame_id != self._camera_frame_id:
            return
        stamp_ns = stamp_nanoseconds(header)
        T_odom_base = self._prediction.at_image(stamp_ns, horizon)
        if T_odom_base is not None:
            self._publish_transform(stamp_ns, T_odom_base)

    def _publish_transform(self, stamp_ns: int, T_odom_base: Transform) -> None:
        if self._tf is None:
            return
        stamp = Time(nanoseconds=stamp_ns).to_msg()
        header = Header(stamp=stamp, frame_id=self.parameters.odom_frame)
        self._tf.publish(tf_message(header, self.parameters.base_frame, T_odom_base))

    def _serve_reset(
        self, request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        self._reset("a reset was requested")
        response.success = True
        response.message = "the next image is the origin"
        return response

    def _time_jumped(self, jump: TimeJump) -> None:
        # Their poses would lie in the future, and TF would then take nothing older.
        self.frames.skip_waiting()
        reason = f"the clock has jumped back by {-jump.delta.nanoseconds / 1e9:.3f} s"
        self._reset(reason, time_jumped=True)

    def _reset(self, reason: str, time_jumped: bool = False) -> None:
        with self._resetting:  # what is being published belongs to the old chain
            self._prediction.end(time_jumped)
            odometry = self._odometry
            if odometry:  # a local: another thread may set the attribute to None
                odometry.reset(reason, time_jumped)


def main(arguments: list[str] | None = None) -> int:
    """Run the node: `ros2 run vlm3_ros pose_node`."""
    return run_nodes(lambda end: [PoseNode()], arguments)


if __name__ == "__main__":
    sys.exit(main())
