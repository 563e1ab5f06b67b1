# SPDX-License-Identifier: Apache-2.0
"""Metric depth from a camera: the node."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from sensor_msgs.msg import CameraInfo, Image, LaserScan, PointCloud2
from typing_extensions import override

from vlm3_ros.engines.load import load_engine
from vlm3_ros.messages.cameras import camera_info_message
from vlm3_ros.messages.clouds import cloud_message
from vlm3_ros.messages.depth_images import depth_message
from vlm3_ros.messages.images import image_message
from vlm3_ros.nodes.depth_parameters import DepthParameters
from vlm3_ros.nodes.scale_input import ScaleInput
from vlm3_ros.nodes.scan_output import ScanError, ScanOutput
from vlm3_ros.ros.camera_input import CameraFrame
from vlm3_ros.ros.frame_worker import FrameWorker, Published
from vlm3_ros.ros.model_handle import EngineLoader
from vlm3_ros.ros.node import CameraModelNode
from vlm3_ros.ros.running import run_nodes
from vlm3_ros.tasks.debug_image import draw_answers
from vlm3_ros.tasks.depth import DEPTH
from vlm3_ros.tasks.frame_depth import FrameDepth, ask_frame_depth
from vlm3_ros.tasks.task import Model, learned_wording


class DepthNode(CameraModelNode):
    """Asks a model for the metric depth of a grid of pixels in every image that it has time for.

    Subscribers (sensor data QoS; the newest image wins):
        image (sensor_msgs/Image): the camera, any colour encoding
        image/compressed (sensor_msgs/CompressedImage): instead, with image_transport: compressed
        camera_info (sensor_msgs/CameraInfo): its calibration
        /tf, /tf_static (tf2_msgs/TFMessage): the camera's pose in scan_frame, which does not
            move; only while `scan` is subscribed, until it is known and for a moment every ten
            seconds, unless scan_from_camera is set

    Publishers (reliable; stamp and frame of the source image; metres in the optical frame):
        points (sensor_msgs/PointCloud2): the answers: x y z rgb, and uncertainty: one standard
            deviation of the depth, NaN if unknown
        depth/image_rect (sensor_msgs/Image, 32FC1 or as depth_encoding says): the grid as a small
            depth image (REP-118), NaN where unanswered (0 in 16UC1); with pixel_choice: adaptive,
            the values of depth_registered/image_rect at the centres of the grid's cells
        depth/camera_info (sensor_msgs/CameraInfo): its camera, so that depth_image_proc works
        depth_registered/image_rect (sensor_msgs/Image, 32FC1 or as depth_encoding says): depth for
            every pixel of the rectified image, spread from the answers along the edges of its
            colours, NaN where unsupported (0 in 16UC1); only while subscribed
        depth_registered/camera_info (sensor_msgs/CameraInfo): its camera
        scan (sensor_msgs/LaserScan): the nearest answers in a band of heights, by angle about the
            vertical, in scan_frame (REP-117: inf where all is far, NaN where nothing is known);
            only while subscribed
        debug_image (sensor_msgs/Image, rgb8): the rectified image with the asked pixels, coloured
            by depth; withheld and unanswered ones crossed out; a legend below; for people; only
            while subscribed
        /diagnostics (diagnostic_msgs/DiagnosticArray): model, frames, answers, ground and scan,
            once a second

    Answers that are filtered out (min_depth, max_depth, max_uncertainty) are missing on all topics.

    Parameters: `DepthParameters`, `FrameParameters` and `CameraModelParameters`, each with its
    description; also in `ros2 param describe /depth_node NAME`.
    """

    parameters: DepthParameters
    tasks = ("depth",)

    def __init__(self, engine_loader: EngineLoader = load_engine, **node_arguments: Any) -> None:
        super().__init__("depth_node", DepthParameters, engine_loader, **node_arguments)
        self.frames = FrameWorker(self, lambda: self.parameters, self._answer)
        self._scan_output = ScanOutput(self)
        self._scale = ScaleInput(self)
        self._answer_counts: dict[str, int] = {}

    @override
    def check_models(self, models: Mapping[str, Model]) -> None:
        learned_wording(models["depth"], DEPTH)

    @override
    def view_focal(self, task: str) -> float | None:
        return self.parameters.depth_settings().view_focal

    @override
    def create_outputs(self) -> None:
        self._points = self.create_output(PointCloud2, "points")
        self._depth = self.create_output(Image, "depth/image_rect")
        self._depth_info = self.create_output(CameraInfo, "depth/camera_info")
        self._dense = self.create_output(Image, "depth_registered/image_rect")
        self._dense_info = self.create_output(CameraInfo, "depth_registered/camera_info")
        self._scan = self.create_output(LaserScan, "scan")
        self._debug = self.create_output(Image, "debug_image")

    @override
    def create_inputs(self) -> None:
        self.frames.subscribe()

    @override
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.frames.statistics.reset()
        self._scan_output.forget()
        self._scale.forget()
        return super().on_activate(state)

    @override
    def statuses(self) -> list[DiagnosticStatus]:
        topic, scan, scale = self.camera.topic, self._scan_output, self._scale
        report = self.frames.statistics.report()
        # Nothing is published of a frame that failed, so the counts of earlier frames do not count.
        counts = self._answer_counts if report.answered and not report.is_failing else {}
        text = ", ".join(f"{n} {what}" for what, n in counts.items()) or "nothing is published"
        values = {what: str(n) for what, n in counts.items()}
        return [
            self.frames.status(),
            self.health.status("answers", topic, DiagnosticStatus.OK, text, values),
            self.health.status("ground", topic, scale.level, scale.text, scale.values),
            self.health.status("scan", topic, scan.level, scan.text, {}),
        ]

    def _answer(self, frame: CameraFrame) -> Published:
        """Ask about a frame and publish its depth, in the worker's thread."""
        parameters, header = self.parameters, frame.header
        engine = self.model.engines["depth"]
        scale = partial(self._scale.factor, parameters, header)
        depth = ask_frame_depth(engine, frame, parameters.depth_settings(), scale)
        self._answer_counts = depth.counts
        self.camera.check_age(header, "its answers came late: ask less, or raise it")

        # First what robots drive by: dense depth takes its time.
        self._points.publish(cloud_message(header, depth.points, depth.colours, depth.std))
        try:
            self._scan_output.publish(self._scan, parameters, header, depth)
        except ScanError as error:
            self.health.warn(str(error))
        self._publish_depth_images(frame, depth)
        if self._debug.get_subscription_count():
            self._debug.publish(image_message(header, draw_answers(depth)))
        return Published(len(depth.answers.texts), depth.unread)

    def _publish_depth_images(self, frame: CameraFrame, depth: FrameDepth) -> None:
        header, grid, encoding = frame.header, depth.grid, self.parameters.depth_encoding
        rows, columns = grid.shape
        self._depth.publish(depth_message(header, grid, encoding))
        self._depth_info.publish(camera_info_message(header, frame.camera.resized(columns, rows)))
        if self._dense.get_subscription_count():
            self._dense.publish(depth_message(header, depth.dense, encoding))
            self._dense_info.publish(camera_info_message(header, frame.camera))


def main(arguments: list[str] | None = None) -> int:
    """Run the node: `ros2 run vlm3_ros depth_node`."""
    return run_nodes(lambda end: [DepthNode()], arguments)


if __name__ == "__main__":
    sys.exit(main())
