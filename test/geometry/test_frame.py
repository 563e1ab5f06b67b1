# SPDX-License-Identifier: Apache-2.0
"""The step from an image and its calibration to a rectified frame."""

from __future__ import annotations

import numpy as np
import pytest

from vlm3_ros.geometry.frame import rectified_frame
from vlm3_ros.geometry.lens import LensCamera, lens_from_calibration

IMAGE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)


def lens(D: list[float], focal: float = 30.0, is_rectified: bool = False) -> LensCamera:
    K = [60.0, 0, 31.5, 0, 60.0, 23.5, 0, 0, 1]
    P = [focal, 0, 31.5, 0, 0, focal, 23.5, 0, 0, 0, 1, 0]
    return lens_from_calibration(64, 48, K, D, "plumb_bob", np.eye(3), P, is_rectified=is_rectified)


def test_a_distorted_image_is_rectified_and_its_black_border_is_marked():
    camera = lens([-0.2, 0.05, 0, 0, 0])
    frame = rectified_frame(IMAGE, camera)
    np.testing.assert_array_equal(frame.image, camera.rectify(IMAGE))
    np.testing.assert_array_equal(frame.visible, camera.rectified_mask())
    assert 0 < frame.visible.sum() < frame.visible.size
    assert frame.camera == camera.rectified and frame.camera.fx == 30.0
    assert frame.lens is camera


@pytest.mark.parametrize(
    "camera",
    [lens([-0.2, 0.05, 0, 0, 0], is_rectified=True), lens([0.0] * 5, focal=60.0)],
)
def test_an_image_without_distortion_is_taken_as_it_is(camera: LensCamera):
    frame = rectified_frame(IMAGE, camera)
    assert frame.image is IMAGE
    assert frame.visible.shape == (48, 64) and frame.visible.all()
    assert frame.camera == camera.rectified
    assert frame.lens is None
