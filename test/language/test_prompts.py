# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from vlm3_ros.language import prompts
from vlm3_ros.language.prompts import load_prompt_set, parse_prompt_set
from vlm3_ros.language.templates import PromptError
from vlm3_ros.language.wordings.correspondence import (
    CorrespondenceWording,
    correspondence_answer,
    correspondence_question,
)
from vlm3_ros.language.wordings.depth import DepthWording, depth_answer, depth_question, parse_depth
from vlm3_ros.language.wordings.objects import (
    QUANTITIES,
    RELATIONS,
    ObjectsWording,
    hour_answer,
    metres_answer,
    object_question,
    relation_answer,
)
from vlm3_ros.language.wordings.pose import (
    PoseQuestion,
    PoseWording,
    coarse_direction,
    parse_rotation,
    pose_answers,
)

FOLDER = Path(prompts.__file__).parent / "prompt_sets"
SHIPPED = sorted(path.stem for path in FOLDER.glob("*.json"))

VLM3 = load_prompt_set("vlm3")
DEPTH, POSE, MATCH = VLM3[DepthWording], VLM3[PoseWording], VLM3[CorrespondenceWording]

OWN: dict[str, Any] = {
    "name": "own",
    "text_range": 1000,
    "depth": {
        "question": "How far is {y}, {x}? {not a placeholder}",
        "answer": "It is {value} m away.",
        "decimals": 3,
    },
}


def test_the_depth_question_is_that_of_the_models_readme() -> None:
    norm_x, norm_y = 1234, 56
    readme = (
        f"Given this image, how far is the point at coordinates ({norm_x}, {norm_y}) "
        "from the camera? The coordinates are in normalised [0, 2000] format relative "
        "to image width and height. Output the thinking process in <think> </think> "
        "and final answer (the meter number only, without the unit) in <answer> </answer> tags."
    )
    assert depth_question(DEPTH, (norm_x, norm_y), VLM3.text_range) == readme
    assert VLM3.text_range == 2000
    assert VLM3.name == "vlm3"


def test_the_two_view_questions_are_those_of_the_paper() -> None:
    assert POSE.distance.question == (
        "Estimate the magnitude of the camera translation between the two viewpoints."
    )
    assert POSE.direction.question == (
        "Using the first camera as the reference frame, describe the displacement of the camera "
        "between the two views. Use the first camera's local axes (X = right, Y = down, Z = "
        "forward) and give a qualitative direction together with the precise unit direction "
        "vector (x, y, z)."
    )
    assert POSE.rotation.question == (
        "Treating the first image as the reference viewpoint, describe the camera's reorientation "
        "needed to reach the second image's viewpoint as yaw, pitch and roll about the first "
        "camera's local axes, applied intrinsically in the order yaw -> pitch -> roll. "
        "Conventions: yaw is rotation about the vertical (down) axis, positive = turn right; "
        "pitch is about the lateral (right) axis after yaw, positive = look up; roll is about the "
        "optical (forward) axis after yaw and pitch, positive = bank to the right (image content "
        "rotates clockwise from the operator's POV)."
    )
    assert correspondence_question(MATCH, (17, 1999), 2000) == (
        "Given these two images, what pixel in the second image corresponds to pixel (17, 1999) "
        "in the first image? Report the answer as (x2, y2)."
    )
    assert correspondence_answer(MATCH, (0, 3), 2000) == ("The corresponding pixel is (0, 3).")


