# SPDX-License-Identifier: Apache-2.0
"""The depth node's own time per frame, without the model.

    python benchmarks/node_overhead.py [--frames 200] [--grid 16x12] [--focal 250]

A camera, the real node and a listener talk over DDS in one process, one frame after another. The
engine answers at once, and its time is subtracted. For each image size and encoding, the benchmark
prints the median and the 95th percentile in milliseconds of

    node        from taking the image from DDS to handing all answers to DDS
    over DDS    from publishing the image to receiving the cloud
    echo        the same for a node that answers every image with a ready cloud: rclpy and DDS alone

Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import threading
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"

import numpy as np
import rclpy
from numpy.typing import NDArray
from PIL import Image as Pillow
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_msgs.msg import Header

from vlm3_ros.engines.base import Answer, Profile
from vlm3_ros.geometry.camera import ImageLimits, PinholeCamera
from vlm3_ros.language.prompts import load_prompt_set
from vlm3_ros.language.wordings.depth import DepthWording, depth_answer
from vlm3_ros.messages.cameras import camera_info_message
from vlm3_ros.messages.clouds import cloud_message
from vlm3_ros.nodes.depth_node import DepthNode
from vlm3_ros.ros.model_handle import EngineLoader
from vlm3_ros.ros.running import spinning

SIZES = ((640, 480), (1280, 720))
ENCODINGS = ("rgb8", "bgr8", "jpeg")
WARM_UP = 10
"""Frames before the measurement."""


@dataclass
class InstantEngine:
    """Answers 2.5 m to every question, and measures the time that it needs."""

    focal: float
    name: str = "instant"
    warning: str | None = None
    limits: ImageLimits = field(default_factory=lambda: ImageLimits(32, 1024, 2**24))
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self.profile = Profile(self.focal, "pad", load_prompt_set("vlm3"))

    def ask(  # noqa: D102
        self,
        images: Sequence[NDArray[np.uint8]],
        questions: Sequence[str],
        answer_template: str | None = None,
    ) -> list[Answer]:
        begin = time.perf_counter()
        answers = [
            Answer(depth_answer(self.profile.prompts[DepthWording], 2.5), 2.5, 0.1)
            for _ in questions
        ]
        self.seconds = time.perf_counter() - begin
        return answers

    def memory_bytes(self) -> int | None:  # noqa: D102
        return None

    def close(self) -> None:  # noqa: D102
        pass


class TimedDepthNode(DepthNode):
    """Measures the time from the arrival of an image to the end of its publication."""

    seconds = 0.0

    def __init__(self, engine_loader: EngineLoader, **node_arguments: Any) -> None:
        super().__init__(engine_loader, **node_arguments)
        worker = self.frames._worker
        work = worker._work

        def timed(arrival: tuple[float, Image | CompressedImage]) -> None:
            work(arrival)
            self.seconds = time.monotonic() - arrival[0]

        worker._work = timed


def message_maker(
    encoding: str, width: int, height: int
) -> Callable[[Header], Image | CompressedImage]:
    """Return a function that makes messages of one smooth picture."""
    coarse = np.random.default_rng(0).integers(0, 256, (9, 16, 3), np.uint8)
    picture = Pillow.fromarray(coarse).resize((width, height), Pillow.Resampling.BICUBIC)
    if encoding == "jpeg":
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=90)
        content = array("B", buffer.getvalue())
        return lambda header: CompressedImage(
            header=header, format="rgb8; jpeg compressed bgr8", data=content
        )
    content = array("B", np.asarray(picture).tobytes())
    return lambda header: Image(
        header=header, height=height, width=width, encoding=encoding, step=3 * width, data=content
    )


class Listener(Node):
    """A camera that waits for the clouds of its images."""

    def __init__(self, namespace: str, message_type: type, topic: str) -> None:
        super().__init__("peer", namespace=namespace)
        qos = QoSProfile(depth=5)
        self._image = self.create_publisher(message_type, topic, qos)
        self._info = self.create_publisher(CameraInfo, "camera_info", qos)
        self._arrived = threading.Event()
        self._arrival = 0.0
        self.create_subscription(PointCloud2, "points", self._hear, qos)

    def round_trip(
        self, make: Callable[[Header], Image | CompressedImage], camera: PinholeCamera
    ) -> float:
        """Return the seconds from an image to its cloud; send again if none comes."""
        while True:
            header = Header(stamp=self.get_clock().now().to_msg(), frame_id="camera")
            self._info.publish(camera_info_message(header, camera))
            message = make(header)
            time.sleep(0.01)  # the CameraInfo arrives, and the last frame is finished
            self._arrived.clear()
            begin = time.perf_counter()
            self._image.publish(message)
            if self._arrived.wait(1.0):
                return self._arrival - begin

    def _hear(self, message: PointCloud2) -> None:
        self._arrival = time.perf_counter()
        self._arrived.set()


class Echo(Node):
    """Answers every image with the same cloud."""

    def __init__(self, namespace: str, message_type: type, topic: str, points: int) -> None:
        super().__init__("echo", namespace=namespace)
        cloud = cloud_message(
            Header(frame_id="camera"),
            np.ones((points, 3)),
            np.ones((points, 3), np.uint8),
            np.ones(points),
        )
        publisher = self.create_publisher(PointCloud2, "points", QoSProfile(depth=5))
        self.create_subscription(
            message_type, topic, lambda message: publisher.publish(cloud), qos_profile_sensor_data
        )


def measure(
    encoding: str, camera: PinholeCamera, columns: int, rows: int, focal: float, frames: int
) -> NDArray[np.float64]:
    """Return the seconds in the node, over DDS and of an echo, shape (frames, 3)."""
    transport = "compressed" if encoding == "jpeg" else "raw"
    message_type, topic = {
        "compressed": (CompressedImage, "image/compressed"),
        "raw": (Image, "image"),
    }[transport]
    make = message_maker(encoding, camera.width, camera.height)
    engine = InstantEngine(focal)
    name = f"node_{encoding}_{camera.width}"
    values = {"grid_columns": columns, "grid_rows": rows, "image_transport": transport}
    node = TimedDepthNode(
        lambda settings, progress: engine,
        namespace=name,
        parameter_overrides=[Parameter(key, value=value) for key, value in values.items()],
    )
    listener = Listener(name, message_type, topic)
    seconds = np.empty((frames, 3))
    with spinning(node), spinning(listener):
        for frame in range(-WARM_UP, frames):
            node.seconds = 0.0
            over_dds = listener.round_trip(make, camera)
            while not node.seconds:
                time.sleep(0.001)
            if frame >= 0:
                seconds[frame, :2] = (node.seconds, over_dds)
                seconds[frame, :2] -= engine.seconds
    node.destroy_node()
    listener.destroy_node()

    name = f"echo_{encoding}_{camera.width}"
    echo = Echo(name, message_type, topic, columns * rows)
    listener = Listener(name, message_type, topic)
    with spinning(echo), spinning(listener):
        for frame in range(-WARM_UP, frames):
            over_dds = listener.round_trip(make, camera)
            if frame >= 0:
                seconds[frame, 2] = over_dds
    echo.destroy_node()
    listener.destroy_node()
    return seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--grid", default="16x12", help="columns x rows")
    parser.add_argument("--focal", type=float, default=250.0, help="of the checkpoint, px")
    arguments = parser.parse_args()
    columns, rows = map(int, re.fullmatch(r"(\d+)x(\d+)", arguments.grid).groups())
    os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 101))
    rclpy.init()
    print(f"{columns}x{rows} questions, {arguments.frames} frames; ms: median (95 %)")
    print(f"{'image':>10} {'encoding':>9} {'node':>16} {'over DDS':>16} {'echo':>16}")
    for width, height in SIZES:
        camera = PinholeCamera.from_hfov(width, height, 70.0)
        for encoding in ENCODINGS:
            milliseconds = 1e3 * measure(
                encoding, camera, columns, rows, arguments.focal, arguments.frames
            )
            medians, tails = np.percentile(milliseconds, (50, 95), axis=0)
            cells = [f"{m:8.2f} ({t:5.2f})" for m, t in zip(medians, tails, strict=True)]
            row = " ".join(f"{cell:>16}" for cell in cells)
            print(f"{f'{width}x{height}':>10} {encoding:>9} {row}")
    rclpy.try_shutdown()


if __name__ == "__main__":
    main()
