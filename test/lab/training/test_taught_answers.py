# SPDX-License-Identifier: Apache-2.0
"""What a sample teaches is what the task reads back, with every shipped profile."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from vlm3_lab.training.tasks.objects import with_one_phrasing
from vlm3_ros.engines.base import Answer
from vlm3_ros.engines.profiles import shipped_profile
from vlm3_ros.geometry.camera import ImageLimits, PinholeCamera
from vlm3_ros.geometry.motion import inverse, motion_from_parts, rotation_angle
from vlm3_ros.language.prompts import PromptSet
from vlm3_ros.language.wordings.objects import DISTANCES, RELATIONS, SIZES
from vlm3_ros.paths import shipped_profiles
from vlm3_ros.tasks.correspondence import CORRESPONDENCE
from vlm3_ros.tasks.depth import DEPTH
from vlm3_ros.tasks.objects import OBJECTS, Box, Direction, Quantity, Relation, Value, length_scale
from vlm3_ros.tasks.pose import POSE
from vlm3_ros.tasks.task import ModelViews, Task, model_views, true_pairs

LIMITS = ImageLimits(32, 1024, 16_777_216)

seeds = st.integers(0, 2**32 - 1)
cameras = st.builds(
    PinholeCamera,
    width=st.integers(64, 2000),
    height=st.integers(64, 2000),
    fx=st.floats(200, 900),
    fy=st.floats(200, 900),
    cx=st.floats(20, 60),
    cy=st.floats(20, 60),
)


def _profiles(task: Task[Any, Any, Any, Any]) -> list[str]:
    """Names of the shipped profiles that know a task."""
    return [name for name in shipped_profiles() if task.name in _prompts(name).wordings]


def _prompts(name: str) -> PromptSet:
    return shipped_profile(name).prompts


def _views(name: str, *of: PinholeCamera) -> ModelViews:
    return model_views(shipped_profile(name), LIMITS, of)


def _read(
    task: Task[Any, Any, Any, Any], prompts: PromptSet, views: ModelViews, asked: Any, truth: Any
) -> Any:
    """The result of a model that has learned the sample."""
    pairs = true_pairs(task, prompts, views, asked, truth)
    answers = [Answer(answer) for _, answer in pairs]
    return task.read(prompts[task.wording], views, asked, answers)


def _pixels(camera: PinholeCamera, rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    return rng.integers((camera.width, camera.height), size=(count, 2)).astype(float)


@pytest.mark.parametrize("name", _profiles(DEPTH))
@given(camera=cameras, seed=seeds)
def test_depth(name: str, camera: PinholeCamera, seed: int) -> None:
    rng, views = np.random.default_rng(seed), _views(name, camera)
    depth = rng.uniform(0.3, 90.0, 5)
    answers = _read(DEPTH, _prompts(name), views, _pixels(camera, rng, 5), depth)
    rounding = 0.005 * float(views.cameras[0].metric_depth(1.0))
    assert answers.depth == pytest.approx(depth, abs=1.01 * rounding)


@pytest.mark.parametrize("name", _profiles(POSE))
@given(camera=cameras, other=cameras, distance=st.floats(0.02, 90), angles=st.data(), seed=seeds)
def test_motion(
    name: str,
    camera: PinholeCamera,
    other: PinholeCamera,
    distance: float,
    angles: st.DataObject,
    seed: int,
) -> None:
    limits = ((-180, 180), (-90, 90), (-180, 180))
    turn = [angles.draw(st.floats(*limit)) for limit in limits]
    direction = np.random.default_rng(seed).normal(size=3)
    truth = motion_from_parts(distance, direction / np.linalg.norm(direction), turn)
    views = _views(name, camera, other)
    pose = _read(POSE, _prompts(name), views, None, truth)
    assert not pose.failures
    between = rotation_angle(inverse(truth) @ pose.T_cam1_cam2)
    assert np.degrees(between) < 0.2
    unified = views.cameras[0]
    # What one metre is worth along each axis: pixels need not be square.
    ratios = np.array([1.0, unified.view.fx / unified.view.fy, unified.metric_depth(1.0)])
    spread = ratios.max() / ratios.min()
    error = np.linalg.norm(pose.T_cam1_cam2[:3, 3] - truth[:3, 3])
    assert error < (0.006 * max(ratios) + 0.01 * distance) * spread
    if np.isfinite(pose.angle_deg):
        assert pose.angle_deg == pytest.approx(pose.rotation_deg, abs=0.2)


@pytest.mark.parametrize("name", _profiles(CORRESPONDENCE))
@given(camera=cameras, other=cameras, seed=seeds)
def test_matches(name: str, camera: PinholeCamera, other: PinholeCamera, seed: int) -> None:
    rng, views = np.random.default_rng(seed), _views(name, camera, other)
    pixels, truth = _pixels(camera, rng, 6), _pixels(other, rng, 6)
    answered = _read(CORRESPONDENCE, _prompts(name), views, pixels, truth).pixels2
    cell = np.array([other.width, other.height]) / _prompts(name).text_range
    # The last coordinate also stands for what would be rounded up to the range.
    assert (np.abs(answered - truth) <= 1.01 * cell).all()


@pytest.mark.parametrize("name", _profiles(OBJECTS))
@given(camera=cameras, seed=seeds)
def test_objects_in_every_phrasing(name: str, camera: PinholeCamera, seed: int) -> None:
    rng, views = np.random.default_rng(seed), _views(name, camera)
    a, b = (_box(_pixels(camera, rng, 2)) for _ in range(2))
    asked: list[Relation | Quantity | Direction] = [Direction(a, b)]
    truth: list[Value] = [int(rng.integers(1, 13))]
    for relation in RELATIONS:
        asked.append(Relation(relation, a, b))
        truth.append(bool(rng.integers(2)))
    for quantity in (*SIZES, *DISTANCES):
        asked.append(Quantity(quantity, a, None if quantity in SIZES else b))
        truth.append(float(rng.uniform(0.2, 60)))
    prompts = with_one_phrasing(_prompts(name), rng)
    read = _read(OBJECTS, prompts, views, asked, truth)
    for question, value, expected in zip(asked, read.values, truth, strict=True):
        if isinstance(question, Quantity):
            scale = length_scale(question.quantity, views.cameras[0])
            assert value == pytest.approx(expected, abs=0.00501 * scale)
        else:
            assert value == expected


def _box(corners: NDArray[np.float64]) -> Box:
    (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
    return left, top, right, bottom


def test_several_phrasings_are_drawn_and_one_is_not() -> None:
    prompts, rng = _prompts("vlm3-object"), np.random.default_rng(0)
    drawn = [with_one_phrasing(prompts, rng)[OBJECTS.wording] for _ in range(60)]
    questions = {wording.relations["behind"] for wording in drawn}
    assert questions == set(prompts[OBJECTS.wording].relations["behind"])
    answers = {wording.no["behind"] for wording in drawn}
    assert answers == set(prompts[OBJECTS.wording].no["behind"])
    state = rng.bit_generator.state
    plain = _prompts("vlm3")
    assert with_one_phrasing(plain, rng) == plain
    assert rng.bit_generator.state == state, "samples of the default set stay as they were"
