# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from vlm3_ros.language.prompts import (
    CorrespondencePrompt,
    DepthPrompt,
    PosePrompt,
    PosePrompts,
    PromptError,
    coarse_direction,
    correspondence_answer,
    correspondence_question,
    depth_answer,
    depth_question,
    load_prompt_set,
    parse_prompt_set,
    pose_answers,
)

VLM3 = load_prompt_set("vlm3")

OWN: dict[str, Any] = {
    "name": "own",
    "text_range": 1000,
    "depth": {
        "question": "How far is {y}, {x}? {not a placeholder}",
        "answer": "It is {value} m away.",
        "decimals": 3,
    },
}


def test_vlm3_asks_word_for_word_as_the_readme_of_the_model() -> None:
    norm_x, norm_y = 1234, 56
    readme = (
        f"Given this image, how far is the point at coordinates ({norm_x}, {norm_y}) "
        "from the camera? The coordinates are in normalised [0, 2000] format relative "
        "to image width and height. Output the thinking process in <think> </think> "
        "and final answer (the meter number only, without the unit) in <answer> </answer> tags."
    )
    assert depth_question(VLM3, (norm_x, norm_y)) == readme
    assert VLM3.text_range == 2000
    assert VLM3.name == "vlm3"


def test_vlm3_asks_about_two_views_word_for_word_as_the_paper() -> None:
    assert VLM3.pose is not None and VLM3.correspondence is not None
    assert VLM3.pose.distance.question == (
        "Estimate the magnitude of the camera translation between the two viewpoints."
    )
    assert VLM3.pose.direction.question == (
        "Using the first camera as the reference frame, describe the displacement of the camera "
        "between the two views. Use the first camera's local axes (X = right, Y = down, Z = "
        "forward) and give a qualitative direction together with the precise unit direction "
        "vector (x, y, z)."
    )
    assert VLM3.pose.rotation.question == (
        "Treating the first image as the reference viewpoint, describe the camera's reorientation "
        "needed to reach the second image's viewpoint as yaw, pitch and roll about the first "
        "camera's local axes, applied intrinsically in the order yaw -> pitch -> roll. "
        "Conventions: yaw is rotation about the vertical (down) axis, positive = turn right; "
        "pitch is about the lateral (right) axis after yaw, positive = look up; roll is about the "
        "optical (forward) axis after yaw and pitch, positive = bank to the right (image content "
        "rotates clockwise from the operator's POV)."
    )
    assert correspondence_question(VLM3.correspondence, (17, 1999), 2000) == (
        "Given these two images, what pixel in the second image corresponds to pixel (17, 1999) "
        "in the first image? Report the answer as (x2, y2)."
    )
    assert correspondence_answer(VLM3.correspondence, (0, 3), 2000) == (
        "The corresponding pixel is (0, 3)."
    )


def test_a_motion_is_worded_as_in_the_paper() -> None:
    assert VLM3.pose is not None
    root = math.sqrt(0.5)
    assert pose_answers(VLM3.pose, 0.5, (root, -1e-9, -root), (-0.0001, 7.126, -179.996)) == (
        "Translation distance: 0.500 meters.",
        "The camera moves right, backward, unit vector (0.707, 0.000, -0.707).",
        "Yaw=0.00, Pitch=7.13, Roll=-180.00.",
    )


@pytest.mark.parametrize(
    ("degrees_right", "words"),
    [(0, "forward"), (20, "forward"), (25, "right, forward"), (70, "right"), (-135, "left, back")],
)
def test_the_direction_in_words_is_that_of_a_compass(degrees_right: float, words: str) -> None:
    angle = math.radians(degrees_right)
    assert coarse_direction((math.sin(angle), 0, math.cos(angle))).startswith(words)
    assert coarse_direction((0, math.sin(angle), math.cos(angle))) == coarse_direction(
        (math.sin(angle), 0, math.cos(angle))
    ).replace("right", "down").replace("left", "up")


