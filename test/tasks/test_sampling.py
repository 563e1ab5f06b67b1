# SPDX-License-Identifier: Apache-2.0
"""Adaptive pixels: the wanted number, everywhere, and more of them near edges."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from vlm3_lab.scenes import KINDS, sample_view
from vlm3_ros.evaluation.metrics.depth import abs_rel
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.tasks.dense import densify
from vlm3_ros.tasks.depth import uniform_grid
from vlm3_ros.tasks.sampling import WORK_WIDTH, adaptive_pixels, cell_extents


def wall(width=320, height=240):
    return np.full((height, width, 3), (180, 170, 150), np.uint8)


@settings(max_examples=15, deadline=None)
@given(
    width=st.integers(1, 400),
    height=st.integers(1, 400),
    count=st.integers(1, 250),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_wanted_number_of_whole_pixels(width, height, count, seed):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 9 + 1, width // 9 + 1, 3))
    image = np.kron(coarse, np.ones((9, 9, 1)))[:height, :width].astype(np.uint8)
    pixels = adaptive_pixels(image, count)
    assert pixels.shape == (count, 2)
    np.testing.assert_array_equal(pixels, np.rint(pixels))
    assert (pixels >= 0).all() and (pixels < (width, height)).all()
    np.testing.assert_array_equal(pixels, adaptive_pixels(image, count))
    if count * 20 <= min(width, 128) * min(height, height * 128 / width):
        assert len(np.unique(pixels, axis=0)) == count


def test_a_blank_wall_is_asked_evenly():
    pixels = adaptive_pixels(wall(), 192)
    everywhere = np.stack(np.meshgrid(np.arange(320), np.arange(240)), -1).reshape(-1, 2)
    distance, nearest = cKDTree(pixels).query(everywhere)
    assert distance.max() < 1.5 * 20  # the side of a cell of 16 x 12
    assert np.bincount(nearest, minlength=192).max() < 3 * 20 * 20


def test_a_small_object_between_the_cells_of_a_grid_is_asked_about():
    image = wall()
    image[84:96, 44:56] = (40, 60, 160)  # 12 px wide, at a corner of four cells of 20 px

    def on_it(pixels):
        u, v = pixels.T
        return ((u >= 44) & (u < 56) & (v >= 84) & (v < 96)).sum()

    camera = sample_view(np.random.default_rng(0)).camera.resized(320, 240)
    assert on_it(uniform_grid(camera, 8, 6)) == 0
    assert on_it(adaptive_pixels(image, 48)) >= 1


def test_more_questions_near_edges():
    image = wall()
    blocks = np.random.default_rng(1).integers(0, 256, (24, 16, 3))
    image[:, 160:] = np.kron(blocks, np.ones((10, 10, 1)))
    pixels = adaptive_pixels(image, 192)
    assert (pixels[:, 0] >= 160).sum() > 1.3 * (pixels[:, 0] < 160).sum()


def test_invisible_parts_of_the_image_are_not_asked():
    image = wall()
    image[:, :80] = 0
    visible = np.zeros((240, 320), bool)
    visible[:, 80:] = True
    pixels = adaptive_pixels(image, 100, visible).astype(int)
    assert visible[pixels[:, 1], pixels[:, 0]].all()
    assert len(np.unique(pixels, axis=0)) == 100


@pytest.mark.parametrize(
    "size", [(1241, 376), (500, 375), (641, 481), (752, 480), (1000, 700), (4000, 300)]
)
def test_a_fully_visible_image_is_asked_everywhere(size):
    image = wall(*size)
    everything = np.ones(size[::-1], bool)
    np.testing.assert_array_equal(
        adaptive_pixels(image, 48, everything), adaptive_pixels(image, 48)
    )


def test_an_invisible_image_is_still_asked():
    assert adaptive_pixels(wall(), 12, np.zeros((240, 320), bool)).shape == (12, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_adaptive_pixels_give_a_better_depth_image_than_a_grid(kind):
    errors = []
    for seed in range(4):
        view = sample_view(np.random.default_rng([7, seed]), kind)
        known, outcomes = np.isfinite(view.depth), []
        for pixels in (uniform_grid(view.camera, 16, 12), adaptive_pixels(view.image, 192)):
            u, v = np.rint(pixels).astype(int).T
            outcomes.append(densify(view.image, pixels, view.depth[v, u]))
        both = known & np.isfinite(outcomes).all(0)
        errors.append([abs_rel(outcome[both], view.depth[both]) for outcome in outcomes])
    uniform, adaptive = np.mean(errors, 0)
    assert adaptive < uniform


@pytest.mark.parametrize(("width", "height"), [(400, 300), (97, 130), (5, 4)])
def test_the_cells_of_a_grid_are_its_cells(width, height):
    camera = PinholeCamera.from_hfov(width, height, 60.0)
    pixels = uniform_grid(camera, 5, 4)
    left, right, up, down = cell_extents(width, height, pixels).T
    step = max(width, height) / WORK_WIDTH
    for across in (left, right):
        assert (across >= width / 10 - 1e-9).all() and (across <= width / 10 + 2 * step).all()
    for along in (up, down):
        assert (along >= height / 8 - 1e-9).all() and (along <= height / 8 + 2 * step).all()


def test_cells_cover_the_whole_width_and_stay_in_the_image():
    pixels = np.random.default_rng(2).uniform(-0.5, (399.5, 299.5), (30, 2))
    pixels[7] = pixels[8]
    left, right, up, down = cell_extents(400, 300, pixels).T
    u, v = pixels.T
    assert min((u - left).min(), (v - up).min()) == pytest.approx(-0.5)
    assert (u + right).max() == pytest.approx(399.5) and (v + down).max() == pytest.approx(299.5)
    covered = np.zeros(400, bool)
    for start, end in zip(u - left, u + right, strict=True):
        covered[max(0, math.ceil(start)) : math.floor(end) + 1] = True
    assert covered.all()
    assert min(left.min(), right.min(), up.min(), down.min()) >= 0
