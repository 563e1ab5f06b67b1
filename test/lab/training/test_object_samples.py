# SPDX-License-Identifier: Apache-2.0
"""Answers about objects are true, also in mirrored views."""

from __future__ import annotations

import re

import numpy as np
import pytest

from vlm3_lab.scenes import sample_view
from vlm3_lab.scenes.seen_objects import seen_objects, true_answers
from vlm3_lab.training.checkpoint import build_processor, build_tokenizer
from vlm3_lab.training.samples import mirrored
from vlm3_lab.training.tasks.objects import object_pairs
from vlm3_ros.engines.base import Profile
from vlm3_ros.engines.processor import image_limits
from vlm3_ros.geometry.text_coordinates import text_box
from vlm3_ros.language.prompts import load_prompt_set
from vlm3_ros.language.wordings.objects import parse_hour, parse_length, parse_relation
from vlm3_ros.tasks.objects import length_scale
from vlm3_ros.tasks.task import model_views

PROFILE = Profile(128.0, "scale", load_prompt_set("vlm3-short"))
PROMPTS = PROFILE.prompts
PROCESSOR = build_processor(build_tokenizer(PROMPTS))
LIMITS = image_limits(PROCESSOR)


@pytest.fixture(scope="module")
def view():
    views = (sample_view(np.random.default_rng([8, i]), "street") for i in range(50))
    return next(view for view in views if len(seen_objects(view)) >= 3)


@pytest.mark.parametrize("is_mirrored", [False, True])
def test_answers_are_the_truth_at_the_unified_focal_length(view, is_mirrored):
    view = mirrored(view) if is_mirrored else view
    views = model_views(PROFILE, LIMITS, [view.camera])
    (unified,) = views.cameras
    things = seen_objects(view)
    pairs = object_pairs(things, views, PROMPTS, 1000, np.random.default_rng(2))
    asked = true_answers(things, np.random.default_rng(2))
    for (text, answer), (question, truth) in zip(pairs, asked, strict=True):
        if isinstance(truth, bool):
            assert parse_relation(answer) is truth
        elif isinstance(truth, int):
            assert parse_hour(answer) == truth
        else:
            scale = length_scale(question.quantity, unified)
            assert parse_length(answer) * scale == pytest.approx(truth, abs=0.0051 * scale)
        numbers = [int(number) for number in re.findall(r"\d+", text)]
        boxes = [box for box in (question.a, question.b) if box is not None]
        expected = [text_box(box, unified, PROMPTS.text_range) for box in boxes]
        assert numbers == np.concatenate(expected).tolist()


def test_a_sample_holds_the_configured_number_of_questions(view):
    views = model_views(PROFILE, LIMITS, [view.camera])
    things, every = seen_objects(view), []
    for count in (3, 1000):
        pairs = object_pairs(things, views, PROMPTS, count, np.random.default_rng(0))
        assert len(pairs) <= count
        every.append(pairs)
    assert every[0] == every[1][:3]