@pytest.mark.parametrize(
    ("distance", "direction", "angles", "message"),
    [
        (-0.1, (0, 0, 1), (0, 0, 0), "a distance of -0.1 m cannot"),
        (math.nan, (0, 0, 1), (0, 0, 0), "a distance of nan m cannot"),
        (1, (0, 0, 1.1), (0, 0, 0), "must be a unit vector"),
        (1, (0, 0, math.nan), (0, 0, 0), "must be a unit vector"),
        (1, (0, 0, 1), (0, math.inf, 0), "degrees cannot be worded"),
    ],
)
def test_a_motion_that_cannot_be_worded_is_refused(
    distance: float, direction: tuple[float, ...], angles: tuple[float, ...], message: str
) -> None:
    assert VLM3.pose is not None
    with pytest.raises(PromptError, match=message):
        pose_answers(VLM3.pose, distance, direction, angles)


def test_a_set_without_two_views_is_still_read() -> None:
    for extra in ({}, {"pose": None, "correspondence": None}):
        own = parse_prompt_set({**OWN, **extra})
        assert own.pose is None and own.correspondence is None


def pose_prompts(
    distance: str = "<{value}>",
    direction: str = "<{x} {y} {z}>",
    rotation: str = "<{yaw} {pitch} {roll}>",
) -> PosePrompts:
    return PosePrompts(*(PosePrompt("?", answer, 1) for answer in (distance, direction, rotation)))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"distance": "far."}, "the distance answer must hold {value} once"),
        ({"distance": "{value}"}, "the distance answer must enclose"),
        ({"direction": "<{x},{y}>"}, "the direction answer must hold {z} once"),
        ({"direction": "<{y},{x},{z}>"}, "in this order"),
        ({"direction": "<{x},{y},{z},{coarse}>"}, "in this order"),
        ({"direction": "<{coarse}{x},{y},{z}>"}, "must enclose"),
        ({"direction": "<{x},{y} {z}>"}, "must enclose"),
        ({"rotation": "<{yaw},{pitch},{roll}"}, "must enclose"),
    ],
)
def test_a_wording_that_could_not_be_read_back_is_refused(
    parts: dict[str, str], message: str
) -> None:
    good = {"direction": "<{x},{y},{z}>", "rotation": "<{yaw},{pitch},{roll}>"}
    assert pose_prompts(**good).distance.decimals == 1
    with pytest.raises(PromptError, match=message):
        pose_prompts(**{**good, **parts})


def test_a_wording_of_correspondence_needs_both_places_in_question_and_answer() -> None:
    with pytest.raises(PromptError, match=r"correspondence question must hold {y} once"):
        CorrespondencePrompt("({x})?", "({x}, {y})")
    with pytest.raises(PromptError, match="correspondence answer must enclose"):
        CorrespondencePrompt("({x}, {y})?", "({x}, {y}")


def test_answers_are_worded_with_the_decimals_of_the_set() -> None:
    assert depth_answer(VLM3, 3.14159) == "<think> </think> <answer>3.14</answer>"
    assert depth_answer(VLM3, 12) == "<think> </think> <answer>12.00</answer>"
    assert depth_answer(VLM3, np.float32(0.1)) == "<think> </think> <answer>0.10</answer>"
    assert depth_answer(parse_prompt_set(OWN), 3.14159) == "It is 3.142 m away."


def test_a_set_of_ones_own_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "own.json"
    path.write_text(json.dumps(OWN))
    for name in (path, str(path)):
        own = load_prompt_set(name)
        assert depth_question(own, np.array([7, 999])) == "How far is 999, 7? {not a placeholder}"
    with pytest.raises(PromptError, match="outside of the text range"):
        depth_question(own, (1000, 0))


def test_a_set_survives_its_json_form() -> None:
    for prompts in (VLM3, parse_prompt_set(OWN)):
        assert parse_prompt_set(json.loads(json.dumps(dataclasses.asdict(prompts)))) == prompts


