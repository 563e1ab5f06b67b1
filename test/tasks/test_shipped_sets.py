# SPDX-License-Identifier: Apache-2.0
"""Every task of every shipped prompt set: what is worded for training is read back."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlm3_ros.engines.base import Answer, Profile
from vlm3_ros.engines.profiles import shipped_profile
from vlm3_ros.geometry.camera import ImageLimits, PinholeCamera
from vlm3_ros.geometry.motion import motion_error, motion_from_parts
from vlm3_ros.language.prompts import load_prompt_set
from vlm3_ros.language.wordings.objects import QUANTITIES, RELATIONS, SIZES
from vlm3_ros.tasks.correspondence import CORRESPONDENCE
from vlm3_ros.tasks.depth import DEPTH
from vlm3_ros.tasks.objects import OBJECTS, Direction, Quantity, Relation
from vlm3_ros.tasks.pose import POSE
from vlm3_ros.tasks.task import model_views, true_pairs

CAMERA = PinholeCamera(640, 480, 520, 520, 320, 240)
LIMITS = ImageLimits(32, 1024, 2**24)
BOXES = (1.0, 2.0, 400.0, 50.0), (60.0, 2.0, 600.0, 310.0)
AUTHORS = ("vlm3-depth", "vlm3-pose", "vlm3-corr", "vlm3-corr-think", "vlm3-object", "vlm3")


@lru_cache
def profile_of(name: str) -> Profile:
    if name in AUTHORS:
        return shipped_profile(name)
    return Profile(1000.0, "scale", load_prompt_set(name))


OURS = ("vlm3-short", "vlm3-last")
NAMES = (*AUTHORS, *OURS)
CASES = [(name, task) for name in NAMES for task in profile_of(name).prompts.wordings]


def read_back(name: str, task: Any, asked: Any, truth: Any, images: int) -> tuple[Any, list[str]]:
    profile = profile_of(name)
    views = model_views(profile, LIMITS, [CAMERA] * images)
    answers = [answer for _, answer in true_pairs(task, profile.prompts, views, asked, truth)]
    wording = profile.prompts[task.wording]
    return task.read(wording, views, asked, [Answer(answer) for answer in answers]), answers


def names_with(task: str) -> Any:
    return st.sampled_from([name for name, learned in CASES if learned == task])


def test_each_checkpoint_of_the_authors_learned_one_task() -> None:
    assert [case for case in CASES if case[0] not in ("vlm3", *OURS)] == [
        ("vlm3-depth", "depth"),
        ("vlm3-pose", "pose"),
        ("vlm3-corr", "correspondence"),
        ("vlm3-corr-think", "correspondence"),
        ("vlm3-object", "objects"),
    ]


@given(names_with("depth"), st.floats(0.2, 1e4), st.integers(0, 639), st.integers(0, 479))
def test_depth(name: str, metres: float, u: int, v: int) -> None:
    result, _ = read_back(name, DEPTH, [(u, v)], [metres], 1)
    assert result.depth == pytest.approx([metres], abs=0.06 if name == "vlm3-short" else 0.006)


angle = st.floats(-170, 170)


@given(
    names_with("pose"),
    st.floats(0.1, 100),
    st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda vector: math.hypot(*vector) > 0.1),
    st.tuples(angle, st.floats(-80, 80), angle),
)
def test_pose(name: str, metres: float, vector: Any, ypr: Any) -> None:
    truth = motion_from_parts(metres, np.array(vector) / math.hypot(*vector), ypr)
    result, texts = read_back(name, POSE, None, truth, 2)
    assert list(result.texts_by_part.values()) == texts == list(result.texts)
    assert result.has_motion and not result.failures
    error = motion_error(result.T_cam1_cam2, truth)
    assert np.abs(error[:3]).max() < 0.006 + 0.015 * metres
    assert np.degrees(np.abs(error[3:]).max()) < 0.2
    if name in ("vlm3-pose", "vlm3-last"):
        assert result.angle_deg == pytest.approx(result.rotation_deg, abs=0.2)
    else:
        assert math.isnan(result.angle_deg)


@given(names_with("correspondence"), st.integers(0, 639), st.integers(0, 479))
def test_correspondence(name: str, u: int, v: int) -> None:
    result, _ = read_back(name, CORRESPONDENCE, [(9, 9)], [(u, v)], 2)
    # Half a unit of the text, and where a range ends one pixel less.
    np.testing.assert_allclose(result.pixels2, [(u, v)], atol=1.01)


QUESTIONS = [
    *(Relation(name, *BOXES) for name in RELATIONS),
    *(Quantity(name, BOXES[0], None if name in SIZES else BOXES[1]) for name in QUANTITIES),
    Direction(*BOXES),
]


@given(names_with("objects"), st.booleans(), st.floats(0.05, 100), st.integers(1, 12))
def test_objects(name: str, holds: bool, metres: float, hour: int) -> None:
    truth = [
        holds
        if isinstance(question, Relation)
        else metres
        if isinstance(question, Quantity)
        else hour
        for question in QUESTIONS
    ]
    result, _ = read_back(name, OBJECTS, QUESTIONS, truth, 1)
    assert result.values == pytest.approx(truth, abs=0.006)
    assert [type(value) for value in result.values] == [type(value) for value in truth]


def test_lengths_of_several_forms_are_asked_as_free_text() -> None:
    for name in ("vlm3", "vlm3-object"):
        profile = profile_of(name)
        wording = profile.prompts[OBJECTS.wording]
        views = model_views(profile, LIMITS, [CAMERA])
        templates = {
            prompt.answer_template for prompt in OBJECTS.prompts(wording, views, QUESTIONS)
        }
        assert templates == ({None, "It is {value} meters."} if name == "vlm3" else {None})
