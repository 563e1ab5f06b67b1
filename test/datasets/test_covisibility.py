# SPDX-License-Identifier: Apache-2.0
"""Matches of a few pixels fill holes in depth as those of many pixels do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlm3_ros.datasets import covisibility
from vlm3_ros.datasets.views import View, ViewPair
from vlm3_ros.geometry.camera import PinholeCamera

CAMERA = PinholeCamera(60, 45, 50.0, 50.0, 29.5, 22.0)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1), st.floats(0.01, 0.3))
def test_few_and_many(seed: int, known: float, reach: float) -> None:
    rng = np.random.default_rng(seed)
    depth = np.full((45, 60), 2.0, np.float32)
    depth[rng.random(depth.shape) > known] = np.nan
    depth[: rng.integers(45), : rng.integers(60)] = rng.choice([np.nan, np.inf])
    view = View(np.zeros((45, 60, 3), np.uint8), depth, CAMERA, np.eye(4), "")
    whole = View(view.image, np.full_like(depth, 2.0), CAMERA, np.eye(4), "")
    pair, pixels = ViewPair(whole, view), CAMERA.pixel_grid().reshape(-1, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(covisibility, "HOLE", reach)
        few = np.concatenate([pair.matches(part) for part in np.array_split(pixels, 9)])
        patch.setattr(covisibility, "_FEW", 0)
        many = pair.matches(pixels)
    assert np.array_equal(few, many, equal_nan=True)


def test_a_hole_takes_the_depth_of_its_nearest_pixel() -> None:
    depth = np.full((45, 60), np.nan, np.float32)
    depth[20, 30], depth[20, 33] = 2.0, 5.0
    columns = np.arange(28, 36)
    near = covisibility._filled_at(depth, columns, np.full(8, 20))
    expected = [np.nan, 2, 2, 2, 5, 5, 5, np.nan]
    assert np.array_equal(near, expected, equal_nan=True)
