# SPDX-License-Identifier: Apache-2.0
"""The warm-up of the vision half teaches the same depths as the questions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vlm3_lab.scenes import sample_view
from vlm3_lab.training.samples import ModelInput, mirrored
from vlm3_lab.training.tasks.depth import depth_pairs
from vlm3_lab.training.warmups.dense_depth import CELLS, DenseHead, cell_depth
from vlm3_ros.datasets.views import View
from vlm3_ros.engines.base import Profile
from vlm3_ros.geometry.camera import ImageLimits, PinholeCamera, unify_focal
from vlm3_ros.language.prompts import load_prompt_set
from vlm3_ros.language.wordings.depth import DepthWording, parse_depth

LIMITS = ImageLimits(multiple=32, min_pixels=1024, max_pixels=2**24)


@pytest.mark.parametrize("fit", ["pad", "scale"])
@pytest.mark.parametrize("kind", ["room", "street"])
def test_cells_hold_the_depths_of_the_answers(kind, fit):
    view = sample_view(np.random.default_rng(5), kind)
    profile = Profile(128.0, fit, load_prompt_set("vlm3"))
    unified = unify_focal(view.camera, profile.focal, LIMITS, fit)
    cell = 32 // CELLS
    depth = cell_depth(view, unified, cell)
    assert depth.shape == (unified.view.height // cell, unified.view.width // cell)

    rows, columns = np.nonzero(np.isfinite(depth))
    centres = np.stack([columns, rows], -1) * cell + (cell - 1) / 2
    pixels = np.round(unified.to_source(centres))[:300]
    model = ModelInput(None, profile, LIMITS)
    _, pairs = depth_pairs(view, pixels, model)
    asked = [parse_depth(answer, profile.prompts[DepthWording]) for _, answer in pairs]
    # Half a unit of the last decimal of an answer.
    assert np.abs(depth[rows, columns][:300] - asked).max() <= 0.0051


def test_padding_and_sky_have_no_depth():
    camera = PinholeCamera(100, 60, 128.0, 128.0, 49.5, 29.5)
    depth = np.full((60, 100), 3.0, np.float32)
    depth[:20] = np.inf
    view = View(np.zeros((60, 100, 3), np.uint8), depth, camera, np.eye(4), "room", ())
    unified = unify_focal(camera, 128.0, LIMITS, "pad")
    assert (unified.view.width, unified.view.height) == (128, 64)
    cells = cell_depth(view, unified, 4)
    known = np.isfinite(cells)
    assert known[5:15, :25].all() and not known[:5].any()
    assert not known[15:].any() and not known[:, 25:].any()
    assert np.unique(cells[known]) == pytest.approx(3.0)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_points_of_a_mirrored_view_are_the_mirrored_points(seed):
    rng = np.random.default_rng(seed)
    view = sample_view(rng)
    mirror = mirrored(view)
    rows = rng.integers(0, view.camera.height, 50)
    columns = rng.integers(0, view.camera.width, 50)
    there = view.camera.width - 1 - columns
    depth = np.nan_to_num(view.depth[rows, columns], posinf=1.0)
    points = view.camera.unproject(np.stack([columns, rows], -1), depth)
    reflected = mirror.camera.unproject(np.stack([there, rows], -1), depth)
    assert np.array_equal(mirror.depth[rows, there], view.depth[rows, columns])
    assert np.array_equal(mirror.image[rows, there], view.image[rows, columns])
    assert np.allclose(reflected, points * (-1, 1, 1))
    assert mirrored(mirror).camera.cx == pytest.approx(view.camera.cx)


def test_unknown_cells_carry_no_loss():
    class Visual(torch.nn.Module):
        def forward(self, pixel_values, grid_thw):
            return type("Output", (), {"pooler_output": pixel_values})

    torch.manual_seed(0)
    head = DenseHead(Visual(), 6)
    torch.nn.init.normal_(head.read.weight)
    features, grid = torch.randn(3, 6), torch.tensor([[1, 2, 6]])
    log_depth, places = torch.randn(3, CELLS**2), torch.zeros(3, 12)
    read = head.read(features)
    log_depth[:, 1:] = torch.nan
    log_depth[0, 0] = torch.nan
    expected = (read[1:, 0] - log_depth[1:, 0]).abs().mean()
    expected = expected + 0.2 * read[:, CELLS**2 :].square().mean()
    loss = head(features, grid, log_depth, places)["loss"]
    assert torch.allclose(loss, expected)
    log_depth[:] = torch.nan
    assert torch.isfinite(head(features, grid, log_depth, places)["loss"])
