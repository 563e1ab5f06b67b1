# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, shift

from vlm3_ros.geometry.flow import image_flow


def picture(width: int = 320, height: int = 240, seed: int = 0) -> np.ndarray:
    """Blobs of a few pixels."""
    noise = np.random.default_rng(seed).normal(0, 1, (height, width))
    blobs = gaussian_filter(noise, 3)
    grey = 128 + 100 * blobs / np.abs(blobs).max()
    return np.repeat(grey[..., None], 3, axis=-1)


def as_image(picture: np.ndarray, noise: float = 0.0, seed: int = 1) -> np.ndarray:
    noisy = picture + np.random.default_rng(seed).normal(0, 1, picture.shape) * noise
    return np.rint(noisy).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("moved", [(0.0, 0.0), (0.5, 0.0), (3.0, -2.0)])
@pytest.mark.parametrize("width", [320, 160])
def test_a_shift_is_seen_in_pixels(moved, width):
    first = picture(width)
    second = shift(first, (*moved, 0), order=3, mode="nearest")
    flow = image_flow(as_image(first), as_image(second))
    assert len(flow) > 50
    assert np.median(flow) == pytest.approx(np.hypot(*moved), abs=0.05)


def test_large_images_are_shrunk():
    first = picture(640, 480)
    flow = image_flow(as_image(first), as_image(np.roll(first, 4, axis=1)))
    assert np.median(flow) == pytest.approx(2.0, abs=0.1)


def test_noise_alone_moves_little():
    first = picture()
    flow = image_flow(as_image(first, 4, seed=1), as_image(first, 4, seed=2))
    assert np.mean(flow < 0.25) > 0.9


def test_an_image_without_corners_has_no_flow():
    blank = np.full((240, 320, 3), 90, np.uint8)
    assert image_flow(blank, as_image(picture())) is None


def test_a_covered_lens_is_not_a_standstill():
    blank = np.full((240, 320, 3), 90, np.uint8)
    assert np.mean(image_flow(as_image(picture()), blank) > 5) > 0.9


def test_the_border_of_the_visible_part_is_ignored():
    """The content of a rectified image moves, its black corners do not."""
    visible = np.zeros((240, 320), bool)
    visible[60:180, 80:240] = True
    first, second = picture(), np.roll(picture(), 3, axis=1)
    for image in (first, second):
        image[~visible] = 0
    whole = image_flow(as_image(first), as_image(second))
    inside = image_flow(as_image(first), as_image(second), visible)
    assert np.percentile(inside, 20) > 2.5
    assert np.percentile(whole, 20) < 1


def test_corners_that_leave_the_image_have_moved():
    """Everything but the robot's own bumper turns away: not a standstill."""
    first = picture()
    first[:, 40:] = 90
    second = np.full_like(first, 90)
    bumper = np.zeros((240, 320), bool)
    bumper[200:, 60:] = True
    for image in (first, second):
        image[bumper] = picture(seed=1)[bumper]
    flow = image_flow(as_image(first), as_image(second))
    assert 0.1 < np.mean(flow < 0.25) < 0.9
