# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from vlm3_lab.studies.ablation.markers import (
    COLOUR,
    QUESTION,
    ask_marked_depth,
    draw_marker,
    marker_length,
)
from vlm3_ros.engines.base import Answer, Profile
from vlm3_ros.geometry.camera import ImageLimits, PinholeCamera, unify_focal
from vlm3_ros.language.prompts import load_prompt_set
from vlm3_ros.language.wordings.depth import DepthWording, depth_answer


@given(data=st.data(), width=st.integers(32, 300), height=st.integers(32, 300))
def test_the_tip_is_at_the_pixel_and_only_its_surroundings_change(
    data: st.DataObject, width: int, height: int
) -> None:
    u = data.draw(st.integers(0, width - 1))
    v = data.draw(st.integers(0, height - 1))
    view = np.random.default_rng(0).integers(0, 255, (height, width, 3)).astype(np.uint8)
    before = view.copy()
    marked = draw_marker(view, (u, v))
    assert np.array_equal(view, before)
    assert tuple(marked[v, u]) == COLOUR
    rows, columns = np.nonzero((marked != view).any(axis=-1))
    distance = np.hypot(columns - u, rows - v)
    # Corners are rounded to whole pixels.
    assert distance.max() <= marker_length(width, height) + 2
    assert (marked[rows, columns] == COLOUR).all()
    assert len(rows) >= 12, "an arrow that cannot be seen"


@given(data=st.data())
def test_the_whole_arrow_is_visible(data: st.DataObject) -> None:
    """Its size hardly depends on the pixel."""
    sizes = [
        (draw_marker(np.zeros((120, 160, 3), np.uint8), pixel)[..., 0] > 0).sum()
        for pixel in (
            (40, 40),
            (data.draw(st.integers(8, 151)), data.draw(st.integers(8, 111))),
        )
    ]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.25)


LIMITS = ImageLimits(32, 1024, 10**7)


@dataclass
class ArrowReader:
    """Engine that knows one view's depth and reads the arrow on a grey image of it."""

    depth: NDArray[np.float64]
    profile: Profile
    name: str = "arrow reader"
    limits: ImageLimits = LIMITS
    warning: str | None = None

    def ask(
        self,
        images: Sequence[NDArray[np.uint8]],
        questions: Sequence[str],
        answer_template: str | None = None,
    ) -> list[Answer]:
        (image,) = images
        assert list(questions) == [QUESTION]
        rows, columns = np.nonzero((image == COLOUR).all(axis=-1))
        points = np.stack([columns, rows], axis=-1).astype(float)
        height, width = image.shape[:2]
        outwards = np.sign(points.mean(axis=0) * 2 - (width, height))
        u, v = points[np.argmax(points @ outwards)].astype(int)
        return [Answer(depth_answer(self.profile.prompts[DepthWording], float(self.depth[v, u])))]

    def memory_bytes(self) -> int | None:
        return None

    def close(self) -> None:
        pass


def test_depth_at_the_arrows_tips_becomes_metric() -> None:
    camera = PinholeCamera(160, 120, 100.0, 100.0, 79.5, 59.5)
    profile = Profile(200.0, "scale", load_prompt_set("vlm3"))
    unified = unify_focal(camera, 200.0, LIMITS, "scale")
    depth = np.linspace(1, 9, unified.view.width)[None].repeat(unified.view.height, axis=0)
    pixels = np.array([[10.0, 20.0], [150.0, 100.0], [30.0, 110.0]])
    grey = np.full((120, 160, 3), 90, np.uint8)
    answers = ask_marked_depth(ArrowReader(depth, profile), grey, camera, pixels)
    u, v = np.round(unified.to_view(pixels)).astype(int).T
    assert answers.depth == pytest.approx(unified.metric_depth(depth[v, u]), rel=0.03)
    assert np.isnan(answers.std).all()
    assert answers.failures == 0
