# SPDX-License-Identifier: Apache-2.0
"""Faults of a camera."""

from __future__ import annotations

import math
import struct
import time
import zlib
from array import array
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import numpy as np
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    QoSProfile,
    ReliabilityPolicy,
)
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from soak.camera import Change, Picture, drive_views
from soak.fault import Fault, Provocation
from soak.stage import SIZE, Stage
from soak.waiting import Loss
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.messages.cameras import camera_info_message

NAN = math.nan

IDLE_LOAD = 0.3
"""Largest share of a processor that a node without images may use."""


def _changed(change: Change, *, is_good: bool = False) -> Provocation:
    return lambda stage: stage.camera.changed(change, is_good=is_good)


def _image(**fields: object) -> Provocation:
    """Set fields of every image."""

    def change(picture: Picture, info: CameraInfo) -> tuple[Picture, CameraInfo]:
        for name, value in fields.items():
            setattr(picture, name, value)
        return picture, info

    return _changed(change)


def _info(**fields: object) -> Provocation:
    """Set fields of every CameraInfo."""

    def change(picture: Picture, info: CameraInfo) -> tuple[Picture, CameraInfo]:
        for name, value in fields.items():
            setattr(info, name, value)
        return picture, info

    # Images overtake it, and are answered with the previous calibration.
    return _changed(change, is_good=True)


def _frame_id(text: str, is_good: bool) -> Provocation:
    def change(picture: Picture, info: CameraInfo) -> tuple[Picture, CameraInfo]:
        picture.header.frame_id = text
        return picture, info

    return _changed(change, is_good=is_good)


@contextmanager
def _no_camera_info(stage: Stage) -> Iterator[None]:
    """The camera sends none. On activation the node forgets earlier ones."""
    # First: an active node would answer a frame without CameraInfo from the one before.
    if not stage.change_state("deactivate"):
        raise Loss("the node cannot be deactivated")
    with stage.camera.changed(lambda picture, info: (picture, None)):
        if not stage.change_state("activate"):
            raise Loss("the node cannot be activated again")
        yield


def _stamps(offsets: Callable[[int], float]) -> Provocation:
    """Shift the stamps by a number of seconds that depends on the number of the frame."""

    @contextmanager
    def provoke(stage: Stage) -> Iterator[None]:
        clock = stage.camera.clock

        def change(picture: Picture, info: CameraInfo) -> tuple[Picture, CameraInfo]:
            clock.offset = offsets(stage.camera.count)
            return picture, info

        try:
            with stage.camera.changed(change, is_good=True):
                yield
        finally:
            clock.offset = 0.0

    return provoke


@contextmanager
def _clock_stands(stage: Stage) -> Iterator[None]:
    stage.camera.clock.stands_at = stage.camera.clock.now()
    try:
        yield
    finally:
        stage.camera.clock.stands_at = None


@contextmanager
def _silent(stage: Stage) -> Iterator[None]:
    """Stop the camera; the node must then be idle."""
    stage.camera.is_silent = True
    time.sleep(1)  # for the answer to the last image
    begin, worked = time.monotonic(), stage.node.processor_seconds()
    try:
        yield
    finally:
        stage.camera.is_silent = False
    load = (stage.node.processor_seconds() - worked) / (time.monotonic() - begin)
    if load > IDLE_LOAD:
        raise Loss(f"the node uses {load:.0%} of a processor without images")


@contextmanager
def _another_size(stage: Stage) -> Iterator[None]:
    """Restart the driver with another image size, and with the old one at the end."""
    before = stage.camera.views
    stage.camera.views = drive_views(320, 240, count=3)
    stage.camera.open(QoSProfile(depth=5))
    try:
        yield
    finally:
        stage.camera.views = before
        stage.camera.open(QoSProfile(depth=5))


@contextmanager
def _restarts(stage: Stage) -> Iterator[None]:
    for _ in range(10):
        stage.camera.open(QoSProfile(depth=5))
        time.sleep(0.1)
    yield


def _camera_qos(qos: QoSProfile) -> Provocation:
    @contextmanager
    def provoke(stage: Stage) -> Iterator[None]:
        stage.camera.open(qos)
        try:
            yield
        finally:
            stage.camera.open(QoSProfile(depth=5))

    return provoke


@contextmanager
def _listener_of_odd_qos(stage: Stage) -> Iterator[None]:
    """A subscriber that asks for earlier messages, which no publisher keeps."""
    topic, kind = next(iter(stage.setup.outputs.items()))
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    subscription = stage.peer.create_subscription(kind, topic, lambda message: None, latched)
    try:
        yield
    finally:
        stage.peer.destroy_subscription(subscription)


@contextmanager
def _two_cameras_on_a_topic(stage: Stage) -> Iterator[None]:
    """A second driver publishes empty images on the same topic, forty times per second."""
    publisher = stage.peer.create_publisher(Image, "image", 5)
    rubbish = Image(header=Header(frame_id="elsewhere"))
    timer = stage.peer.create_timer(0.025, lambda: publisher.publish(rubbish))
    try:
        yield
    finally:
        stage.peer.destroy_timer(timer)
        stage.peer.destroy_publisher(publisher)


@contextmanager
def _huge_images(stage: Stage) -> Iterator[None]:
    """Grey images of 12 megapixels with their calibration, at 2 Hz."""
    width, height = 4000, 3000
    data = array("B", bytes(width * height))
    camera = PinholeCamera.from_hfov(width, height, 70.0)

    def change(picture: Picture, info: CameraInfo) -> tuple[Picture, CameraInfo]:
        image = Image(header=picture.header, width=width, height=height, encoding="mono8")
        image.step, image.data = width, data
        return image, camera_info_message(picture.header, camera)

    rate, stage.camera.rate = stage.camera.rate, 2.0
    try:
        with stage.camera.changed(change, is_good=True):
            yield
    finally:
        stage.camera.rate = rate


