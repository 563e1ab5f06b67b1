# SPDX-License-Identifier: Apache-2.0
"""Questions about two views through geometry and language and back.

The engine knows the truth, which must come back up to the decimals of the answers.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlm3_ros.engines.base import Answer, EngineError, Profile
from vlm3_ros.geometry.camera import GeometryError, ImageLimits, PinholeCamera
from vlm3_ros.geometry.motion import motion_error, motion_from_parts
from vlm3_ros.language.prompts import load_prompt_set
from vlm3_ros.tasks.correspondence import ask_matches
from vlm3_ros.tasks.depth import uniform_grid
from vlm3_ros.tasks.pose import ask_pose
from vlm3_ros.tasks.two_view import ask_pair

PROMPTS = load_prompt_set("vlm3")
FOCAL = 250.0
LIMITS = ImageLimits(32, 32 * 32, 2048 * 2048)
CLAMPED = ImageLimits(32, 32 * 32, 160 * 160)
DEPTH = 4.0


@dataclasses.dataclass
class TruthEngine:
    """Answers from the true motion, and for matches from a wall at `DEPTH` metres.

    It knows the cameras and the size of the images that it is shown, and takes their focal length
    for the learned one, as a model does.
    """

    profile: Profile
    limits: ImageLimits
    cameras: tuple[PinholeCamera, PinholeCamera]
    parts: tuple[float, tuple[float, ...], tuple[float, ...]]
    name: str = "truth"
    passes: int = 0

    def ask(
        self,
        images: Sequence[np.ndarray],
        questions: Sequence[str],
        answer_template: str | None = None,
    ) -> list[Answer]:
        self.passes += 1
        return [Answer(self._answer(images, question)) for question in questions]

    def memory_bytes(self) -> int | None:
        return None

    def close(self) -> None:
        pass

    def _scale(self, which: int, image: np.ndarray) -> tuple[float, float]:
        """Pixels of the view per pixel of the source."""
        camera = self.cameras[which]
        if self.profile.fit == "scale":
            return image.shape[1] / camera.width, image.shape[0] / camera.height
        # Square pixels of the learned focal length up to half a pixel, or as far as the area goes.
        columns = round(camera.width * FOCAL / camera.fx)
        rows = round(camera.height * FOCAL / camera.fy)
        return columns / camera.width, rows / camera.height

    def _answer(self, images: Sequence[np.ndarray], question: str) -> str:
        distance, direction, (yaw, pitch, roll) = self.parts
        if question.startswith("Given these two images"):
            return self._match(images, question)
        sx, sy = self._scale(0, images[0])
        fx, fy = self.cameras[0].fx * sx, self.cameras[0].fy * sy
        # Widths are right on the mean of both axes; depth is off by the focal length.
        mean = math.sqrt(fx * fy)
        seen = [
            distance * direction[0] * fx / mean,
            distance * direction[1] * fy / mean,
            distance * direction[2] * FOCAL / mean,
        ]
        length = math.hypot(*seen)
        if question.startswith("Estimate the magnitude"):
            return f"Translation distance: {length:.6f} meters."
        if question.startswith("Using the first camera"):
            x, y, z = (s / length for s in seen)
            return f"The camera moves ahead, unit vector ({x:.6f}, {y:.6f}, {z:.6f})."
        assert question.startswith("Treating the first image")
        # The pixel at which the first view shows the second one's axis, for turns about one axis.
        yaw = math.degrees(math.atan(math.tan(math.radians(yaw)) * fx / FOCAL))
        pitch = math.degrees(math.atan(math.tan(math.radians(pitch)) * fy / FOCAL))
        return f"Yaw={yaw:.6f}, Pitch={pitch:.6f}, Roll={roll:.6f}."

    def _match(self, images: Sequence[np.ndarray], question: str) -> str:
        x, y = map(int, re.search(r"pixel \((\d+), (\d+)\)", question).groups())
        sx, sy = self._scale(0, images[0])
        u = ((x + 0.5) / 2000 * images[0].shape[1]) / sx - 0.5
        v = ((y + 0.5) / 2000 * images[0].shape[0]) / sy - 0.5
        u, v = true_match(self.cameras, self.parts, u, v)
        sx, sy = self._scale(1, images[1])
        x = math.floor((u + 0.5) * sx / images[1].shape[1] * 2000)
        y = math.floor((v + 0.5) * sy / images[1].shape[0] * 2000)
        return f"The corresponding pixel is ({x}, {y})."


def true_match(cameras, parts, u: float, v: float) -> tuple[float, float]:
    """Where the second camera sees the wall that the first one sees at a pixel."""
    first, second = cameras
    T_cam2_cam1 = np.linalg.inv(motion_from_parts(*parts))
    point = [(u - first.cx) / first.fx * DEPTH, (v - first.cy) / first.fy * DEPTH, DEPTH, 1]
    x, y, z, _ = T_cam2_cam1 @ point
    return second.fx * x / z + second.cx, second.fy * y / z + second.cy


def black(camera: PinholeCamera) -> np.ndarray:
    return np.zeros((camera.height, camera.width, 3), np.uint8)


@st.composite
def cameras(draw: st.DrawFn) -> PinholeCamera:
    width, height = draw(st.integers(120, 400)), draw(st.integers(120, 400))
    fx = draw(st.floats(150, 500))
    fy = fx * draw(st.floats(0.9, 1.1))
    return PinholeCamera(width, height, fx, fy, width * draw(st.floats(0.4, 0.6)), height / 2)


@st.composite
def motions(draw: st.DrawFn) -> tuple[float, tuple[float, ...], tuple[float, ...]]:
    """Turns about one axis each, for which the engine's angles are exact."""
    direction = np.array(draw(st.tuples(*[st.floats(-1, 1)] * 2, st.floats(0.1, 1))))
    direction *= draw(st.sampled_from([-1, 1])) / np.linalg.norm(direction)
    angles = [0.0, 0.0, 0.0]
    angles[draw(st.integers(0, 2))] = draw(st.floats(-40, 40))
    return draw(st.floats(0.05, 0.5)), tuple(direction), tuple(angles)


