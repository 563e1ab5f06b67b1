"""Metric depth from a camera: the node."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from vlm3_ros.engines.load import load_engine
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.ros.cameras import camera_info_message
from vlm3_ros.ros.clouds import cloud_message
from vlm3_ros.ros.depth_images import depth_message
from vlm3_ros.ros.frame_node import FrameNode, Published
from vlm3_ros.ros.node import CameraFrame, EngineLoader
from vlm3_ros.ros.node_parameters import FrameParameters
from vlm3_ros.ros.parameters import ParameterError, parameter
from vlm3_ros.ros.running import run_nodes
from vlm3_ros.tasks.dense import densify
from vlm3_ros.tasks.depth import ask_depth, uniform_grid

PIXEL_CHOICES: dict[str, Callable[[PinholeCamera, int, int], NDArray[np.float64]]] = {
    "uniform": uniform_grid
}
"""How the pixels of a columns x rows grid are chosen, shape (rows * columns, 2)."""


@dataclass(frozen=True)
class DepthParameters(FrameParameters):
    """Parameters of the depth node."""

    grid_columns: int = parameter(
        16, "Columns of the grid of pixels that the model is asked.", minimum=1, maximum=1024
    )
    grid_rows: int = parameter(
        12, "Rows of the grid of pixels that the model is asked.", minimum=1, maximum=1024
    )
    pixel_choice: str = parameter(
        "uniform", "Where in the image the pixels lie.", choices=tuple(PIXEL_CHOICES)
    )
    unified_focal: float = parameter(
        0.0,
        "Focal length at which images enter the model, px; 0 for the checkpoint's own. A smaller "
        "one is faster and coarser.",
        minimum=0.0,
        maximum=1e5,
    )
    min_depth: float = parameter(
        0.0, "Nearer answers are not published, in metres.", minimum=0.0, maximum=1e6
    )
    max_depth: float = parameter(
        1e6, "Farther answers are not published, in metres.", minimum=0.0, maximum=1e6
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min_depth >= self.max_depth:
            raise ParameterError(
                f"parameter 'min_depth' ({self.min_depth:g}) must be smaller than 'max_depth' "
                f"({self.max_depth:g})"
            )


class DepthNode(FrameNode):
    """Asks a model for the metric depth of a grid of pixels in every image that it has time for.

    Subscribers (sensor data QoS; the newest image wins):
        image (sensor_msgs/Image): the camera, any colour encoding
        image/compressed (sensor_msgs/CompressedImage): instead, with image_transport: compressed
        camera_info (sensor_msgs/CameraInfo): its calibration

    Publishers (reliable; stamp and frame of the source image; metres in the optical frame):
        points (sensor_msgs/PointCloud2): the answers: x y z rgb, and uncertainty: one standard
            deviation of the depth, NaN where unknown
        depth/image_rect (sensor_msgs/Image, 32FC1): the grid as a small depth image (REP-118),
            NaN where unanswered
        depth/camera_info (sensor_msgs/CameraInfo): its camera, so that depth_image_proc works
        depth_registered/image_rect (sensor_msgs/Image, 32FC1): depth for every pixel of the
            rectified image, interpolated between the answers; only while subscribed
        depth_registered/camera_info (sensor_msgs/CameraInfo): its camera
        /diagnostics (diagnostic_msgs/DiagnosticArray): model and frames, once a second

    Parameters: `DepthParameters`, `FrameParameters` and `CameraModelParameters`, each with its
    description; also in `ros2 param describe /depth_node NAME`.
    """

    parameters: DepthParameters

    def __init__(self, engine_loader: EngineLoader = load_engine, **node_arguments: Any) -> None:
        super().__init__("depth_node", DepthParameters, engine_loader, **node_arguments)

    def create_outputs(self) -> None:
        """See the base class."""
        self._points = self.create_output(PointCloud2, "points")
        self._depth = self.create_output(Image, "depth/image_rect")
        self._depth_info = self.create_output(CameraInfo, "depth/camera_info")
        self._dense = self.create_output(Image, "depth_registered/image_rect")
        self._dense_info = self.create_output(CameraInfo, "depth_registered/camera_info")

    def answer(self, frame: CameraFrame) -> Published:
        """See the base class."""
        assert self.engine is not None
        parameters, header, camera = self.parameters, frame.header, frame.camera
        columns, rows = parameters.grid_columns, parameters.grid_rows
        pixels = PIXEL_CHOICES[parameters.pixel_choice](camera, columns, rows)
        u, v = np.rint(pixels).astype(int).T
        visible = frame.visible[v, u]
        view_focal = parameters.unified_focal or None
        answers = ask_depth(self.engine, frame.image, camera, pixels[visible], view_focal)
        depth, std = np.full((2, len(pixels)), np.nan, np.float32)
        depth[visible], std[visible] = answers.depth, answers.std
        depth[(depth < parameters.min_depth) | (depth > parameters.max_depth)] = np.nan

        points = camera.unproject(pixels, depth)
        self._points.publish(cloud_message(header, points, frame.image[v, u], std))
        self._depth.publish(depth_message(header, depth.reshape(rows, columns)))
        self._depth_info.publish(camera_info_message(header, camera.resized(columns, rows)))
        if self._dense.get_subscription_count():
            dense = densify(pixels, depth, camera.width, camera.height)
            dense[~frame.visible] = np.nan
            self._dense.publish(depth_message(header, dense))
            self._dense_info.publish(camera_info_message(header, camera))
        unread = [answers.texts[i] for i in np.flatnonzero(np.isnan(answers.depth))]
        return Published(len(answers.texts), unread)


def main(arguments: list[str] | None = None) -> int:
    """Run the node: `ros2 run vlm3_ros depth_node`."""
    return run_nodes(lambda end: [DepthNode()], arguments)


if __name__ == "__main__":
    sys.exit(main())