def _compressed(data: bytes, text: str = "rgb8; jpeg compressed bgr8") -> Provocation:
    def change(picture: Picture, info: CameraInfo) -> tuple[Picture, CameraInfo]:
        message = CompressedImage(header=picture.header, format=text)
        message.data = array("B", data)
        return message, info

    return _changed(change)


def _cut_off(stage: Stage) -> AbstractContextManager[None]:
    def change(picture: Picture, info: CameraInfo) -> tuple[Picture, CameraInfo]:
        picture.data = picture.data[: len(picture.data) // 2]
        return picture, info

    return stage.camera.changed(change)


def _png_bomb() -> bytes:
    """A few bytes that decode to 60,000 x 60,000 px."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000)))


def _padded_rows(stage: Stage) -> AbstractContextManager[None]:
    """Rows longer than their pixels, as from drivers with aligned memory."""

    def change(picture: Picture, info: CameraInfo) -> tuple[Picture, CameraInfo]:
        rows = np.frombuffer(picture.data, np.uint8).reshape(picture.height, picture.step)
        padded = np.pad(rows, ((0, 0), (0, 40)))
        picture.step, picture.data = padded.shape[1], array("B", padded.tobytes())
        return picture, info

    return stage.camera.changed(change, is_good=True)


WIDTH, HEIGHT = SIZE

IMAGES = (
    Fault("unknown encoding", _image(encoding="rgb24"), "'rgb24' is unknown"),
    Fault(
        "encoding without colours",
        _image(encoding="32FC1", step=4 * WIDTH),
        "that of a depth image",
    ),
    Fault("empty encoding", _image(encoding=""), "encoding '' is unknown"),
    Fault("data cut off", _cut_off, "the data are cut off"),
    Fault("no data", _image(data=array("B")), "the data are cut off"),
    Fault("step smaller than a row", _image(step=WIDTH), "smaller than a row"),
    Fault("step wider than the data", _image(step=2**32 - 1), "the data are cut off"),
    Fault("rows with padding", _padded_rows, answers=True),
    Fault("image of zero size", _image(width=0, height=0), r"the image is empty \(0x0\)"),
    Fault("image with a huge declared size", _image(width=2**31, height=2**31, step=2**32 - 1), ""),
    Fault("images of 12 megapixels", _huge_images, answers=None),
    Fault("frame_id that is empty", _frame_id("", False), "header.frame_id is empty"),
    Fault("frame_id that changes", _frame_id("other_camera", True), answers=True),
    Fault("rubbish of another driver", _two_cameras_on_a_topic, "image is empty", answers=None),
)

COMPRESSED_IMAGES = (
    Fault("noise", _compressed(bytes(range(256)) * 20), "are none of JPEG"),
    Fault("data cut off", _cut_off, "are corrupt"),
    Fault("no data", _compressed(b""), "the data are empty"),
    Fault("depth", _compressed(bytes(100), "16UC1; compressedDepth"), "that of a depth image"),
    Fault("a picture that unpacks to 10 GB", _compressed(_png_bomb()), "larger than"),
)

CALIBRATIONS = (
    Fault("no CameraInfo", _no_camera_info, "no CameraInfo"),
    Fault("CameraInfo: uncalibrated", _info(k=[0.0] * 9), "uncalibrated"),
    Fault("CameraInfo: NaN in K", _info(k=[NAN] * 9), "not finite"),
    Fault("CameraInfo: NaN in D", _info(d=[NAN] * 5), "not finite"),
    Fault("CameraInfo: infinite P", _info(p=[math.inf] * 12), "not finite"),
    Fault("CameraInfo: another size", _info(width=640, height=480), answers=True),
    Fault("CameraInfo: no size", _info(width=0, height=0), answers=None),
    Fault("CameraInfo: unknown lens", _info(distortion_model="thin_prism"), "thin_prism"),
    Fault("CameraInfo: D of a wrong length", _info(d=[0.1] * 3), "plumb_bob"),
    Fault("CameraInfo: binning by 2^32 - 1", _info(binning_x=2**32 - 1), answers=None),
)

TIMES = (
    Fault("stamps 60 s back", _stamps(lambda n: -60.0), "after the frame's stamp", answers=True),
    Fault("stamps 60 s ahead", _stamps(lambda n: 60.0), answers=True),
    Fault("stamps back and forth", _stamps(lambda n: 5.0 * (n % 7 - 3)), answers=True),
)

CLOCKS = (
    Fault("/clock jumps back and forth", _stamps(lambda n: 30.0 * (n // 10 % 3)), answers=True),
    Fault("/clock an hour ahead, then back", _stamps(lambda n: 3600.0), answers=True),
    Fault("/clock stands still", _clock_stands, answers=None),
    Fault("/clock and camera silent", _silent, "no image on"),
)

DRIVERS = (
    Fault("camera silent", _silent, "no image on"),
    Fault("camera starts ten times", _restarts, answers=True),
    Fault("camera starts with another size", _another_size, answers=True),
    Fault(
        "camera best effort",
        _camera_qos(QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)),
        answers=True,
    ),
    Fault(
        "camera latched",
        _camera_qos(QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)),
        answers=True,
    ),
    Fault(
        "camera keeps all", _camera_qos(QoSProfile(history=HistoryPolicy.KEEP_ALL)), answers=True
    ),
    Fault("listener of odd QoS", _listener_of_odd_qos, "incompatible QoS", answers=True),
)
