# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from truth import TruthEngine

from vlm3_lab.scenes import sample_view
from vlm3_lab.scenes.seen_objects import seen_objects
from vlm3_ros.engines.base import Answer
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.language.prompts import load_prompt_set
from vlm3_ros.language.wordings.depth import DepthWording
from vlm3_ros.tasks.located import locate_objects

# Enters the engine unchanged.
CAMERA = PinholeCamera(160, 128, 128.0, 128.0, 70.5, 59.5)
IMAGE = np.zeros((128, 160, 3), np.uint8)


class ListedEngine(TruthEngine):
    """Answers depths in the order of a list, and one size."""

    def __init__(self, depths: list[Answer], size: Answer | None) -> None:
        super().__init__([], load_prompt_set("vlm3-short"), focal=128.0)
        if size is None:
            prompts = self.profile.prompts.without("objects")
            self.profile = replace(self.profile, prompts=prompts)
        self.depths, self.size = depths, size

    def ask(self, images, questions, answer_template=None):
        if answer_template == self.profile.prompts[DepthWording].answer:
            return self.depths[: len(questions)]
        return [self.size] * len(questions)


def box_at(u: float, v: float, width: float, height: float):
    return (u, v, u + width - 1, v + height - 1)


@given(
    st.tuples(st.floats(0, 100), st.floats(0, 60), st.floats(1.5, 60), st.floats(1.5, 60)),
    st.lists(st.none() | st.floats(0.5, 50), min_size=9, max_size=9),
    st.none() | st.floats(0.1, 5),
)
def test_boxes_from_depths_and_sizes(box, depths, size) -> None:
    """Check one box by hand for various answers."""
    left, top, width, height = box
    said = [Answer("", d, None if d is None else d / 10) for d in depths]
    engine = ListedEngine(said, None if size is None else Answer("", size))
    (found,) = locate_objects(engine, IMAGE, CAMERA, [box_at(*box)])
    known = sorted(d for d in depths if d is not None)
    if not known:
        assert found is None
        return
    assert found is not None
    nearer = known[(len(known) - 1) // 4]
    across = [size or width / 128 * nearer, size or height / 128 * nearer]
    z = nearer + min(across) / 2
    x = (left + (width - 1) / 2 - 70.5) / 128 * z
    y = (top + (height - 1) / 2 - 59.5) / 128 * z
    np.testing.assert_allclose(found.centre, [x, y, z], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.size, [*across, min(across)], rtol=1e-5)
    assert found.depth_std == pytest.approx(nearer / 10, rel=1e-5)
    assert found.distance == pytest.approx(np.sqrt(x * x + y * y + z * z), rel=1e-5)


def test_true_boxes_come_back_within_the_assumptions() -> None:
    """Sizes exactly; distances except for the size along Z and what is in front of the object."""
    errors = []
    for seed in range(12):
        view = sample_view(np.random.default_rng(seed), "yard")
        things = seen_objects(view)
        boxes = [tuple(thing.box.tolist()) for thing in things]
        located = locate_objects(TruthEngine([view]), view.image, view.camera, boxes)
        for thing, found in zip(things, located, strict=True):
            assert found is not None
            np.testing.assert_allclose(found.size[:2], thing.extent[:2], rtol=1e-4)
            errors.append(abs(found.distance / np.linalg.norm(thing.centre) - 1))
    assert len(errors) >= 10
    assert np.median(errors) < 0.05


def test_no_objects_ask_no_questions() -> None:
    assert locate_objects(ListedEngine([], None), IMAGE, CAMERA, []) == []
