# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from vlm3_ros.geometry.camera import GeometryError, PinholeCamera
from vlm3_ros.ros.fallback import CALIBRATION_IMAGES, FallbackIntrinsics
from vlm3_ros.ros.node_parameters import CameraModelParameters

IMAGE = np.zeros((240, 320, 3), np.uint8)


@pytest.fixture
def anycalib(monkeypatch) -> CameraModelParameters:
    """Parameters with AnyCalib, as if it was installed."""
    monkeypatch.setattr("vlm3_ros.engines.anycalib.is_installed", lambda: True)
    return CameraModelParameters(fallback_intrinsics="anycalib")


def camera(focal: float, width: int = 320) -> PinholeCamera:
    return PinholeCamera(width, 240, focal, focal, 150 + focal / 10, 120.0)


def test_a_field_of_view_is_reported_with_its_focal_length():
    fallback = FallbackIntrinsics()
    parameters = CameraModelParameters(fallback_intrinsics="hfov", fallback_hfov=90.0)
    assert fallback.lens(parameters, IMAGE, "camera").rectified.fx == pytest.approx(160)
    assert "(hfov 90 degrees; f = 160 px) are used" in fallback.description
    fallback.clear()
    assert fallback.description == ""


def test_a_camera_keeps_the_median_of_its_first_images(anycalib):
    focals = [300.0, 900.0, 310.0, 290.0, 305.0, 1.0]
    fallback = FallbackIntrinsics(lambda device, offline: lambda image: camera(focals.pop(0)))
    for seen in range(1, CALIBRATION_IMAGES):
        assert fallback.lens(anycalib, IMAGE, "front") is None
        assert f"{seen} of {CALIBRATION_IMAGES} images" in fallback.description
    for _ in range(3):
        found = fallback.lens(anycalib, IMAGE, "front").rectified
        assert (found.fx, found.fy, found.cx) == (305, 305, 180.5)
    assert "anycalib, 5 images; f = 305 px" in fallback.description
    assert focals == [1.0]


def test_each_camera_and_size_has_its_own(anycalib):
    def calibrator(image: np.ndarray) -> PinholeCamera:
        return camera(float(image.shape[1]), image.shape[1])

    fallback = FallbackIntrinsics(lambda device, offline: calibrator)
    for image, frame in ((IMAGE, "front"), (IMAGE[:, :100], "front"), (IMAGE, "back")):
        found = [fallback.lens(anycalib, image, frame) for _ in range(CALIBRATION_IMAGES)]
        assert found[:-1] == [None] * (CALIBRATION_IMAGES - 1)
        assert found[-1].rectified.fx == image.shape[1]


def test_an_image_without_a_camera_is_not_counted(anycalib):
    answers = [GeometryError("no camera"), *[camera(300.0)] * CALIBRATION_IMAGES]

    def calibrator(image: np.ndarray) -> PinholeCamera:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    fallback = FallbackIntrinsics(lambda device, offline: calibrator)
    with pytest.raises(GeometryError, match="no camera"):
        fallback.lens(anycalib, IMAGE, "front")
    found = [fallback.lens(anycalib, IMAGE, "front") for _ in range(CALIBRATION_IMAGES)]
    assert found[-1].rectified.fx == 300
    assert not answers


class Calibrator:
    """Fails if two threads use it at once."""

    def __init__(self) -> None:
        self.busy = threading.Lock()

    def __call__(self, image: np.ndarray) -> PinholeCamera:
        assert self.busy.acquire(blocking=False), "two threads at once"
        threading.Event().wait(0.01)
        self.busy.release()
        return camera(300.0)


def test_threads_share_a_calibrator_that_is_released_when_done(anycalib):
    loaded: list[weakref.ref] = []

    def load(device: str, offline: bool) -> Calibrator:
        calibrator = Calibrator()
        loaded.append(weakref.ref(calibrator))
        return calibrator

    fallback = FallbackIntrinsics(load)
    with ThreadPoolExecutor(4) as pool:
        asked = [
            pool.submit(fallback.lens, anycalib, IMAGE, "front")
            for _ in range(2 * CALIBRATION_IMAGES)
        ]
        found = [future.result() for future in asked]
    assert found[-1].rectified.fx == 300
    assert "anycalib, 5 images; f = 300 px" in fallback.description
    assert [calibrator() for calibrator in loaded] == [None]


CALIBRATION = """\
image_width: 320
image_height: 240
camera_matrix: {{rows: 3, cols: 3, data: [{focal}, 0, 160, 0, {focal}, 120, 0, 0, 1]}}
distortion_coefficients: {{rows: 1, cols: 5, data: [{D}, 0, 0, 0, 0]}}
projection_matrix: {{rows: 3, cols: 4, data: [300, 0, 160, 0, 0, 300, 120, 0, 0, 0, 1, 0]}}
"""


def test_a_corrected_calibration_file_is_read_again(tmp_path):
    path = tmp_path / "camera.yaml"
    path.write_text(CALIBRATION.format(focal=200, D=0.1))
    parameters = CameraModelParameters(fallback_intrinsics="file", fallback_file=str(path))
    fallback = FallbackIntrinsics()
    assert fallback.lens(parameters, IMAGE, "front").K[0, 0] == 200
    path.write_text(CALIBRATION.format(focal=250, D=0.1))
    assert fallback.lens(parameters, IMAGE, "front").K[0, 0] == 250
    path.write_text(CALIBRATION.format(focal=1, D=0.1))
    with pytest.raises(GeometryError, match=r"camera\.yaml: K: focal lengths of 1 and 1 px"):
        fallback.lens(parameters, IMAGE, "front")
    path.unlink()
    with pytest.raises(GeometryError, match=r"camera\.yaml: No such file"):
        fallback.lens(parameters, IMAGE, "front")


def test_the_file_of_a_rectified_camera_is_its_p(tmp_path):
    path = tmp_path / "camera.yaml"
    path.write_text(CALIBRATION.format(focal=200, D=0.1))
    parameters = CameraModelParameters(
        fallback_intrinsics="file", fallback_file=str(path), image_is_rectified=True
    )
    lens = FallbackIntrinsics().lens(parameters, IMAGE, "front")
    assert lens.is_pinhole
    assert lens.rectified.fx == 300


def test_one_camera_of_a_camchain_is_the_fallback(tmp_path):
    path = tmp_path / "camchain.yaml"
    path.write_text(
        "cam0: {camera_model: pinhole, intrinsics: [200, 200, 160, 120], resolution: [320, 240]}\n"
        "cam1: {camera_model: pinhole, intrinsics: [250, 250, 160, 120], resolution: [320, 240]}\n"
    )
    parameters = CameraModelParameters(fallback_intrinsics="file", fallback_file=f"{path}:cam1")
    assert FallbackIntrinsics().lens(parameters, IMAGE, "front").rectified.fx == 250
