# SPDX-License-Identifier: Apache-2.0
"""Cameras as sensor_msgs/CameraInfo, and back."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

import numpy as np

from vlm3_ros.geometry.camera import GeometryError, PinholeCamera
from vlm3_ros.geometry.lens import LensCamera, lens_from_calibration
from vlm3_ros.messages.classes import classes_of, stamp_nanoseconds

if TYPE_CHECKING:
    from sensor_msgs.msg import CameraInfo
    from std_msgs.msg import Header


def lens_from_message(
    message: CameraInfo, image_size: tuple[int, int] | None = None, is_rectified: bool = False
) -> LensCamera:
    """The camera of a CameraInfo, adjusted for its binning and region of interest.

    Args:
        message: the CameraInfo.
        image_size: (width, height) of its image, to check against.
        is_rectified: whether the image is rectified, so that P alone describes it.

    Raises:
        UncalibratedError: if the camera is not calibrated.
        GeometryError: if the values have another fault, such as an unknown distortion model, or
            belong to an image of another size.
    """
    roi = message.roi
    return lens_from_calibration(
        message.width,
        message.height,
        message.k,
        message.d,
        message.distortion_model,
        message.r,
        message.p,
        binning=(message.binning_x, message.binning_y),
        roi=(roi.x_offset, roi.y_offset, roi.width, roi.height),
        image_size=image_size,
        is_rectified=is_rectified,
    )


def is_called_rectified(topic: str) -> bool:
    """Whether an image topic is rectified by its name, such as image_rect_color or rect/image.

    image_proc names rectified images so, and sends the raw camera's K and D beside them. A D405
    names raw ones so, too.

    Args:
        topic: without the suffix of image_transport.
    """
    *_, folder, name = ("", "", *topic.split("/"))
    return "rect" in name or folder == "rect"


def camera_info_message(header: Header, camera: PinholeCamera) -> CameraInfo:
    """Build the CameraInfo of a rectified image: plumb_bob without distortion.

    Args:
        header: of the image.
        camera: of the image.
    """
    classes = classes_of(header)
    fx, fy, cx, cy = camera.fx, camera.fy, camera.cx, camera.cy
    return classes.message(
        "sensor_msgs/msg/CameraInfo",
        {"d": np.zeros(5)},
        header=header,
        height=camera.height,
        width=camera.width,
        distortion_model="plumb_bob",
        k=np.array([fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0]),
        r=np.array([1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]),
        p=np.array([fx, 0.0, cx, 0.0, 0.0, fy, cy, 0.0, 0.0, 0.0, 1.0, 0.0]),
        binning_x=0,
        binning_y=0,
        roi=classes.message(
            "sensor_msgs/msg/RegionOfInterest",
            x_offset=0,
            y_offset=0,
            height=0,
            width=0,
            do_rectify=False,
        ),
    )


class _Calibration:
    def __init__(self, message: CameraInfo) -> None:
        self.message = message
        self.since = stamp_nanoseconds(message.header)
        self._lenses: dict[tuple[object, ...], LensCamera] = {}

    def lens(self, image_size: tuple[int, int], is_rectified: bool) -> LensCamera:
        """The camera; `image_size` is its size if the message has none."""
        size = None if self.message.width or self.message.height else image_size
        key = (size, is_rectified)
        if key not in self._lenses:
            self._lenses[key] = lens_from_message(self.message, size, is_rectified)
        return self._lenses[key]


class CalibrationHistory:
    """The CameraInfo messages of a topic, to look up the one that belongs to an image.

    A slow model works on images older than the newest CameraInfo, and some drivers send CameraInfo
    rarely or once. Therefore each new calibration is kept with its first stamp; repetitions are
    dropped. Thread-safe.
    """

    def __init__(self, size: int = 16) -> None:
        self._calibrations: deque[_Calibration] = deque(maxlen=size)
        self._lock = threading.Lock()

    def add(self, message: CameraInfo) -> None:
        """Keep a message if its calibration differs from the previous one."""
        with self._lock:
            if self._calibrations and _same_camera(self._calibrations[-1].message, message):
                return
            self._calibrations.append(_Calibration(message))

    @property
    def is_empty(self) -> bool:
        """Whether no message has arrived. A message of an uncalibrated camera counts."""
        return not self._calibrations

    def clear(self) -> None:
        """Drop all messages."""
        with self._lock:
            self._calibrations.clear()

    def find(
        self, header: Header, image_size: tuple[int, int], is_rectified: bool = False
    ) -> tuple[CameraInfo, LensCamera] | None:
        """Find the message that belongs to an image, and its camera.

        Prefers messages with the frame_id of the image, then those not newer than the image, then
        the last to arrive. Messages for images of another size are skipped.

        Args:
            header: of the image.
            image_size: (width, height).
            is_rectified: whether the image is rectified, so that P alone describes it.

        Returns:
            None if no message has arrived.

        Raises:
            UncalibratedError: if the preferred message is of an uncalibrated camera; see
                `vlm3_ros.geometry.lens`.
            GeometryError: if it has another fault, or no message is for images of this size.
        """
        taken = stamp_nanoseconds(header)
        with self._lock:
            # sorted() is stable: equals keep the order of arrival.
            best_last = sorted(
                self._calibrations,
                key=lambda c: (c.message.header.frame_id == header.frame_id, c.since <= taken),
            )
        for calibration in reversed(best_last):
            try:
                lens = calibration.lens(image_size, is_rectified)
            except GeometryError:
                if calibration is best_last[-1]:
                    raise
                continue
            if (lens.width, lens.height) == image_size:
                return calibration.message, lens
        if best_last:
            newest = best_last[-1].message
            lens_from_message(newest, image_size, is_rectified)  # raises with the two sizes
        return None


def _same_camera(one: CameraInfo, other: CameraInfo) -> bool:
    return (
        one.header.frame_id == other.header.frame_id
        and (one.width, one.height) == (other.width, other.height)
        # As bytes, because NaN does not equal itself.
        and all(getattr(one, name).tobytes() == getattr(other, name).tobytes() for name in "kprd")
        and one.distortion_model == other.distortion_model
        and (one.binning_x, one.binning_y) == (other.binning_x, other.binning_y)
        and one.roi == other.roi
    )
