# SPDX-License-Identifier: Apache-2.0
"""What stands in for the calibration of a camera that has none (`fallback_intrinsics`)."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from statistics import median

import numpy as np
from numpy.typing import NDArray

from vlm3_ros.engines.anycalib import Calibrator, load_anycalib
from vlm3_ros.geometry.camera import GeometryError, PinholeCamera
from vlm3_ros.geometry.lens import LensCamera, lens_from_calibration, load_camera_yaml
from vlm3_ros.ros.node_parameters import CameraModelParameters

CALIBRATION_IMAGES = 5
"""From how many images of a camera AnyCalib's median is taken. A camera's intrinsics are constant:
taken anew from every image, the scale of its depths would waver."""

CalibratorLoader = Callable[[str, bool], Calibrator]
"""Makes a calibrator for a device; the second argument says whether to stay offline."""


class FallbackIntrinsics:
    """The lens that `fallback_intrinsics` stands for, and what is to be said of it.

    Safe between threads.

    Attributes:
        words: what was used for the newest image, for people; empty if nothing was.
    """

    def __init__(self, load_calibrator: CalibratorLoader = load_anycalib) -> None:
        self.words = ""
        self._load_calibrator = load_calibrator
        self._calibrator: Calibrator | None = None
        self._found: dict[tuple[str, int, int], list[PinholeCamera]] = {}
        self._look_lock = threading.Lock()

    def clear(self) -> None:
        """Forget cameras, and the calibrator."""
        self.words = ""
        self._calibrator = None
        self._found = {}

    def lens(
        self, parameters: CameraModelParameters, image: NDArray[np.uint8], frame_id: str
    ) -> LensCamera | None:
        """The lens of a camera without calibration; `fallback_intrinsics` must not be none.

        Args:
            image: RGB, shape (height, width, 3), uint8.
            frame_id: of the camera that took it.

        Returns:
            None while AnyCalib has not seen enough images of this camera.

        Raises:
            EngineError: when AnyCalib cannot be loaded.
            GeometryError: when the calibration file is for images of another size, or AnyCalib
                finds no camera in the image.
        """
        height, width = image.shape[:2]
        kind = parameters.fallback_intrinsics
        if kind == "file":
            lens = _file_lens(parameters.fallback_file, width, height)
            told = f"file {parameters.fallback_file}"
        elif kind == "hfov":
            camera = PinholeCamera.from_hfov(width, height, parameters.fallback_hfov)
            lens, told = _pinhole_lens(camera), f"hfov {parameters.fallback_hfov:g} degrees"
        else:
            found = self._look(parameters, image, (frame_id, width, height))
            if len(found) < CALIBRATION_IMAGES:
                self.words = (
                    f"fallback_intrinsics: anycalib has looked at {len(found)} of "
                    f"{CALIBRATION_IMAGES} images"
                )
                return None
            lens, told = _pinhole_lens(_median(found)), f"anycalib, {len(found)} images"
        self.words = (
            f"fallback_intrinsics ({told}; f = {lens.rectified.fx:.0f} px) are used: depths are "
            "wrong by about as much as f"
        )
        return lens

    def _look(
        self,
        parameters: CameraModelParameters,
        image: NDArray[np.uint8],
        camera: tuple[str, int, int],
    ) -> list[PinholeCamera]:
        with self._look_lock:
            found = self._found.setdefault(camera, [])
            if len(found) < CALIBRATION_IMAGES:
                calibrator = self._calibrator or self._load_calibrator(
                    parameters.device, parameters.offline
                )
                self._calibrator = calibrator
                found.append(calibrator(image))
                if len(found) == CALIBRATION_IMAGES:  # it takes 1.3 GB
                    self._calibrator = None
            return found


def _median(cameras: list[PinholeCamera]) -> PinholeCamera:
    """Of one image size: the median of each value."""
    width, height = cameras[0].width, cameras[0].height
    values = (median(getattr(c, name) for c in cameras) for name in ("fx", "fy", "cx", "cy"))
    return PinholeCamera(width, height, *values)


def _file_lens(path: str, width: int, height: int) -> LensCamera:
    lens = _load_camera(path)
    if (lens.width, lens.height) != (width, height):
        raise GeometryError(
            f"{path}: is for images of {lens.width}x{lens.height}, not {width}x{height}"
        )
    return lens


_load_camera = functools.lru_cache(maxsize=1)(load_camera_yaml)


@functools.lru_cache(maxsize=1)
def _pinhole_lens(camera: PinholeCamera) -> LensCamera:
    return lens_from_calibration(
        camera.width, camera.height, camera.K, [], "none", np.eye(3), np.zeros((3, 4))
    )
