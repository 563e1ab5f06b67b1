# SPDX-License-Identifier: Apache-2.0
"""Cameras in messages (sensor_msgs/CameraInfo) as lens models, and back.

What is read may be messages of rclpy or of `rosbags`: bags are evaluated where no ROS is installed.
"""

from __future__ import annotations

import threading
from collections import deque
from functools import cached_property
from typing import TYPE_CHECKING

from vlm3_ros.geometry.camera import GeometryError, PinholeCamera
from vlm3_ros.geometry.lens import LensCamera, lens_from_calibration

if TYPE_CHECKING:
    from sensor_msgs.msg import CameraInfo
    from std_msgs.msg import Header


class UncalibratedError(GeometryError):
    """K is all zero, which is how sensor_msgs/CameraInfo says that nobody calibrated the camera."""


def lens_from_message(message: CameraInfo, image_size: tuple[int, int] | None = None) -> LensCamera:
    """The camera that a CameraInfo describes, adjusted for its binning and region of interest.

    Args:
        message: as it came.
        image_size: (width, height) of the image that it should belong to.

    Raises:
        UncalibratedError: when K is all zero.
        GeometryError: when the values have another fault, such as an unknown distortion model,
            or belong to an image of another size.
    """
    if not any(message.k):
        raise UncalibratedError(
            "the camera is uncalibrated (K is all zero): calibrate it, or set fallback_intrinsics"
        )
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
    )


def camera_info_message(header: Header, camera: PinholeCamera) -> CameraInfo:
    """The CameraInfo of a rectified image.

    Args:
        header: of the image that it goes with.
        camera: of the same image.
    """
    from sensor_msgs.msg import CameraInfo

    fx, fy, cx, cy = camera.fx, camera.fy, camera.cx, camera.cy
    return CameraInfo(
        header=header,
        width=camera.width,
        height=camera.height,
        distortion_model="plumb_bob",
        d=[0.0] * 5,
        k=[fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0],
        r=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
        p=[fx, 0.0, cx, 0.0, 0.0, fy, cy, 0.0, 0.0, 0.0, 1.0, 0.0],
    )


def stamp_nanoseconds(header: Header) -> int:
    """A header's stamp in nanoseconds."""
    return int(header.stamp.sec * 1_000_000_000 + header.stamp.nanosec)


class _Calibration:
    def __init__(self, message: CameraInfo) -> None:
        self.message = message
        self.since = stamp_nanoseconds(message.header)

    @cached_property
    def lens(self) -> LensCamera:
        return lens_from_message(self.message)


class CalibrationHistory:
    """The CameraInfo messages of a camera, of which an image finds its own.

    A slow model works on images that are older than the newest CameraInfo, and some drivers send
    CameraInfo rarely or once. So calibrations are kept with the stamp that they came into force
    with, and repetitions are not kept. Safe between threads.
    """

    def __init__(self, size: int = 16) -> None:
        self._calibrations: deque[_Calibration] = deque(maxlen=size)
        self._lock = threading.Lock()

    def add(self, message: CameraInfo) -> None:
        """Remember a message, unless it says what the one before said."""
        with self._lock:
            if self._calibrations and _same_camera(self._calibrations[-1].message, message):
                return
            self._calibrations.append(_Calibration(message))

    @property
    def is_empty(self) -> bool:
        """Whether no message has arrived, not even of an uncalibrated camera."""
        return not self._calibrations

    def clear(self) -> None:
        """Forget all messages."""
        with self._lock:
            self._calibrations.clear()

    def find(
        self, header: Header, image_size: tuple[int, int]
    ) -> tuple[CameraInfo, LensCamera] | None:
        """The newest message of this image's camera and size, and what it describes.

        One that came into force after the image was taken is used only if there is no other.

        Args:
            header: of the image.
            image_size: (width, height).

        Returns:
            None when no message has arrived.

        Raises:
            UncalibratedError: when that message belongs to an uncalibrated camera.
            GeometryError: when it has another fault, or no message is for images of this size.
        """
        taken = stamp_nanoseconds(header)
        with self._lock:
            # sorted() is stable: arrival decides between equals.
            best_last = sorted(
                self._calibrations,
                key=lambda c: (c.message.header.frame_id == header.frame_id, c.since <= taken),
            )
        for calibration in reversed(best_last):
            try:
                lens = calibration.lens
            except GeometryError:
                if calibration is best_last[-1]:
                    raise
                continue
            if (lens.width, lens.height) == image_size:
                return calibration.message, lens
        if best_last:
            lens_from_message(best_last[-1].message, image_size)  # says why it does not fit
        return None


def _same_camera(one: CameraInfo, other: CameraInfo) -> bool:
    return (
        one.header.frame_id == other.header.frame_id
        and (one.width, one.height) == (other.width, other.height)
        # Bytes, for NaN is not equal to itself.
        and all(getattr(one, name).tobytes() == getattr(other, name).tobytes() for name in "kprd")
        and one.distortion_model == other.distortion_model
        and (one.binning_x, one.binning_y) == (other.binning_x, other.binning_y)
        and one.roi == other.roi
    )