@settings(max_examples=25)
@given(cameras(), motions(), st.sampled_from(["scale", "pad"]), st.booleans())
def test_the_true_motion_comes_back_for_any_camera(camera, parts, fit, clamped):
    limits = CLAMPED if clamped and fit == "scale" else LIMITS
    pair = (camera, camera)
    engine = TruthEngine(Profile(FOCAL, fit, PROMPTS), limits, pair, parts)
    pose = ask_pose(engine, (black(camera), black(camera)), pair)
    # Six decimals of a degree, a metre and a direction of half a metre.
    error = motion_error(pose.T_cam1_cam2, motion_from_parts(*parts))
    assert np.abs(error[3:]).max() < 1e-6
    assert np.abs(error[:3]).max() < 1e-5
    assert engine.passes == 1
    assert not pose.failures and math.isnan(pose.distance_std)


@settings(max_examples=25)
@given(cameras(), cameras(), motions(), st.sampled_from(["scale", "pad"]))
def test_true_matches_come_back_for_any_two_cameras(first, second, parts, fit):
    pair = (first, second)
    engine = TruthEngine(Profile(FOCAL, fit, PROMPTS), LIMITS, pair, parts)
    pixels = uniform_grid(first, 5, 4)
    matches = ask_matches(engine, (black(first), black(second)), pair, pixels)
    assert engine.passes == 1
    assert matches.pixels1.tolist() == pixels.tolist()
    readable = ~np.isnan(matches.pixels2[:, 0])
    assert matches.failures == (~readable).sum()
    for (u, v), found, is_readable in zip(pixels, matches.pixels2, readable, strict=True):
        truth = np.array(true_match(pair, parts, u, v))
        margin = np.minimum(truth, (second.width - 1, second.height - 1) - truth).min()
        # A text coordinate names a cell of 1/2000 of a view of up to 670 px, in either image; a
        # pixel of the first image becomes up to 4 of the second one.
        if margin > 1.5:
            assert is_readable
        if is_readable:
            assert margin > -1.5
            np.testing.assert_allclose(found, truth, atol=1.5)


def test_matches_are_exact_if_text_coordinates_are():
    """Each of 200 px has 10 text coordinates: a pixel's centre is within half a cell, 0.05 px."""
    camera = PinholeCamera(192, 192, FOCAL, FOCAL, 95.5, 95.5)
    parts = (0.064, (1.0, 0.0, 0.0), (0.0, 0.0, 0.0))  # 4 px at 4 m
    engine = TruthEngine(Profile(FOCAL, "scale", PROMPTS), LIMITS, (camera, camera), parts)
    pixels = uniform_grid(camera, 8, 8)[1:]
    matches = ask_matches(engine, (black(camera), black(camera)), (camera, camera), pixels)
    inside = pixels[:, 0] > 5
    np.testing.assert_allclose(matches.pixels2[inside], pixels[inside] - (4, 0), atol=0.1)


