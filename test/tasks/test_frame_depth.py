# SPDX-License-Identifier: Apache-2.0
"""The depth of a frame: pixels, filters, counts, and the images built from the answers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from vlm3_ros.engines.base import Answer, Profile
from vlm3_ros.geometry.camera import ImageLimits, PinholeCamera
from vlm3_ros.geometry.frame import RectifiedFrame
from vlm3_ros.language.prompts import load_prompt_set
from vlm3_ros.language.wordings.depth import DepthWording, depth_answer
from vlm3_ros.tasks.dense import densify
from vlm3_ros.tasks.depth import DepthLimits, uniform_grid
from vlm3_ros.tasks.frame_depth import (
    FrameDepthSettings,
    UnknownUncertaintyError,
    ask_frame_depth,
    dense_depth,
)
from vlm3_ros.tasks.sampling import adaptive_pixels

CAMERA = PinholeCamera(320, 256, 300.0, 300.0, 150.0, 130.0)
PROMPTS = load_prompt_set("vlm3")


@dataclass
class SlopeEngine:
    """Sees a wall that is 1 m away at the left border and 3 m at the right one."""

    stds: Sequence[float | None] = (0.25,)
    unread: int = 0
    name: str = "slope"
    profile: Profile = field(default_factory=lambda: Profile(CAMERA.fx, "scale", PROMPTS))
    limits: ImageLimits = field(default_factory=lambda: ImageLimits(32, 1024, 2**24))
    shapes: list[tuple[int, ...]] = field(default_factory=list)

    def ask(
        self,
        images: Sequence[np.ndarray],
        questions: Sequence[str],
        answer_template: str | None = None,
    ) -> list[Answer]:
        self.shapes.append(images[0].shape)
        answers = []
        for i, question in enumerate(questions):
            x = int(re.search(r"\((\d+), \d+\)", question).group(1))
            text = (
                depth_answer(PROMPTS[DepthWording], slope(x)) if i >= self.unread else "over there"
            )
            answers.append(Answer(text, std=self.stds[i % len(self.stds)]))
        return answers


def slope(text_x: float) -> float:
    """Metres at a text coordinate, with the two decimals of an answer."""
    return round(1 + text_x / 1000, 2)


def slope_at(pixels: np.ndarray) -> np.ndarray:
    text_x = np.floor((pixels[:, 0] + 0.5) / CAMERA.width * 2000)
    return np.array([slope(x) for x in text_x], np.float32)


def frame(visible: np.ndarray | None = None) -> RectifiedFrame:
    coarse = np.random.default_rng(1).integers(0, 256, (8, 10, 3), np.uint8)
    image = coarse.repeat(32, 0).repeat(32, 1)
    if visible is None:
        visible = np.ones(image.shape[:2], bool)
    return RectifiedFrame(image=image, camera=CAMERA, visible=visible)


def test_a_uniform_grid_comes_out_as_cloud_grid_and_dense_image():
    result = ask_frame_depth(SlopeEngine(), frame(), FrameDepthSettings(5, 4))
    pixels = uniform_grid(CAMERA, 5, 4)
    np.testing.assert_array_equal(result.pixels, pixels)
    np.testing.assert_allclose(result.depth, slope_at(pixels), rtol=1e-6)
    np.testing.assert_allclose(result.std, 0.25)
    np.testing.assert_array_equal(result.grid, result.depth.reshape(4, 5))
    np.testing.assert_allclose(result.points, CAMERA.unproject(pixels, result.depth))
    u, v = np.rint(pixels).astype(int).T
    np.testing.assert_array_equal(result.colours, frame().image[v, u])
    np.testing.assert_array_equal(result.dense, densify(frame().image, pixels, result.depth))
    assert result.counts == {
        "published": 20,
        "out of range": 0,
        "too uncertain": 0,
        "unanswered": 0,
    }
    assert result.unread == []


def test_adaptive_pixels_give_a_grid_out_of_the_dense_image():
    settings = FrameDepthSettings(8, 6, "adaptive", limits=DepthLimits(max_depth=2.5))
    result = ask_frame_depth(SlopeEngine(), frame(), settings)
    np.testing.assert_array_equal(result.pixels, adaptive_pixels(frame().image, 48))
    u, v = np.rint(uniform_grid(CAMERA, 8, 6)).astype(int).T
    np.testing.assert_array_equal(result.grid, result.dense[v, u].reshape(6, 8))
    assert np.nanmax(result.dense) <= 2.5
    assert result.counts["out of range"] > 0


@pytest.mark.parametrize("choice", ["uniform", "adaptive"])
def test_black_borders_are_not_asked_and_have_no_depth(choice):
    visible = np.ones((256, 320), bool)
    visible[:, :150] = False
    result = ask_frame_depth(SlopeEngine(), frame(visible), FrameDepthSettings(8, 6, choice))
    shown = result.pixels[:, 0] >= 150
    assert len(result.answers.texts) == shown.sum() == sum(result.counts.values())
    np.testing.assert_array_equal(np.isfinite(result.depth), shown)
    np.testing.assert_array_equal(np.isfinite(result.std), shown)
    assert np.isnan(result.dense[:, :150]).all()
    assert np.isfinite(result.dense[:, 160:]).any()


def test_each_answer_is_counted_once():
    engine = SlopeEngine(stds=(0.1, 0.9), unread=3)
    limits = DepthLimits(min_depth=1.5, max_uncertainty=0.2)
    result = ask_frame_depth(engine, frame(), FrameDepthSettings(5, 4, limits=limits))
    depth, std = slope_at(result.pixels), np.tile([0.1, 0.9], 10)
    depth[:3] = np.nan
    kept = (depth >= 1.5) & (std <= 0.2 * depth)
    np.testing.assert_allclose(result.depth, np.where(kept, depth, np.nan), rtol=1e-6)
    assert result.counts == {
        "published": kept.sum(),
        "out of range": (depth < 1.5).sum(),
        "too uncertain": ((depth >= 1.5) & ~kept).sum(),
        "unanswered": 3,
    }
    assert result.unread == ["over there"] * 3


def test_a_filter_that_no_answer_can_pass_is_an_error():
    settings = FrameDepthSettings(5, 4, limits=DepthLimits(max_uncertainty=0.2))
    with pytest.raises(UnknownUncertaintyError, match=r"max_uncertainty is 0\.2, but no answer"):
        ask_frame_depth(SlopeEngine(stds=(None,)), frame(), settings)
    nothing = ask_frame_depth(SlopeEngine(unread=20, stds=(None,)), frame(), settings)
    assert nothing.counts["unanswered"] == 20


def test_the_image_enters_at_the_wanted_focal_length():
    engine = SlopeEngine()
    for focal in (None, 150.0):
        ask_frame_depth(engine, frame(), FrameDepthSettings(2, 2, view_focal=focal))
    assert engine.shapes == [(256, 320, 3), (128, 160, 3)]


def test_dense_depth_without_limits_covers_the_visible_frame():
    visible = np.ones((256, 320), bool)
    visible[:100] = False
    shown = frame(visible)
    pixels = uniform_grid(CAMERA, 8, 6)
    depth = slope_at(pixels)
    dense = dense_depth(shown, pixels, depth)
    asked = visible[np.rint(pixels[:, 1]).astype(int), 0]
    expected = densify(shown.image, pixels[asked], depth[asked])
    expected[:100] = np.nan
    np.testing.assert_array_equal(dense, expected)


def test_sky_is_not_asked_if_it_is_withheld():
    engine, shown = SlopeEngine(), frame()
    shown.image[:120] = (120, 160, 220)
    settings = FrameDepthSettings(5, 4, withhold_sky=True)
    result = ask_frame_depth(engine, shown, settings)
    np.testing.assert_array_equal(np.isnan(result.depth), np.arange(20) < 10)
    assert result.counts["sky"] == 10 and result.counts["published"] == 10
    assert len(result.answers.texts) == 10
    assert np.isnan(result.dense[:114]).all() and np.isfinite(result.dense[126:]).mean() > 0.9
    assert "sky" not in ask_frame_depth(engine, shown, FrameDepthSettings(5, 4)).counts
    adaptive = FrameDepthSettings(5, 4, pixel_choice="adaptive", withhold_sky=True)
    assert ask_frame_depth(engine, shown, adaptive).pixels[:, 1].min() > 114
    shown.visible[120:] = False
    nothing = ask_frame_depth(engine, shown, settings)
    assert np.isnan(nothing.depth).all() and np.isnan(nothing.dense).all()
