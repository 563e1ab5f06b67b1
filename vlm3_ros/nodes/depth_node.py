"""Metric depth from a camera: the node."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, Image, LaserScan, PointCloud2
from std_msgs.msg import Header

from vlm3_ros.engines.load import load_engine
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.geometry.motion import Transform
from vlm3_ros.ros.cameras import camera_info_message
from vlm3_ros.ros.clouds import cloud_message
from vlm3_ros.ros.depth_images import depth_message
from vlm3_ros.ros.diagnostics import diagnostic_status
from vlm3_ros.ros.frame_node import FrameNode, Published
from vlm3_ros.ros.frames import FrameTree
from vlm3_ros.ros.mounts import check_frame_name, mount_from_text
from vlm3_ros.ros.node import CameraFrame, EngineLoader, FrameError
from vlm3_ros.ros.node_parameters import FrameParameters
from vlm3_ros.ros.parameters import ParameterError, parameter
from vlm3_ros.ros.running import run_nodes
from vlm3_ros.ros.scans import scan_message
from vlm3_ros.tasks.dense import densify
from vlm3_ros.tasks.depth import DepthLimits, ask_depth, uniform_grid
from vlm3_ros.tasks.sampling import adaptive_pixels
from vlm3_ros.tasks.scan import ScanLimits, planar_scan

PIXEL_CHOICES: dict[str, Callable[[CameraFrame, int, int], NDArray[np.float64]]] = {
    "uniform": lambda frame, columns, rows: uniform_grid(frame.camera, columns, rows),
    "adaptive": lambda frame, columns, rows: adaptive_pixels(
        frame.image, columns * rows, frame.visible
    ),
}
"""How rows * columns pixels of an image are chosen, shape (rows * columns, 2)."""


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
        "uniform",
        "Where in the image the pixels lie: uniform, in the middles of the grid's cells; adaptive, "
        "as many of them in the middles of patches of one colour, more where edges are.",
        choices=tuple(PIXEL_CHOICES),
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
    max_uncertainty: float = parameter(
        0.0,
        "Answers whose standard deviation is a larger share of their depth are not published, nor "
        "those whose standard deviation is unknown; 0 for all.",
        minimum=0.0,
        maximum=1e3,
    )
    scan_frame: str = parameter(
        "base_link", "Frame of `scan`: on the robot, fixed to the camera, x forward and z up."
    )
    scan_from_camera: str = parameter(
        "",
        "Place of the camera's optical frame in scan_frame: `x y z qx qy qz qw`, metres and a "
        "quaternion, as static_transform_publisher takes them. Empty: from TF.",
    )
    scan_min_height: float = parameter(
        0.3,
        "Answers below are not in `scan`, metres over scan_frame. An answer about the floor that "
        "is too near by some share lies over it, by this share of the camera's height.",
        minimum=-1e3,
        maximum=1e3,
    )
    scan_max_height: float = parameter(
        1.5, "Answers above are not in `scan`, metres over scan_frame.", minimum=-1e3, maximum=1e3
    )
    scan_min_range: float = parameter(
        0.1, "Nearer answers are -inf in `scan`, metres.", minimum=0.0, maximum=1e6
    )
    scan_max_range: float = parameter(
        10.0, "Farther answers are inf in `scan`, metres.", minimum=0.0, maximum=1e6
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for least, most in (
            ("min_depth", "max_depth"),
            ("scan_min_height", "scan_max_height"),
            ("scan_min_range", "scan_max_range"),
        ):
            low, high = getattr(self, least), getattr(self, most)
            if low >= high:
                raise ParameterError(
                    f"parameter '{least}' ({low:g}) must be smaller than '{most}' ({high:g})"
                )
        check_frame_name("scan_frame", self.scan_frame)
        mount_from_text("scan_from_camera", self.scan_from_camera)

    def depth_limits(self) -> DepthLimits:
        """Which answers are published."""
        return DepthLimits(self.min_depth, self.max_depth, self.max_uncertainty)

    def scan_limits(self) -> ScanLimits:
        """Which of these are in the scan."""
        return ScanLimits(
            self.scan_min_height, self.scan_max_height, self.scan_min_range, self.scan_max_range
        )


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
        self._scan_told, self._scan_fails = "nobody subscribes", False
        self._frame_tree: FrameTree | None = None
        self._mounts: dict[tuple[str, str], Transform] = {}
        super().__init__("depth_node", DepthParameters, engine_loader, **node_arguments)

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
        depth[visible], std[visible] = answers.depth, answers.std
        self._withhold(depth, std)
        self.refuse_old(header, "its answers came late: ask less, or raise it")

        points = camera.unproject(pixels, depth)
        self._points.publish(cloud_message(header, points, frame.image[v, u], std))
        self._publish_depth_images(frame, pixels, depth)
        self._publish_scan(header, camera, pixels, depth)
        unread = [answers.texts[i] for i in np.flatnonzero(np.isnan(answers.depth))]
        return Published(len(answers.texts), unread)

    def statuses(self) -> list[DiagnosticStatus]:
        """See the base class."""
        told = self._answers_told
        scan_level = DiagnosticStatus.WARN if self._scan_fails else DiagnosticStatus.OK
        return [
            *super().statuses(),
            diagnostic_status(
                self.diagnostic_name("answers"),
                self._image_topic,
                DiagnosticStatus.OK,
                ", ".join(f"{n} {what}" for what, n in told.items()) or "no image yet",
                told,
            ),
            diagnostic_status(
                self.diagnostic_name("scan"), self._image_topic, scan_level, self._scan_told, {}
            ),
        ]

    def _withhold(self, depth: NDArray[np.float32], std: NDArray[np.float32]) -> None:
        """Take away what is not to be published: it becomes NaN."""
        limits, answered = self.parameters.depth_limits(), np.isfinite(depth)
        if limits.max_uncertainty and answered.any() and not np.isfinite(std[answered]).any():
            raise FrameError(
                f"max_uncertainty is {limits.max_uncertainty:g}, but no answer has an uncertainty, "
                "so that nothing could be published: set it to 0 (servers tell none, nor does "
                "force_answers: false)"
            )
        far, uncertain = limits.out_of_range(depth), limits.too_uncertain(depth, std)
        depth[far | uncertain] = np.nan
        counts = {
            "published": np.isfinite(depth),
            "out of range": far,
            "too uncertain": uncertain & ~far,
            "unanswered": ~answered,
        }
        self._answers_told = {what: str(np.count_nonzero(n)) for what, n in counts.items()}

    def _publish_depth_images(
        self, frame: CameraFrame, pixels: NDArray[np.float64], depth: NDArray[np.float32]
    ) -> None:
        header, camera = frame.header, frame.camera
        columns, rows = self.parameters.grid_columns, self.parameters.grid_rows
        is_grid = self.parameters.pixel_choice == "uniform"
        is_dense_wanted = self._dense.get_subscription_count() > 0
        if is_dense_wanted or not is_grid:
            dense = self._dense_depth(frame, pixels, depth)
        if not is_grid:
            u, v = np.rint(uniform_grid(camera, columns, rows)).astype(int).T
            depth = dense[v, u]
        self._depth.publish(depth_message(header, depth.reshape(rows, columns)))
        self._depth_info.publish(camera_info_message(header, camera.resized(columns, rows)))
        if is_dense_wanted:
            self._dense.publish(depth_message(header, dense))
            self._dense_info.publish(camera_info_message(header, camera))

    def _dense_depth(
        self, frame: CameraFrame, pixels: NDArray[np.float64], depth: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Depth for every pixel of the image that shows something."""
        u, v = np.rint(pixels).astype(int).T
        visible = frame.visible[v, u]
        dense = densify(frame.image, pixels[visible], depth[visible])
        dense[~frame.visible | self.parameters.depth_limits().out_of_range(dense)] = np.nan
        return dense

    def _publish_scan(
        self,
        header: Header,
        camera: PinholeCamera,
        pixels: NDArray[np.float64],
        depth: NDArray[np.float32],
    ) -> None:
        if not self._scan.get_subscription_count():
            self._scan_told, self._scan_fails = "nobody subscribes", False
            return
        parameters = self.parameters
        try:
            mount = self._scan_mount(header.frame_id)
        except FrameError as error:  # the other outputs do not need it
            self._scan_told, self._scan_fails = str(error), True
            if self._log_throttle.passes(str(error)):
                self.get_logger().warning(str(error))
            return
        limits = parameters.scan_limits()
        scan = planar_scan(camera, pixels, depth, parameters.grid_columns, mount, limits)
        own_header = Header(stamp=header.stamp, frame_id=parameters.scan_frame)
        self._scan.publish(scan_message(own_header, scan, limits))
        known = np.count_nonzero(~np.isnan(scan.ranges))
        self._scan_told = f"{known} of {len(scan.ranges)} beams known, in {parameters.scan_frame}"
        self._scan_fails = False

    def _scan_mount(self, camera_frame: str) -> Transform:
        """T_scan_camera."""
        frame = self.parameters.scan_frame
        given = mount_from_text("scan_from_camera", self.parameters.scan_from_camera)
        if given is not None:
            return given
        known = self._mounts.get((frame, camera_frame))
        if known is not None:
            return known
        try:
            self._frame_tree = self._frame_tree or FrameTree(self)
        except ImportError:
            raise FrameError(
                "no scan: tf2_ros is not installed here, so that the camera's place must be told: "
                "set scan_from_camera to x y z qx qy qz qw of the camera's optical frame in "
                f"'{frame}'"
            ) from None
        mount = self._frame_tree.newest(frame, camera_frame, 0.0, is_wanted=lambda: True)
        if mount is None:
            raise FrameError(
                f"no scan: no transform from '{camera_frame}' to '{frame}' on TF: publish it "
                "(robot_state_publisher, static_transform_publisher), correct scan_frame, or set "
                "scan_from_camera"
            )
        self._mounts = {(frame, camera_frame): mount}
        self._frame_tree.close()  # it does not change, and a robot's /tf is busy
        self._frame_tree = None
        return mount


def main(arguments: list[str] | None = None) -> int:
    """Run the node: `ros2 run vlm3_ros depth_node`."""
    return run_nodes(lambda end: [DepthNode()], arguments)


if __name__ == "__main__":
    sys.exit(main())
