# SPDX-License-Identifier: Apache-2.0
"""Metric depth from a camera: the node."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, Image, LaserScan, PointCloud2

from vlm3_ros.engines.load import load_engine
from vlm3_ros.messages.cameras import camera_info_message
from vlm3_ros.messages.clouds import cloud_message
from vlm3_ros.messages.depth_images import depth_message
from vlm3_ros.nodes.depth_parameters import PIXEL_CHOICES, DepthParameters
from vlm3_ros.nodes.scan_output import ScanError, ScanOutput
from vlm3_ros.ros.diagnostics import diagnostic_status
from vlm3_ros.ros.frame_node import FrameNode, Published
from vlm3_ros.ros.node import CameraFrame, EngineLoader, FrameError
from vlm3_ros.ros.running import run_nodes
from vlm3_ros.tasks.dense import densify
from vlm3_ros.tasks.depth import DepthAnswers, DepthLimits, ask_depth, uniform_grid


class DepthNode(FrameNode):
    """Asks a model for the metric depth of a grid of pixels in every image that it has time for.

    Subscribers (sensor data QoS; the newest image wins):
        image (sensor_msgs/Image): the camera, any colour encoding
        image/compressed (sensor_msgs/CompressedImage): instead, with image_transport: compressed
        camera_info (sensor_msgs/CameraInfo): its calibration
        /tf, /tf_static (tf2_msgs/TFMessage): the camera's place in scan_frame, which does not move;
            only while `scan` is subscribed, until it is known, unless scan_from_camera tells it

    Publishers (reliable; stamp and frame of the source image; metres in the optical frame):
        points (sensor_msgs/PointCloud2): the answers: x y z rgb, and uncertainty: one standard
            deviation of the depth, NaN where unknown
        depth/image_rect (sensor_msgs/Image, 32FC1): the grid as a small depth image (REP-118),
            NaN where unanswered; with pixel_choice: adaptive, what depth_registered/image_rect
            has in the middles of the grid's cells
        depth/camera_info (sensor_msgs/CameraInfo): its camera, so that depth_image_proc works
        depth_registered/image_rect (sensor_msgs/Image, 32FC1): depth for every pixel of the
            rectified image, spread from the answers along the edges of its colours, NaN where
            unsupported; only while subscribed
        depth_registered/camera_info (sensor_msgs/CameraInfo): its camera
        scan (sensor_msgs/LaserScan): the nearest answers in a band of heights, by angle about the
            vertical, in scan_frame (REP-117: inf where all is far, NaN where nothing is known);
            only while subscribed
        /diagnostics (diagnostic_msgs/DiagnosticArray): model, frames, and what became of the
            answers and the scan, once a second

    What is filtered (min_depth, max_depth, max_uncertainty) is missing on all of these alike.

    Parameters: `DepthParameters`, `FrameParameters` and `CameraModelParameters`, each with its
    description; also in `ros2 param describe /depth_node NAME`.
    """

    parameters: DepthParameters

    def __init__(self, engine_loader: EngineLoader = load_engine, **node_arguments: Any) -> None:
        self._answers_told: dict[str, str] = {}
        super().__init__("depth_node", DepthParameters, engine_loader, **node_arguments)
        self._scan_output = ScanOutput(self)

    def create_outputs(self) -> None:
        """See the base class."""
        self._points = self.create_output(PointCloud2, "points")
        self._depth = self.create_output(Image, "depth/image_rect")
        self._depth_info = self.create_output(CameraInfo, "depth/camera_info")
        self._dense = self.create_output(Image, "depth_registered/image_rect")
        self._dense_info = self.create_output(CameraInfo, "depth_registered/camera_info")
        self._scan = self.create_output(LaserScan, "scan")

    def answer(self, frame: CameraFrame) -> Published:
        """See the base class."""
        assert self.engine is not None
        parameters, header, camera = self.parameters, frame.header, frame.camera
        columns, rows = parameters.grid_columns, parameters.grid_rows
        pixels = PIXEL_CHOICES[parameters.pixel_choice](frame, columns, rows)
        u, v = np.rint(pixels).astype(int).T
        visible = frame.visible[v, u]
        view_focal = parameters.unified_focal or None
        answers = ask_depth(self.engine, frame.image, camera, pixels[visible], view_focal)
        depth, std = np.full((2, len(pixels)), np.nan, np.float32)
        depth[visible], std[visible] = self._kept(parameters.depth_limits(), answers), answers.std
        self.refuse_old(header, "its answers came late: ask less, or raise it")

        # First what robots drive by: dense depth takes its time.
        points = camera.unproject(pixels, depth)
        self._points.publish(cloud_message(header, points, frame.image[v, u], std))
        try:
            self._scan_output.publish(self._scan, parameters, header, camera, pixels, depth)
        except ScanError as error:
            if self._log_throttle.passes(str(error)):
                self.get_logger().warning(str(error))
        self._publish_depth_images(parameters, frame, pixels, depth)
        unread = [answers.texts[i] for i in np.flatnonzero(np.isnan(answers.depth))]
        return Published(len(answers.texts), unread)

    def statuses(self) -> list[DiagnosticStatus]:
        """See the base class."""
        scan = self._scan_output
        report = self._statistics.report()
        # Nothing is published of a frame that failed, whatever became of those before.
        told = self._answers_told if report.answered and not report.is_failing else {}
        return [
            *super().statuses(),
            diagnostic_status(
                self.diagnostic_name("answers"),
                self._image_topic,
                DiagnosticStatus.OK,
                ", ".join(f"{n} {what}" for what, n in told.items()) or "nothing is published",
                told,
            ),
            diagnostic_status(
                self.diagnostic_name("scan"), self._image_topic, scan.level, scan.text, {}
            ),
        ]

    def _kept(self, limits: DepthLimits, answers: DepthAnswers) -> NDArray[np.float32]:
        """The depths that were asked for; what is not to be published is NaN."""
        depth, std = answers.depth, answers.std
        answered = np.isfinite(depth)
        if limits.max_uncertainty and answered.any() and not np.isfinite(std[answered]).any():
            raise FrameError(
                f"max_uncertainty is {limits.max_uncertainty:g}, but no answer has an uncertainty, "
                "so that nothing could be published: set it to 0 (servers tell none, nor does "
                "force_answers: false)"
            )
        far, uncertain = limits.out_of_range(depth), limits.too_uncertain(depth, std)
        kept = np.where(far | uncertain, np.float32(np.nan), depth)
        counts = {
            "published": np.isfinite(kept),
            "out of range": far,
            "too uncertain": uncertain & ~far,
            "unanswered": ~answered,
        }
        self._answers_told = {what: str(np.count_nonzero(n)) for what, n in counts.items()}
        return kept

    def _publish_depth_images(
        self,
        parameters: DepthParameters,
        frame: CameraFrame,
        pixels: NDArray[np.float64],
        depth: NDArray[np.float32],
    ) -> None:
        header, camera = frame.header, frame.camera
        columns, rows = parameters.grid_columns, parameters.grid_rows
        is_grid = parameters.pixel_choice == "uniform"
        is_dense_wanted = self._dense.get_subscription_count() > 0
        if is_dense_wanted or not is_grid:
            dense = _dense_depth(frame, pixels, depth, parameters.depth_limits())
        if not is_grid:
            u, v = np.rint(uniform_grid(camera, columns, rows)).astype(int).T
            depth = dense[v, u]
        self._depth.publish(depth_message(header, depth.reshape(rows, columns)))
        self._depth_info.publish(camera_info_message(header, camera.resized(columns, rows)))
        if is_dense_wanted:
            self._dense.publish(depth_message(header, dense))
            self._dense_info.publish(camera_info_message(header, camera))


def _dense_depth(
    frame: CameraFrame,
    pixels: NDArray[np.float64],
    depth: NDArray[np.float32],
    limits: DepthLimits,
) -> NDArray[np.float32]:
    """Depth for every pixel of the image that shows something."""
    u, v = np.rint(pixels).astype(int).T
    visible = frame.visible[v, u]
    dense = densify(frame.image, pixels[visible], depth[visible])
    dense[~frame.visible | limits.out_of_range(dense)] = np.nan
    return dense


def main(arguments: list[str] | None = None) -> int:
    """Run the node: `ros2 run vlm3_ros depth_node`."""
    return run_nodes(lambda end: [DepthNode()], arguments)


if __name__ == "__main__":
    sys.exit(main())
