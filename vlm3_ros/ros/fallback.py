# SPDX-License-Identifier: Apache-2.0
"""Intrinsics of a camera without calibration (`fallback_intrinsics`)."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from vlm3_ros.engines.anycalib import Calibrator, load_anycalib
from vlm3_ros.geometry.calibration_files import load_calibration, split_camera
from vlm3_ros.geometry.camera import GeometryError, PinholeCamera
from vlm3_ros.geometry.lens import LensCamera, lens_from_calibration
from vlm3_ros.ros.node_parameters import CameraModelParameters

CALIBRATION_IMAGES = 5
"""Images of a camera over which AnyCalib's median is taken. A camera's intrinsics are constant:
estimated from every image again, they would make the scale of its depths fluctuate."""

CalibratorLoader = Callable[[str, bool], Calibrator]
"""Loads a calibrator onto a device; the second argument says whether to stay offline."""


class FallbackIntrinsics:
    """Makes a lens according to `fallback_intrinsics`. Thread-safe.

    Attributes:
        description: of the intrinsics used for the newest image; empty if they were not needed.
    """

    def __init__(self, load_calibrator: CalibratorLoader = load_anycalib) -> None:
        self.description = ""
        self._load_calibrator = load_calibrator
        self._calibrator: Calibrator | None = None
        self._cameras: dict[tuple[str, int, int], list[PinholeCamera]] = {}
        self._lock = threading.Lock()

    def clear(self) -> None:
        """Forget all cameras, and release the calibrator."""
        self.description = ""
        self._calibrator = None
        self._cameras = {}

    def lens(
        self, parameters: CameraModelParameters, image: NDArray[np.uint8], frame_id: str
    ) -> LensCamera | None:
        """Return the lens of a camera without calibration.

        Args:
            parameters: of the node; `fallback_intrinsics` must not be none.
            image: RGB, shape (height, width, 3), uint8.
            frame_id: of the camera that took it.

        Returns:
            None while AnyCalib has not seen enough images of this camera.

        Raises:
            EngineError: if AnyCalib cannot be loaded.
            GeometryError: if the calibration file is for images of another size, or AnyCalib finds
                no camera in the image.
        """
        height, width = image.shape[:2]
        kind = parameters.fallback_intrinsics
        if kind == "file":
            lens = _file_lens(
                parameters.fallback_file, width, height, parameters.image_is_rectified
            )
            source = f"file {parameters.fallback_file}"
        elif kind == "hfov":
            camera = PinholeCamera.from_hfov(width, height, parameters.fallback_hfov)
            lens, source = _pinhole_lens(camera), f"hfov {parameters.fallback_hfov:g} degrees"
        else:
            cameras = self._estimated(parameters, image, (frame_id, width, height))
            if len(cameras) < CALIBRATION_IMAGES:
                self.description = (
                    f"fallback_intrinsics: anycalib has looked at {len(cameras)} of "
                    f"{CALIBRATION_IMAGES} images"
                )
                return None
            lens, source = _pinhole_lens(_median(cameras)), f"anycalib, {len(cameras)} images"
        self.description = (
            f"fallback_intrinsics ({source}; f = {lens.rectified.fx:.0f} px) are used: depths are "
            "wrong by about as much as f"
        )
        return lens

    def _estimated(
        self,
        parameters: CameraModelParameters,
        image: NDArray[np.uint8],
        camera: tuple[str, int, int],
    ) -> list[PinholeCamera]:
        """The estimates of a camera, with one more from this image until there are enough."""
        with self._lock:
            cameras = self._cameras.setdefault(camera, [])
            if len(cameras) < CALIBRATION_IMAGES:
                calibrator = self._calibrator or self._load_calibrator(
                    parameters.device, parameters.offline
                )
                self._calibrator = calibrator
                cameras.append(calibrator(image))
                if len(cameras) == CALIBRATION_IMAGES:
                    self._calibrator = None  # it takes 1.3 GB
            return cameras


def _median(cameras: list[PinholeCamera]) -> PinholeCamera:
    """Median of each intrinsic over cameras of one image size."""
    width, height = cameras[0].width, cameras[0].height
    values = (median(getattr(c, name) for c in cameras) for name in ("fx", "fy", "cx", "cy"))
    return PinholeCamera(width, height, *values)


def _file_lens(path: str, width: int, height: int, is_rectified: bool) -> LensCamera:
    try:
        state = Path(split_camera(path)[0]).stat()
    except OSError as error:
        raise GeometryError(f"{path}: {error.strerror}") from None
    lens = _load_camera(path, is_rectified, (state.st_mtime_ns, state.st_size, state.st_ino))
    if (lens.width, lens.height) != (width, height):
        raise GeometryError(
            f"{path}: is for images of {lens.width}x{lens.height}, not {width}x{height}"
        )
    return lens


@functools.lru_cache(maxsize=1)
def _load_camera(path: str, is_rectified: bool, state: tuple[int, ...]) -> LensCamera:
    """Read a calibration file once for each `state` of it: a user may correct the file."""
    return load_calibration(path, is_rectified)


@functools.lru_cache(maxsize=1)
def _pinhole_lens(camera: PinholeCamera) -> LensCamera:
    return lens_from_calibration(
        camera.width, camera.height, camera.K, [], "none", np.eye(3), np.zeros((3, 4))
    )
