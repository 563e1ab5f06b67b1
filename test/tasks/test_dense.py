# SPDX-License-Identifier: Apache-2.0
"""Dense depth: exact on planes, separate at edges, absent without support."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import LinearNDInterpolator

from vlm3_lab.scenes import sample_view
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.tasks.dense import MAX_DISTANCE, densify
from vlm3_ros.tasks.depth import uniform_grid

CAMERA = PinholeCamera.from_hfov(120, 90, 70)
VIEW = sample_view(np.random.default_rng(3), "room")
GREY = np.full((90, 120, 3), 128, np.uint8)
few_examples = settings(max_examples=8, deadline=None)
seeds = st.integers(0, 2**32 - 1)


def at(depth, pixels):
    u, v = np.rint(pixels).astype(int).T
    return depth[v, u]


def plane(tilt_u, tilt_v, distance=3.0):
    rays = CAMERA.rays(CAMERA.pixel_grid())
    return distance / (1 + rays[..., 0] * tilt_u + rays[..., 1] * tilt_v)


def texture(seed):
    """Edges of colour everywhere."""
    blocks = np.random.default_rng(seed).integers(0, 256, (18, 24, 3))
    return np.kron(blocks, np.ones((5, 5, 1))).astype(np.uint8)


def two_walls():
    """A near wall in front of a far one, in two colours, with the edge between asked pixels."""
    is_near = np.arange(120) < 56
    depth = np.broadcast_to(np.where(is_near, 1.0, 4.0), (90, 120))
    colours = np.where(is_near[:, None], (200, 60, 40), (60, 90, 160))
    return np.broadcast_to(colours, (90, 120, 3)).astype(np.uint8), depth


@few_examples
@given(distance=st.floats(0.05, 500), seed=seeds)
def test_one_depth_stays_one_depth(distance, seed):
    pixels = uniform_grid(CAMERA, 8, 6)
    dense = densify(texture(seed), pixels, np.full(48, distance))
    assert dense.dtype == np.float32 and dense.shape == (90, 120)
    np.testing.assert_allclose(dense, distance, rtol=1e-4)


@few_examples
@given(tilt_u=st.floats(-0.4, 0.4), tilt_v=st.floats(-0.4, 0.4), seed=seeds)
def test_a_painted_plane_stays_a_plane(tilt_u, tilt_v, seed):
    truth = plane(tilt_u, tilt_v)
    pixels = np.rint(uniform_grid(CAMERA, 8, 6))
    dense = densify(texture(seed), pixels, at(truth, pixels))
    assert np.isfinite(dense).all()
    inside = np.s_[8:82, 8:112]
    np.testing.assert_allclose(dense[inside], truth[inside], rtol=0.01)
    np.testing.assert_allclose(dense, truth, rtol=0.05)  # also beyond the outermost answers


def test_depth_jumps_at_an_edge_of_colour():
    image, truth = two_walls()
    pixels = np.rint(uniform_grid(CAMERA, 8, 6))
    dense = densify(image, pixels, at(truth, pixels))
    u, v = np.meshgrid(np.arange(120), np.arange(90))
    linear = 1 / LinearNDInterpolator(pixels, 1 / at(truth, pixels))(u, v)
    asked = np.isfinite(linear)
    error, linear_error = (np.abs(d - truth)[asked] / truth[asked] for d in (dense, linear))
    assert error.mean() < 0.2 * linear_error.mean()
    assert (error < 0.01).mean() > 0.98


@few_examples
@given(factor=st.floats(0.01, 100))
def test_scaled_depths_give_a_scaled_depth_image(factor):
    pixels = np.rint(uniform_grid(VIEW.camera, 8, 6))
    depth = at(VIEW.depth, pixels)
    dense = densify(VIEW.image, pixels, depth)
    np.testing.assert_allclose(
        densify(VIEW.image, pixels, depth * factor), dense * factor, rtol=1e-4
    )


@few_examples
@given(seed=seeds)
def test_the_order_of_answers_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    pixels = rng.uniform(0, (119, 89), (40, 2))  # four of a grid would lie on one circle
    depth = rng.uniform(1, 5, 40)
    order = rng.permutation(40)
    dense = densify(texture(seed), pixels, depth)
    np.testing.assert_allclose(
        densify(texture(seed), pixels[order], depth[order]), dense, rtol=1e-4
    )


def test_missing_answers_leave_no_depth():
    image, truth = two_walls()
    pixels = np.rint(uniform_grid(CAMERA, 8, 6))
    depth = at(truth, pixels).copy()
    depth[pixels[:, 0] > 56] = [np.nan, np.inf, -1.0, 0.0] * 6  # the far wall is out of range
    dense = densify(image, pixels, depth)
    assert np.isnan(dense[:, 58:]).all()
    np.testing.assert_allclose(dense[:, :54], 1, rtol=1e-3)


def test_one_missing_answer_leaves_a_small_hole():
    pixels = np.rint(uniform_grid(CAMERA, 8, 6))
    depth = np.full(48, 2.0)
    depth[20] = np.nan
    dense = densify(GREY, pixels, depth)
    column, row = pixels[20].astype(int)
    assert np.isnan(dense[row, column])
    assert 0.5 < np.isnan(dense).sum() / (15 * 15) < 1.5


def test_far_from_all_asked_pixels_there_is_no_depth():
    pixels = uniform_grid(CAMERA, 8, 6) / 2
    dense = densify(GREY, pixels, np.full(48, 2.0))
    reach = MAX_DISTANCE * 15
    u, v = np.meshgrid(np.arange(120), np.arange(90))
    away = np.hypot(np.maximum(u - pixels[-1, 0], 0), np.maximum(v - pixels[-1, 1], 0))
    assert np.isfinite(dense[away < reach - 2]).all()
    assert np.isnan(dense[away > reach + 2]).all()


@pytest.mark.parametrize("pixels", [[[0, 0], [9, 0]], [[0, 0], [5, 5], [9, 9]], np.empty((0, 2))])
def test_answers_that_span_no_area_give_no_depth(pixels):
    dense = densify(GREY[:11, :11], pixels, np.ones(len(pixels)))
    assert dense.shape == (11, 11) and np.isnan(dense).all()


@pytest.mark.parametrize("size", [(640, 480), (1280, 720), (333, 1001), (5, 4)])
def test_images_of_any_size(size):
    camera = PinholeCamera.from_hfov(*size, 70)
    image = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    pixels = uniform_grid(camera, 16, 12)
    dense = densify(image, pixels, 2 + pixels[:, 0] / size[0])
    assert dense.shape == (size[1], size[0]) and np.isfinite(dense).all()
    assert dense.min() > 1.5 and dense.max() < 3.5


def test_two_answers_at_one_pixel():
    pixels = np.concatenate([uniform_grid(CAMERA, 8, 6)] * 2)
    np.testing.assert_allclose(densify(GREY, pixels, np.full(96, 3.0)), 3, rtol=1e-4)


def test_large_images_need_little_extra_memory():
    image = np.full((1500, 2000, 3), 128, np.uint8)
    pixels = uniform_grid(PinholeCamera.from_hfov(2000, 1500, 70), 8, 6)
    tracemalloc.start()
    try:
        densify(image, pixels, np.full(48, 3.0))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6 * image.nbytes