def test_a_motion_is_worded_as_in_the_paper() -> None:
    root = math.sqrt(0.5)
    assert pose_answers(POSE, 0.5, (root, -1e-9, -root), (-0.0001, 7.126, -179.996)) == (
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
    with pytest.raises(PromptError, match=message):
        pose_answers(POSE, distance, direction, angles)


def test_a_set_without_two_views_is_still_read() -> None:
    for extra in ({}, {"pose": None, "correspondence": None}):
        own = parse_prompt_set({**OWN, **extra})
        assert list(own.wordings) == ["depth"]


def pose_prompts(
    distance: str = "<{value}>",
    direction: str = "<{x} {y} {z}>",
    rotation: str = "<{yaw} {pitch} {roll}>",
) -> PoseWording:
    return PoseWording(
        *(PoseQuestion("?", answer, 1) for answer in (distance, direction, rotation))
    )


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


def test_depth_may_be_repeated_only_in_the_thinking() -> None:
    think = "<think> {value} or {value} </think>"
    wording = DepthWording("({x}, {y})?", f"{think} It is {{value}} m.", 1)
    assert depth_answer(wording, 2) == "<think> 2.0 or 2.0 </think> It is 2.0 m."
    assert parse_depth("<think> 3.0 or 2.5 </think> It is 2.0 m.", wording) == 2
    for answer in ("It is {value} m, so {value} m.", f"{think} It is {{value}}.</think>", think):
        with pytest.raises(PromptError, match=r"depth answer must hold {value} once"):
            DepthWording("({x}, {y})?", answer, 1)


def test_the_rotation_angle_is_optional() -> None:
    question = PoseQuestion("?", "<{value}>", 1)
    parts = [getattr(POSE, name) for name in ("distance", "direction", "rotation")]
    assert list(POSE.parts) == ["distance", "direction", "rotation"]
    four = PoseWording(*parts, question)
    assert list(four.parts) == ["distance", "direction", "rotation", "angle"]
    assert four.templates() == [*POSE.templates(), "?", "<{value}>"]
    assert pose_answers(four, 1, (0, 0, 1), (0, 30, 0))[3] == "<30.0>"
    with pytest.raises(PromptError, match=r"the angle answer must hold {value} once"):
        PoseWording(*parts, replace(question, answer="far"))


def test_numbers_have_a_plus_sign_if_the_wording_says_so() -> None:
    signed = replace(POSE, rotation=replace(POSE.rotation, signed=True))
    answer = pose_answers(signed, 1, (0, 0, 1), (1, -2, -0.0001))[2]
    assert answer == "Yaw=+1.00, Pitch=-2.00, Roll=+0.00."
    assert parse_rotation(answer, signed).tolist() == [1, -2, 0]


def with_objects(**changes: Any) -> dict[str, Any]:
    data = VLM3.to_json()
    return {**data, "objects": {**data["objects"], **changes}}


def test_questions_and_answers_about_objects_may_have_several_phrasings() -> None:
    by_relation = {name: [f"Yes, {{a}} is {name}.", "Yes."] for name in RELATIONS}
    metres = dict.fromkeys(QUANTITIES, "{a} measures {value} meters.")
    hour = ["At {value} o'clock.", "{b} is at {value} o'clock."]
    several = parse_prompt_set(with_objects(yes=by_relation, metres=metres, hour=hour))
    objects, boxes = several[ObjectsWording], [(1, 2, 3, 4), (5, 6, 7, 8)]
    assert parse_prompt_set(several.to_json()) == several
    assert relation_answer(objects, "tall", holds=True) == "Yes, {a} is tall."
    assert relation_answer(objects, "tall", holds=False) == "No."
    answer = metres_answer(objects, 2, "width")
    assert object_question(objects, answer, boxes, 2000) == (
        "the object at (1, 2, 3, 4) measures 2.00 meters."
    )
    assert hour_answer(objects, 4) == "At 4 o'clock."
    # The number stands at one place only if there is one form for all answers.
    assert VLM3[ObjectsWording].length_template == "It is {value} meters."
    assert objects.length_template is None
    assert replace(objects, metres="{a}: {value} m.").length_template is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"yes": {"tall": "Yes."}}, "yes of objects must be below, above"),
        ({"no": ["No.", "Yes."]}, "yes and no must be two different texts"),
        ({"yes": ["Yes.", " "]}, "yes and no must be two different texts"),
        ({"yes": []}, "no text for below about objects"),
        ({"yes": 3}, "yes of objects must hold texts"),
        ({"yes": {"tall": [3]}}, "yes of objects must hold texts"),
        ({"metres": {"width": "{value} m"}}, "metres of objects must be direct_distance"),
        ({"metres": ["It is {value} m.", "far"]}, "answer in metres must hold {value} once"),
        ({"metres": "From {b} it is {value} m."}, "must not hold {b}"),
        ({"hour": ["At {value}"]}, "the answer with the hour must enclose"),
        ({"direction": ["Where is {b}?"]}, "the question 'direction' must hold {a} once"),
        ({"relations": ["Is {a} left of {b}?"]}, "relations of objects must be of type dict"),
        ({"any_form": 1}, "any_form of objects must be of type bool"),
        ({"some_form": True}, "objects must hold .*may hold any_form.*, not .*some_form"),
    ],
)
def test_wrong_phrasings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PromptError, match=message):
        parse_prompt_set(with_objects(**changes))


