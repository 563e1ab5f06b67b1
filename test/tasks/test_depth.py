# SPDX-License-Identifier: Apache-2.0
"""Depth questions through geometry and language and back, with an engine that knows the truth."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlm3_ros.engines.base import Answer, Profile
from vlm3_ros.geometry.camera import ImageLimits, PinholeCamera
from vlm3_ros.language.prompts import load_prompt_set
from vlm3_ros.tasks.depth import DepthLimits, ask_depth, uniform_grid

PROMPTS = load_prompt_set("vlm3")


class OracleEngine:
    """Answers from a true depth image, like a model that assumes the unified focal length.

    It sees only the text coordinates and the size of the image.
    """

    name = "oracle"

    def __init__(
        self,
        profile: Profile,
        limits: ImageLimits,
        camera: PinholeCamera,
        depth_at,
        view_focal: float | None = None,
    ):
        self.profile, self.limits = profile, limits
        self._camera, self._depth_at = camera, depth_at
        self._view_focal = view_focal or profile.focal

    def ask(
        self,
        images: Sequence[np.ndarray],
        questions: Sequence[str],
        answer_template: str | None = None,
    ) -> list[Answer]:
        (image,) = images
        height, width = image.shape[:2]
        assert width % self.limits.multiple == 0 and height % self.limits.multiple == 0
        camera, profile = self._camera, self.profile
        sx, sy = width / camera.width, height / camera.height
        if profile.fit == "pad":
            # Content keeps the focal length at which it enters up to half a pixel.
            sx = round(camera.width * self._view_focal / camera.fx) / camera.width
            sy = round(camera.height * self._view_focal / camera.fy) / camera.height
        answers = []
        for question in questions:
            x, y = map(int, re.search(r"\((\d+), (\d+)\)", question).groups())
            u = ((x + 0.5) / 2000 * width) / sx - 0.5
            v = ((y + 0.5) / 2000 * height) / sy - 0.5
            looks_like = (
                self._depth_at(u, v) * profile.focal / np.sqrt(camera.fx * sx * camera.fy * sy)
            )
            answers.append(Answer(f"<think> </think> <answer>{looks_like:.6f}</answer>", std=0.5))
        return answers

    def memory_bytes(self) -> int | None:
        return None

    def close(self) -> None:
        pass


@given(
    width=st.integers(60, 500),
    height=st.integers(60, 500),
    fx=st.floats(100, 600),
    squeeze=st.floats(0.8, 1.25),
    shift=st.tuples(st.floats(-20, 20), st.floats(-20, 20)),
    fit=st.sampled_from(["scale", "pad"]),
    focal=st.sampled_from([160.0, 500.0]),
    view_focal=st.sampled_from([None, 140.0, 353.5]),
)
def test_metric_depth_comes_back_for_any_camera(
    width, height, fx, squeeze, shift, fit, focal, view_focal
):
    camera = PinholeCamera(
        width, height, fx, fx * squeeze, width / 2 + shift[0], height / 2 + shift[1]
    )

    def depth_at(u: float, v: float) -> float:  # a smooth slope over source pixels
        return 2.0 + 0.01 * u + 0.005 * v

    limits = ImageLimits(32, 1, 16 * 1024 * 1024)
    engine = OracleEngine(Profile(focal, fit, PROMPTS), limits, camera, depth_at, view_focal)
    pixels = uniform_grid(camera, 5, 4)
    image = np.zeros((height, width, 3), np.uint8)
    answers = ask_depth(engine, image, camera, pixels, view_focal)
    truth = 2.0 + 0.01 * pixels[:, 0] + 0.005 * pixels[:, 1]
    # A text coordinate names a cell of 1/2000 of the view.
    assert np.allclose(answers.depth, truth, atol=0.02 * max(width, height) / 1000 + 1e-3)
    assert answers.failures == 0


def test_unreadable_answers_are_nan_and_counted():
    camera = PinholeCamera.from_hfov(320, 240, 60)
    limits = ImageLimits(32, 32 * 32, 16 * 1024 * 1024)
    texts = iter(["<answer>2.50</answer>", "far away", "<answer>nan</answer>"])

    class MumblingEngine(OracleEngine):
        def ask(self, images, questions, answer_template=None):
            return [Answer(next(texts)) for _ in questions]

    engine = MumblingEngine(Profile(160.0, "pad", PROMPTS), limits, camera, None)
    pixels = [[10, 10], [20, 20], [30, 30]]
    answers = ask_depth(engine, np.zeros((240, 320, 3), np.uint8), camera, pixels)
    assert np.isfinite(answers.depth).tolist() == [True, False, False]
    assert np.isnan(answers.std).all()
    assert answers.failures == 2
    assert answers.texts[1] == "far away"


def test_the_engines_estimate_replaces_the_greedy_text():
    camera = PinholeCamera.from_hfov(320, 240, 60)
    limits = ImageLimits(32, 32 * 32, 16 * 1024 * 1024)

    class KnowingEngine(OracleEngine):
        def ask(self, images, questions, answer_template=None):
            return [Answer("<answer>0.0</answer>", value=1.25, std=0.5) for _ in questions]

    engine = KnowingEngine(Profile(160.0, "pad", PROMPTS), limits, camera, None)
    answers = ask_depth(engine, np.zeros((240, 320, 3), np.uint8), camera, [[10, 10]])
    # 320 px at 60 degrees have 277.1 px of focal length, 185 px at the 160 px learned.
    effective = 277.128 * 185 / 320 * np.sqrt((139 / 240) / (185 / 320))
    assert answers.depth[0] == pytest.approx(1.25 * effective / 160, rel=1e-3)
    assert answers.std[0] == pytest.approx(0.5 * effective / 160, rel=1e-3)


def test_the_grid_is_the_pixel_grid_of_the_resized_camera():
    camera = PinholeCamera(641, 479, 500.0, 480.0, 300.0, 250.0)
    small = camera.resized(16, 12)
    pixels = uniform_grid(camera, 16, 12)
    assert np.allclose(camera.rays(pixels), small.rays(small.pixel_grid().reshape(-1, 2)))


@given(
    st.lists(
        st.tuples(
            st.floats(0.1, 100) | st.just(np.nan),
            st.floats(0, 100) | st.just(np.nan),
        ),
        min_size=1,
    ),
    st.floats(0.01, 2),
)
def test_unknown_uncertainty_counts_as_too_uncertain(answers, limit):
    depth, std = np.array(answers).T
    limits = DepthLimits(max_uncertainty=limit)
    expected = [bool(d == d and not (s == s and s <= limit * d)) for d, s in answers]
    assert limits.too_uncertain(depth, std).tolist() == expected
    assert not DepthLimits().too_uncertain(depth, std).any()


def test_depth_limits_are_inclusive():
    limits = DepthLimits(1.0, 5.0)
    depth = np.array([0.9, 1.0, 5.0, 5.1, np.nan])
    assert limits.out_of_range(depth).tolist() == [True, False, False, True, False]
