# SPDX-License-Identifier: Apache-2.0
"""Every task with the stand-in of its checkpoint: what enters, what is asked, what is read."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest
from stand_ins.words import (
    ANGLE,
    BOX_A,
    BOX_B,
    CAMERA,
    DEPTH_GRID,
    DIRECTION,
    DISTANCE,
    MATCH_GRID,
    MATCHED_X,
    MATCHED_Y,
    OBJECT_PAIRS,
    OBJECT_VALUES,
    PAIR_CAMERA,
    ROTATION,
    as_the_authors,
    as_the_paper,
    depth_metres,
    depth_pair,
    grid,
    match_pair,
    object_pair,
)

from vlm3_ros.engines.number_trees import RESOLUTION
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.geometry.motion import motion_parts
from vlm3_ros.language.wordings.depth import DepthWording
from vlm3_ros.tasks.correspondence import ask_matches
from vlm3_ros.tasks.depth import ask_depth
from vlm3_ros.tasks.objects import Direction, Quantity, Relation, ask_objects
from vlm3_ros.tasks.pose import ask_pose

OBJECT_QUESTIONS = (
    *(Relation(name, BOX_A, BOX_B) for name in ("below", "left", "big", "small", "tall", "wide")),
    *(Relation(name, BOX_A, BOX_B) for name in ("behind", "front")),
    *(Quantity(f"{kind}_distance", BOX_A, BOX_B) for kind in ("direct", "horizontal", "vertical")),
    *(Quantity(size, box) for size in ("width", "height") for box in (BOX_A, BOX_B)),
    Direction(BOX_A, BOX_B),
)
"""In the order of OBJECT_PAIRS."""


@pytest.fixture
def pair(picture):
    width, height = PAIR_CAMERA.width, PAIR_CAMERA.height
    return picture(width, height, seed=1), picture(width, height, seed=2)


def test_depth(load, seen, picture):
    pixels = list(grid(CAMERA, *DEPTH_GRID))
    asked = [as_the_authors(pixel, CAMERA, 2000) for pixel in pixels]
    engine = load("VLM3-depth")
    answers = ask_depth(engine, picture(CAMERA.width, CAMERA.height), CAMERA, pixels)
    assert seen.sizes == {((384, 320),)}
    assert seen.questions == {depth_pair(*xy)[0] for xy in asked}
    # 98x62 px at 250 and 200 px become 392x310 px at 1000 px, and these whole multiples of 32.
    scale = math.sqrt(250 * 384 / 98 * 200 * 320 / 62) / 1000
    expected = [scale * float(depth_metres(*xy)) for xy in asked]
    assert answers.texts == tuple(depth_pair(*xy)[1] for xy in asked)
    np.testing.assert_allclose(answers.depth, expected, rtol=RESOLUTION / 2)
    assert np.isfinite(answers.std).sum() == 32
    assert (answers.std < 0.1 * answers.depth).all()


def test_depth_in_a_form_that_the_profile_does_not_know(load, picture, caplog):
    """The paper's profile has other words between the marks, and other coordinates."""
    pixels = list(grid(CAMERA, *DEPTH_GRID))
    asked = [as_the_paper(pixel, CAMERA, 2000) for pixel in pixels]
    caplog.set_level(logging.INFO)
    engine = load("VLM3-depth", profile="vlm3")
    assert "The point is around" not in engine.profile.prompts[DepthWording].answer
    image = picture(CAMERA.width, CAMERA.height)
    answers = ask_depth(engine, image, CAMERA, pixels)
    assert answers.texts == tuple(depth_pair(*xy)[1] for xy in asked)
    assert np.isfinite(answers.std).sum() == 32
    (line,) = [record.getMessage() for record in caplog.records if "form" in record.getMessage()]
    assert "The point is around {value} meters away" in line


def test_pose(load, seen, pair):
    pose = ask_pose(load("VLM3-pose"), pair, (PAIR_CAMERA, PAIR_CAMERA))
    assert seen.sizes == {((512, 128), (512, 128))}
    assert seen.questions == {part[0] for part in (ANGLE, ROTATION, DIRECTION, DISTANCE)}
    assert not pose.failures
    motion = motion_parts(pose.T_cam1_cam2)
    assert motion.distance == pytest.approx(0.48, rel=2e-3)
    np.testing.assert_allclose(motion.direction, [0.6, 0, 0.8], atol=1e-6)
    np.testing.assert_allclose(motion.yaw_pitch_roll_deg, [-3.9, -0.9, 0.6], atol=1e-6)
    assert pose.angle_deg == pytest.approx(4.0)
    assert pose.rotation_deg == pytest.approx(4.04, abs=0.01)


@pytest.mark.parametrize("profile", ["", "vlm3-corr-think"])
def test_matches(load, seen, pair, profile):
    pixels = list(grid(PAIR_CAMERA, *MATCH_GRID))
    asked = [as_the_authors(pixel, PAIR_CAMERA, 1000) for pixel in pixels]
    engine = load("VLM3-corr", profile=profile)
    matches = ask_matches(engine, pair, (PAIR_CAMERA, PAIR_CAMERA), pixels)
    assert seen.sizes == {((1024, 256), (1024, 256))}
    pairs = [match_pair(*xy, thinking=bool(profile)) for xy in asked]
    assert seen.questions == {question for question, _ in pairs}
    assert matches.texts == tuple(answer for _, answer in pairs)
    expected = [(MATCHED_X[x] / 1000 * 128, MATCHED_Y[y] / 1000 * 32) for x, y in asked]
    np.testing.assert_allclose(matches.pixels2, expected, atol=1e-9)


def test_images_of_the_authors_sample_enter_at_1024_px(load, seen, picture):
    camera = PinholeCamera(600, 400, 500.0, 500.0, 299.5, 199.5)
    images = picture(600, 400, seed=1), picture(600, 400, seed=2)
    ask_matches(load("VLM3-corr", max_new_tokens=4), images, (camera, camera), [(300, 100)])
    # 1024x683 px: 21.3 multiples of 32 px are high.
    assert seen.sizes == {((1024, 672), (1024, 672))}
    assert seen.questions == {match_pair(500, 250)[0]}


def test_objects(load, seen, picture):
    engine = load("VLM3-object")
    image = picture(CAMERA.width, CAMERA.height)
    answers = ask_objects(engine, image, CAMERA, OBJECT_QUESTIONS)
    # 98x62 px at fx = 250 px become 392x248 px at 1000 px.
    assert seen.sizes == {((384, 256),)}
    pairs = [object_pair(template) for template in OBJECT_PAIRS]
    assert seen.questions == {question for question, _ in pairs}
    assert answers.texts == tuple(answer for _, answer in pairs)
    assert answers.failures == 0
    assert answers.values[:8] == OBJECT_VALUES[:8]
    np.testing.assert_allclose(np.array(answers.values[8:], float), OBJECT_VALUES[8:], rtol=0.1)
    assert answers.values[-1] == 2