@pytest.mark.parametrize("coordinates", [(-1, 0), (0, 2000), (5000, 3)])
def test_coordinates_outside_of_the_range_are_refused(coordinates: tuple[int, int]) -> None:
    with pytest.raises(PromptError, match=r"outside of the text range \[0, 2000\)"):
        depth_question(VLM3, coordinates)


@pytest.mark.parametrize("metres", [0.0, -1.0, 0.004, math.nan, math.inf])
def test_a_depth_that_cannot_be_worded_is_refused(metres: float) -> None:
    with pytest.raises(PromptError, match="cannot be worded"):
        depth_answer(VLM3, metres)


def changed(**changes: Any) -> dict[str, Any]:
    depth = {key: changes.pop(key) for key in OWN["depth"] if key in changes}
    return {**OWN, **changes, "depth": {**OWN["depth"], **depth}}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "the prompt set must be an object with name, text_range, depth"),
        ({"name": "x"}, "the prompt set must hold name, text_range, depth .*, not name"),
        (changed(extra=1), "the prompt set must hold .* not .*extra"),
        ({**OWN, "depth": {}}, "depth must hold question, answer, decimals"),
        ({**OWN, "depth": "how far?"}, "depth of the prompt set must be of type dict"),
        (changed(pose=[]), "pose of the prompt set must be of type dict"),
        (changed(pose={}), "pose must hold distance, direction, rotation"),
        (changed(correspondence={"question": "?"}), "correspondence must hold question, answer"),
        (changed(name=3), "name of the prompt set must be of type str"),
        (changed(text_range="2000"), "text_range of the prompt set must be of type int"),
        (changed(text_range=True), "text_range of the prompt set must be of type int"),
        (changed(text_range=0), "text_range is 0, it must be positive"),
        (changed(decimals=-1), "decimals is -1"),
        (changed(decimals=2.0), "decimals of depth must be of type int"),
        (changed(question="({x}, 3)?"), "depth question must hold {y} once"),
        (changed(question="({x}, {x}, {y})?"), "depth question must hold {x} once"),
        (changed(answer="far"), "depth answer must hold {value} once"),
        (changed(answer="{value}"), "must enclose {value} in text"),
        (changed(answer="Depth: {value}"), "must enclose {value} in text"),
    ],
)
def test_a_wrong_set_is_refused_with_what_is_wrong(
    tmp_path: Path, data: object, message: str
) -> None:
    with pytest.raises(PromptError, match=message):
        parse_prompt_set(data)
    path = tmp_path / "own.json"
    path.write_text(json.dumps(data))
    with pytest.raises(PromptError, match=message) as raised:
        load_prompt_set(path)
    assert str(path) in str(raised.value)


def test_an_unknown_missing_or_broken_set_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=r"no prompt set is called 'vlm4': use one of .*vlm3"):
        load_prompt_set("vlm4")
    with pytest.raises(PromptError, match=r"none\.json: No such file"):
        load_prompt_set(tmp_path / "none.json")
    path = tmp_path / "broken.json"
    path.write_text("{")
    with pytest.raises(PromptError, match=r"broken\.json: Expecting"):
        load_prompt_set(path)
    path.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(PromptError, match=r"broken\.json: .*decode"):
        load_prompt_set(path)


@given(st.text(max_size=40), st.text(max_size=40), st.text(max_size=40))
def test_any_wording_around_the_placeholders_is_kept(first: str, second: str, third: str) -> None:
    question = f"{first}{{x}}{second}{{y}}{third}"
    assume(question.count("{x}") == question.count("{y}") == 1)
    prompts = dataclasses.replace(VLM3, depth=DepthPrompt(question, "<a>{value}</a>", 1))
    assert depth_question(prompts, (17, 4)) == f"{first}17{second}4{third}"