def test_correspondence_needs_x_and_y_in_question_and_answer() -> None:
    with pytest.raises(PromptError, match=r"correspondence question must hold {y} once"):
        CorrespondenceWording("({x})?", "({x}, {y})")
    with pytest.raises(PromptError, match="correspondence answer must enclose"):
        CorrespondenceWording("({x}, {y})?", "({x}, {y}")


def test_answers_are_worded_with_the_decimals_of_the_set() -> None:
    assert depth_answer(DEPTH, 3.14159) == "<think> </think> <answer>3.14</answer>"
    assert depth_answer(DEPTH, 12) == "<think> </think> <answer>12.00</answer>"
    assert depth_answer(DEPTH, np.float32(0.1)) == "<think> </think> <answer>0.10</answer>"
    assert depth_answer(parse_prompt_set(OWN)[DepthWording], 3.14159) == "It is 3.142 m away."


def test_a_custom_set_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "own.json"
    path.write_text(json.dumps(OWN))
    for name in (path, str(path)):
        own = load_prompt_set(name)
        assert (
            depth_question(own[DepthWording], np.array([7, 999]), own.text_range)
            == "How far is 999, 7? {not a placeholder}"
        )
    with pytest.raises(PromptError, match="outside of the text range"):
        depth_question(own[DepthWording], (1000, 0), own.text_range)


def test_a_set_need_not_word_depth() -> None:
    pose = parse_prompt_set({**VLM3.to_json(), "depth": None, "objects": None})
    assert list(pose.wordings) == ["pose", "correspondence"]
    assert pose[PoseWording] == POSE
    with pytest.raises(PromptError, match="prompt set 'vlm3' has no depth questions"):
        pose[DepthWording]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_set_is_written_as_it_was_read(name: str) -> None:
    path = FOLDER / f"{name}.json"
    written = json.dumps(load_prompt_set(name).to_json(), indent=2, ensure_ascii=False)
    assert written == path.read_text(encoding="utf-8").rstrip("\n")


def test_questions_about_objects_must_be_texts() -> None:
    data = VLM3.to_json()
    data["objects"]["relations"]["below"] = 3
    with pytest.raises(PromptError, match="relations of objects must hold texts"):
        parse_prompt_set(data)


def test_a_set_survives_its_json_form() -> None:
    for prompt_set in (VLM3, parse_prompt_set(OWN), VLM3.without("depth", "objects")):
        written = json.loads(json.dumps(prompt_set.to_json()))
        assert parse_prompt_set(written) == prompt_set


@pytest.mark.parametrize("coordinates", [(-1, 0), (0, 2000), (5000, 3)])
def test_coordinates_outside_of_the_range_are_refused(coordinates: tuple[int, int]) -> None:
    with pytest.raises(PromptError, match=r"outside of the text range \[0, 2000\)"):
        depth_question(DEPTH, coordinates, VLM3.text_range)


@pytest.mark.parametrize("metres", [0.0, -1.0, 0.004, math.nan, math.inf])
def test_a_depth_that_cannot_be_worded_is_refused(metres: float) -> None:
    with pytest.raises(PromptError, match="cannot be worded"):
        depth_answer(DEPTH, metres)


def changed(**changes: Any) -> dict[str, Any]:
    depth = {key: changes.pop(key) for key in OWN["depth"] if key in changes}
    return {**OWN, **changes, "depth": {**OWN["depth"], **depth}}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "the prompt set must be an object with name, text_range"),
        ({"name": "x"}, "the prompt set must hold name, text_range .*depth.*, not name"),
        ({"name": "x", "text_range": 9}, "must hold at least one of depth, pose, correspondence"),
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
def test_a_wrong_set_is_refused_with_the_reason(tmp_path: Path, data: object, message: str) -> None:
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
    wording = DepthWording(question, "<a>{value}</a>", 1)
    assert depth_question(wording, (17, 4), 2000) == f"{first}17{second}4{third}"