def test_motion_and_matches_are_asked_in_one_pass():
    camera = PinholeCamera(320, 240, 260, 260, 160, 120)
    parts = (0.3, (0.6, 0.0, 0.8), (5.0, 0.0, 0.0))
    engine = TruthEngine(Profile(FOCAL, "pad", PROMPTS), LIMITS, (camera, camera), parts)
    pixels = uniform_grid(camera, 4, 3)
    images = (black(camera), black(camera))
    pose, matches = ask_pair(engine, images, (camera, camera), pixels)
    assert engine.passes == 1
    alone = ask_matches(engine, images, (camera, camera), pixels)
    np.testing.assert_array_equal(matches.pixels2, alone.pixels2)
    expected = ask_pose(engine, images, (camera, camera)).T_cam1_cam2
    np.testing.assert_array_equal(pose.T_cam1_cam2, expected)


def spoken(*answers: Answer) -> TruthEngine:
    camera = PinholeCamera(256, 192, 200, 200, 128, 96)
    engine = TruthEngine(Profile(FOCAL, "pad", PROMPTS), LIMITS, (camera, camera), None)
    engine.ask = lambda images, questions, template=None: list(answers)
    return engine


DISTANCE = "Translation distance: 0.50 meters."
DIRECTION = "The camera moves forward, unit vector (0.0, 0.0, 1.0)."
ROTATION = "Yaw=0.0, Pitch=0.0, Roll=0.0."


@pytest.mark.parametrize(
    ("texts", "reasons"),
    [
        (("far", DIRECTION, ROTATION), ["no answer"]),
        ((DISTANCE, DIRECTION.replace("1.0", "0.0"), ROTATION), ["not a unit vector"]),
        ((DISTANCE, DIRECTION, "Yaw=nan, Pitch=0.0, Roll=400.0."), ["not finite"]),
        (("", "", ""), ["no answer"] * 3),
    ],
)
def test_a_motion_with_an_unreadable_part_is_nan_with_reasons(texts, reasons):
    engine = spoken(*map(Answer, texts))
    image = black(engine.cameras[0])
    pose = ask_pose(engine, (image, image), engine.cameras)
    assert np.isnan(pose.T_cam1_cam2).all()
    assert [failure.reason for failure in pose.failures] == reasons
    assert pose.texts == texts


def test_the_estimate_and_std_of_the_distance_become_metres():
    """Seen at 200 px instead of 250, 1 m along the view looks like 1.25 m: the factor is 0.8."""
    camera = PinholeCamera(160, 160, 200, 200, 79.5, 79.5)
    engine = dataclasses.replace(
        spoken(), profile=Profile(FOCAL, "scale", PROMPTS), cameras=(camera, camera)
    )
    engine.limits = ImageLimits(160, 32, 160 * 160)  # allows only this size
    answers = [Answer(DISTANCE, value=0.45, std=0.1), Answer(DIRECTION), Answer(ROTATION)]
    engine.ask = lambda images, questions, template=None: answers
    pose = ask_pose(engine, (black(camera), black(camera)), engine.cameras)
    np.testing.assert_allclose(pose.T_cam1_cam2[:3, 3], [0, 0, 0.8 * 0.45])
    assert pose.distance_std == pytest.approx(0.8 * 0.1)


def test_unreadable_matches_and_matches_in_the_padding_are_nan():
    texts = [
        "(3, 4)",
        "The corresponding pixel is (1999, 1999).",
        "The corresponding pixel is (1000, 9).",
    ]
    engine = spoken(*map(Answer, texts))
    camera = dataclasses.replace(engine.cameras[0], width=250)
    pair = (camera, camera)
    matches = ask_matches(engine, (black(camera), black(camera)), pair, [[9, 9]] * 3)
    assert np.isnan(matches.pixels2).any(axis=1).tolist() == [True, True, False]
    assert matches.failures == 2
    assert matches.texts == tuple(texts)


def test_pixels_outside_of_the_first_image_are_refused():
    engine = spoken()
    images = (black(engine.cameras[0]),) * 2
    with pytest.raises(GeometryError, match="outside of the image"):
        ask_matches(engine, images, engine.cameras, [[-3, 9]])


def test_a_checkpoint_that_did_not_learn_a_task_is_named():
    engine = spoken()
    images = (black(engine.cameras[0]),) * 2
    depth_only = dataclasses.replace(PROMPTS.without("pose", "correspondence"), name="depth-only")
    engine.profile = Profile(FOCAL, "pad", depth_only)
    with pytest.raises(EngineError, match="truth did not learn relative pose: its prompt set 'de"):
        ask_pose(engine, images, engine.cameras)
    with pytest.raises(EngineError, match="truth did not learn correspondence"):
        ask_matches(engine, images, engine.cameras, [[3, 3]])
    with pytest.raises(EngineError, match="did not learn"):
        ask_pair(engine, images, engine.cameras, [[3, 3]])
