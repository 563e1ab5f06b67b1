# SPDX-License-Identifier: Apache-2.0
"""The questions, labels and parsers of the authors' notebook, checkpoint by checkpoint."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from vlm3_ros.language.answers import MAX_CHARACTERS, AnswerError, Reason
from vlm3_ros.language.prompts import load_prompt_set
from vlm3_ros.language.templates import PromptError
from vlm3_ros.language.wordings.correspondence import (
    CorrespondenceWording,
    correspondence_answer,
    correspondence_question,
    parse_point,
)
from vlm3_ros.language.wordings.depth import DepthWording, depth_answer, depth_question, parse_depth
from vlm3_ros.language.wordings.objects import (
    QUANTITIES,
    RELATIONS,
    SIZES,
    ObjectsWording,
    hour_answer,
    metres_answer,
    object_question,
    parse_hour,
    parse_length,
    parse_relation,
    phrasings,
    relation_answer,
)
from vlm3_ros.language.wordings.pose import (
    PoseWording,
    parse_angle,
    parse_direction,
    parse_distance,
    parse_rotation,
    pose_answers,
    pose_questions,
)

SETS = {
    name: load_prompt_set(f"vlm3-{name}")
    for name in ("depth", "pose", "corr", "corr-think", "object")
}
DEPTH, POSE = SETS["depth"][DepthWording], SETS["pose"][PoseWording]
CORR, THINK = (SETS[name][CorrespondenceWording] for name in ("corr", "corr-think"))
OBJECTS = SETS["object"][ObjectsWording]
BOXES = (0, 39, 652, 999), (6, 380, 228, 562)
A, B = (f"bounding box region {box}" for box in BOXES)


def read(reader: str, text: str, may_be_cut: bool = True) -> Any:
    return {
        "depth": lambda: parse_depth(text, DEPTH),
        "angle": lambda: parse_angle(text, POSE),
        "rotation": lambda: parse_rotation(text, POSE, may_be_cut),
        "direction": lambda: parse_direction(text, POSE, may_be_cut),
        "distance": lambda: parse_distance(text, POSE),
        "point": lambda: parse_point(text, CORR, 1000, may_be_cut),
        "point after thinking": lambda: parse_point(text, THINK, 1000, may_be_cut),
        "relation": lambda: parse_relation(text, any_form=True),
        "length": lambda: parse_length(text, any_form=True),
        "hour": lambda: parse_hour(text),
    }[reader]()


READERS = (
    *("depth", "angle", "rotation", "direction", "distance"),
    *("point", "point after thinking", "relation", "length", "hour"),
)


def test_the_questions_are_those_of_the_notebook() -> None:
    assert depth_question(DEPTH, (16, 1061), 2000) == (
        "Given this image, how far is the point at coordinates (16, 1061) from the camera? The "
        "coordinates are in normalised [0, 2000] format relative to image width and height. "
        "Output the thinking process in <think> </think> and final answer (the meter number only, "
        "without the unit) in <answer> </answer> tags."
    )
    assert pose_questions(POSE) == [
        "Estimate the magnitude of the camera translation between the two viewpoints.",
        "Where did the camera move, expressed in the first camera's local frame (X right, Y down, "
        "Z forward)?  Give a qualitative direction and the precise unit direction vector "
        "(x, y, z).",
        "Treating the first image as the reference viewpoint, describe the camera's reorientation "
        "needed to reach the second image's viewpoint as yaw, pitch and roll about the first "
        "camera's local axes, applied intrinsically in the order yaw -> pitch -> roll.  "
        "Conventions: yaw is rotation about the vertical (down) axis, positive = turn right; "
        "pitch is about the lateral (right) axis after yaw, positive = look up; roll is about the "
        "optical (forward) axis after yaw and pitch, positive = bank to the right (image content "
        "rotates clockwise from the operator's POV).",
        "Given these two images captured from different viewpoints, what is the relative rotation "
        "angle (in degrees) between the two camera poses?",
    ]
    match = (
        "Given these two images, what pixel in the second image corresponds to pixel (440, 60) in "
        "the first image? Report the answer as (x, y)."
    )
    assert correspondence_question(CORR, (440, 60), 1000) == match
    assert correspondence_question(THINK, (440, 60), 1000) == (
        f"{match} Please think step by step and follow the format: "
        '"<think> [think process] </think>\n\n[answer]".'
    )
    asked = [object_question(OBJECTS, text, BOXES, 1000) for text in OBJECTS.relations["small"]]
    assert f"Can you confirm if {A} is smaller than {B}?" in asked
    assert [prompts.text_range for prompts in SETS.values()] == [2000, 2000, 1000, 1000, 1000]


def test_the_labels_are_the_answers_that_are_worded() -> None:
    assert depth_answer(DEPTH, 3.449) == (
        "<think> The point is around 3.45 meters away from the camera. </think>\n"
        "<answer> 3.45 </answer>"
    )
    direction = np.array([-0.69, 0.02, 0.72]) / math.hypot(0.69, 0.02, 0.72)
    assert pose_answers(POSE, 1.9807, direction, (89.600772, 2.598684, 6.072328)) == (
        "Translation distance: 1.98 meters",
        "The camera moves left, forward, unit vector (-0.69, +0.02, +0.72).",
        "Yaw=+89.6°, Pitch=+2.6°, Roll=+6.1°",
        "Rotation angle: 89.7 degrees",
    )
    assert correspondence_answer(CORR, (338, 52), 1000) == "(338, 52)"
    answers = [object_question(OBJECTS, text, BOXES, 1000) for text in OBJECTS.no["small"]]
    assert f"Incorrect, {A} is not smaller in size than {B}." in answers


@pytest.mark.parametrize(
    ("reader", "text", "value"),
    [
        # The labels.
        (
            "depth",
            "<think> The point is around 3.45 meters away from the camera. </think>\n"
            "<answer> 3.45 </answer>",
            3.45,
        ),
        ("angle", "Rotation angle: 89.7 degrees", 89.7),
        ("rotation", "Yaw=+89.6°, Pitch=+2.6°, Roll=+6.1°", (89.6, 2.6, 6.1)),
        (
            "direction",
            "The camera moves left, forward, unit vector (-0.69, +0.02, +0.72).",
            np.array([-0.69, 0.02, 0.72]) / math.hypot(0.69, 0.02, 0.72),
        ),
        ("distance", "Translation distance: 1.98 meters", 1.98),
        ("point", "(338, 52)", (338, 52)),
        ("point after thinking", "<think> [a (1, 2)] </think>\n\n(338, 52)", (338, 52)),
        ("relation", f"Incorrect, {A} is not smaller in size than {B}.", False),
        # What else their parsers accept.
        ("depth", "<think> 9 </think><answer>\n+3.4e0\n</answer>", 3.4),
        ("angle", "<think>12 degrees</think>89.7°", 89.7),
        ("angle", "It is 89.7 deg.", 89.7),
        ("angle", "angle:90 DEGREES", 90),
        ("rotation", "yaw 89.6, PITCH +2.6, roll = \u22126.1", (89.6, 2.6, -6.1)),
        ("rotation", "Roll=3.0, Pitch=2.0, Yaw=1.0", (1, 2, 3)),
        ("rotation", "Yaw: 1°; pitch: 2 degrees; roll: 3 deg", (1, 2, 3)),
        ("rotation", "Yaw=1, Pitch=2, Roll=3. (Pitch=2.0)", (1, 2, 3)),
        ("direction", "0.00, 0.60, 0.80", (0, 0.6, 0.8)),
        ("direction", "[0,\u22120.6,+0.8]", (0, -0.6, 0.8)),
        ("direction", "2 parts, (0, 0.6, 0.8) and (0.0, 0.60, 0.80)", (0, 0.6, 0.8)),
        ("distance", "1.98m", 1.98),
        ("distance", "The camera moved by 1.98 metres.", 1.98),
        ("point", "338,52.", (338, 52)),
        ("point", "[338.5 , 52]", (338.5, 52)),
        ("point", "(x, y) = (338, 52)", (338, 52)),
        ("point", "<answer>(338, 52)</answer>", (338, 52)),
        # In many words.
        ("relation", "Affirmative.", True),
        ("relation", "Right, it is.", True),
        ("relation", "That's right.", True),
        ("relation", "The answer is yes.", True),
        ("relation", f"Let me see. Yes, {A} is smaller.", True),
        ("relation", f"Correct, {A} is not as tall as {B}.", True),
        ("relation", "That is wrong.", False),
        ("relation", "It is not true.", False),
        ("relation", "Not really.", False),
        ("relation", f"{A} is not smaller than {B}.", False),
        ("relation", f"{A} isn't to the right of {B}.", False),
        ("relation", f"Actually, {A} is to the right of {B}.", False),
        ("relation", f"In fact, {A} is to the right of {B}.", False),
        ("length", f"{A} is 48.47 centimeters wide.", 0.4847),
        ("length", f"{A} and {B} are 22.32 feet apart.", 22.32 * 0.3048),
        ("length", "35.9 inches", 35.9 * 0.0254),
        ("length", "5 feet 3 inches", 63 * 0.0254),
        ("length", "It is 5'3\".", 63 * 0.0254),
        ("length", "3 ft 2 in", 38 * 0.0254),
        ("length", "3 ft. 2 in.", 38 * 0.0254),
        ("length", "3 feet, 2 inches", 38 * 0.0254),
        ("distance", "~1.98 m (6.5 feet)", 1.98),
        ("rotation", "yaw 1.0 and pitch -2.0 and roll 3.0 degrees", (1, -2, 3)),
        ("hour", f"{A} will find {B} around the 3 o'clock direction.", 3),
        ("hour", "at Three o'clock", 3),
    ],
)
def test_answers_of_the_checkpoints_are_read(reader: str, text: str, value: object) -> None:
    assert read(reader, text) == pytest.approx(np.array(value), rel=1e-12)
    assert read(reader, text, may_be_cut=False) == pytest.approx(np.array(value), rel=1e-12)


@pytest.mark.parametrize(
    ("reader", "text", "reason"),
    [
        ("depth", "The point is around 3.45 meters away.", "no answer"),
        ("depth", "<answer>3.4</answer> <answer>3.5</answer>", "several answers"),
        ("angle", "Rotation angle: 89.7", "no answer"),
        ("angle", "Yaw=+89.6°, Pitch=+2.6°, Roll=+6.1°", "several answers"),
        ("angle", "80 to 90 degrees", "several answers"),
        ("angle", "-3 degrees", "negative"),
        ("angle", "270 degrees", "out of range"),
        ("angle", "nan degrees", "not finite"),
        ("angle", "<think> 3 degrees", "cut off"),
        ("rotation", "Yaw=+89.6°, Pitch=+2.6°", "no answer"),
        ("rotation", "Yaw=1,5, Pitch=2.0, Roll=3.0", "no answer"),
        ("rotation", "Yaw=1.2.3, Pitch=2.0, Roll=3.0", "no answer"),
        ("rotation", "Yaw=1°, Pitch=2°, Roll=3°, but yaw 4°", "several answers"),
        ("rotation", "Yaw=181°, Pitch=0°, Roll=0°", "out of range"),
        ("rotation", "Yaw=inf, Pitch=0°, Roll=0°", "not finite"),
        ("direction", "(0.6, 0.8)", "no answer"),
        ("direction", "-0,69, 0,02, 0,72", "several answers"),
        ("direction", "(0, 0, 1) or (0, 1, 0)", "several answers"),
        ("direction", "(0.5, 0.5, 0.5)", "not a unit vector"),
        ("direction", "(nan, 0, 1)", "not finite"),
        ("distance", "Translation distance: 1.98", "no answer"),
        ("distance", "1.98 meters/s", "no answer"),
        ("distance", "between 1 and 2 meters", "several answers"),
        ("distance", "-1.98 meters", "negative"),
        # A mixture of forms.
        ("distance", "Translation distance: 1.98 meters. So 2 m.", "several answers"),
        (
            "rotation",
            "Yaw=+1.0°, Pitch=+2.0°, Roll=+3.0°. Yaw 1, pitch 3, roll 3.",
            "several answers",
        ),
        # Ranges, fractions, tolerances, and other units.
        ("distance", "1.98 \u00b1 0.2 meters", "several answers"),
        ("distance", "2~3 m", "several answers"),
        ("distance", "1/2 meters", "several answers"),
        ("distance", "2 meters to 3", "several answers"),
        ("distance", "2m-3m", "several answers"),
        ("distance", "2 meters and 30 centimeters", "several answers"),
        ("distance", "2.0 ... 3.0 meters", "several answers"),
        ("rotation", "Yaw=1.0 rad, Pitch=0.2 rad, Roll=0.3 rad", "no answer"),
        ("rotation", "Yaw=1.0 to 2.0\u00b0, Pitch=2.0\u00b0, Roll=3.0\u00b0", "no answer"),
        ("rotation", "Yaw=1.0\u00b0 or 2.0\u00b0, Pitch=2.0\u00b0, Roll=3.0\u00b0", "no answer"),
        ("rotation", "Yaw=1.0-2.0\u00b0, Pitch=2.0\u00b0, Roll=3.0\u00b0", "no answer"),
        ("length", "1 1/2 feet", "several answers"),
        ("length", "1.42 \u00b1 0.2 m", "several answers"),
        ("length", "5 ft 3", "several answers"),
        ("length", "2 meters to 3", "several answers"),
        ("hour", "2~3 o'clock", "several answers"),
        # Thinking that has not ended.
        ("relation", "<think> Yes", "cut off"),
        ("length", "<think> 4 m", "cut off"),
        ("hour", "<think> 2 o'clock", "cut off"),
        ("relation", "Indeed not.", "no answer"),
        ("point", "(338, 52), that is 339, 52.", "several answers"),
        ("point", "(440, 60) is at (338, 52)", "several answers"),
        ("point", "(338, 52, 7)", "several answers"),
        ("point", "The corresponding pixel is (x, y).", "no answer"),
        ("point", "338 and 52", "no answer"),
        ("point", "(1000, 3)", "out of range"),
        ("point", "(0.338, 0.052)", "not a whole number"),
        ("point", "(-1, 3)", "out of range"),
        ("point", "<think> at (338, 52)", "cut off"),
        ("point after thinking", "So (440, 60) is at (338, 52)", "cut off"),
        ("relation", f"{A} is to the right of {B}.", "no answer"),
        ("relation", f"Right of {A}.", "no answer"),
        ("relation", f"{A} is smaller, correct?", "no answer"),
        ("relation", "It is not clear.", "no answer"),
        ("relation", "I am not sure.", "no answer"),
        ("relation", "No idea.", "no answer"),
        ("relation", "Yes. No.", "several answers"),
        ("relation", "Actually, that is correct.", "several answers"),
        ("relation", "Not wrong.", "several answers"),
        ("relation", "Correct me if I am wrong", "several answers"),
        ("length", "5 feet or 3 inches", "several answers"),
        ("length", "5 feet 30 inches", "several answers"),
        ("length", "5'", "no answer"),
        ("hour", "two or three o'clock", "several answers"),
        ("hour", "twenty-three o'clock", "no answer"),
        ("angle", " " * (MAX_CHARACTERS + 1), "too long"),
    ],
)
def test_what_could_mean_two_things_is_refused(reader: str, text: str, reason: Reason) -> None:
    with pytest.raises(AnswerError) as raised:
        read(reader, text)
    assert raised.value.reason == reason
    assert raised.value.text == text


@pytest.mark.parametrize(
    ("reader", "text", "cut", "whole"),
    [
        # One decimal was learned: a number without it may go on.
        ("rotation", "Yaw=+89.6°, Pitch=+2.6°, Roll=+6.", None, (89.6, 2.6, 6)),
        ("rotation", "Yaw=+89.6°, Pitch=+2.6°, Roll=+6", None, (89.6, 2.6, 6)),
        ("rotation", "Yaw 90, Pitch 0, Roll 0", None, (90, 0, 0)),
        ("rotation", "Yaw=+89.6°, Pitch=+2.6°, Roll=+6.1", (89.6, 2.6, 6.1), (89.6, 2.6, 6.1)),
        ("direction", "(+0.00, -0.60, +0.8", None, (0, -0.6, 0.8)),
        ("direction", "(+0.00, -0.60, +0.80", (0, -0.6, 0.8), (0, -0.6, 0.8)),
        # A whole number may always go on.
        ("point", "338, 5", None, (338, 5)),
        ("point", "(338, 5", None, (338, 5)),
        ("point", "338, 5\n", (338, 5), (338, 5)),
        ("point after thinking", "(338, 52)", None, (338, 52)),
    ],
)
def test_a_number_that_may_go_on_is_cut_off(reader: str, text: str, cut: Any, whole: Any) -> None:
    for may_be_cut, value in ((True, cut), (False, whole)):
        if value is None:
            with pytest.raises(AnswerError, match="cut off"):
                read(reader, text, may_be_cut)
        else:
            assert read(reader, text, may_be_cut) == pytest.approx(value)


@pytest.mark.parametrize(
    ("reader", "answer"),
    [
        ("rotation", "Yaw=-12.3°, Pitch=+5.6°, Roll=-89.9°"),
        ("direction", "The camera moves right, unit vector (+0.98, -0.14, +0.14)."),
        ("point", "(338, 52)"),
        ("distance", "Translation distance: 12.98 meters"),
        ("angle", "Rotation angle: 89.7 degrees"),
    ],
)
def test_the_beginning_of_an_answer_is_refused_or_has_the_same_value(
    reader: str, answer: str
) -> None:
    value = read(reader, answer)
    for length in range(len(answer)):
        try:
            beginning = read(reader, answer[:length])
        except AnswerError:
            continue
        np.testing.assert_array_equal(beginning, value)


def test_sets_without_the_angle_do_not_read_it() -> None:
    pose = load_prompt_set("vlm3")[PoseWording]
    assert len(pose_questions(pose)) == 3
    with pytest.raises(PromptError, match="does not ask for the rotation angle"):
        parse_angle("89.7 degrees", pose)


def test_phrasings_of_objects_agree_with_how_they_are_read() -> None:
    """Whatever phrasing a model says, true is read as true, and lengths and hours come back."""

    def worded(texts: Any, name: str = "") -> list[str]:
        return [
            object_question(OBJECTS, text.replace("{value}", "7"), BOXES, 1000)
            for text in phrasings(texts, name)
        ]

    for relation in RELATIONS:
        assert len(worded(OBJECTS.relations, relation)) >= 3
        for text in worded(OBJECTS.yes, relation):
            assert parse_relation(text) and parse_relation(text, any_form=True), text
        for text in worded(OBJECTS.no, relation):
            assert not parse_relation(text) and not parse_relation(text, any_form=True), text
    for quantity in QUANTITIES:
        assert len(worded(OBJECTS.quantities, quantity)) >= 8
        for text in worded(OBJECTS.metres, quantity):
            assert parse_length(text) == parse_length(text, any_form=True) == 7, text
    assert [parse_hour(text) for text in worded(OBJECTS.hour)] == [7, 7]
    for text in OBJECTS.templates():
        assert "{a}" not in text and "{b}" not in text


degrees = st.floats(-179, 179)
number = st.integers(0, 999)


@given(st.floats(0, 1e5), st.tuples(*[st.floats(-1, 1)] * 3), st.tuples(*[degrees] * 3))
def test_a_worded_motion_is_read_back(
    distance: float, vector: tuple[float, ...], angles: tuple[float, ...]
) -> None:
    assume(math.hypot(*vector) > 0.01)
    direction = np.array(vector) / math.hypot(*vector)
    ypr = np.array(angles) * (1, 0.5, 1)
    texts = pose_answers(POSE, distance, direction, ypr)
    assert parse_distance(texts[0], POSE) == pytest.approx(distance, abs=0.50001e-2)
    np.testing.assert_allclose(parse_direction(texts[1], POSE), direction, atol=1.5e-2)
    np.testing.assert_allclose(parse_rotation(texts[2], POSE), ypr, atol=0.050001)
    assert 0 <= parse_angle(texts[3], POSE) <= 180


@given(st.sampled_from([CORR, THINK]), number, number)
def test_a_worded_pixel_is_read_back(wording: CorrespondenceWording, x: int, y: int) -> None:
    answer = correspondence_answer(wording, (x, y), 1000)
    assert parse_point(answer, wording, 1000).tolist() == [x, y]


@given(st.floats(0.01, 1e5))
def test_a_worded_depth_is_read_back(metres: float) -> None:
    assert parse_depth(depth_answer(DEPTH, metres), DEPTH) == pytest.approx(metres, abs=0.50001e-2)


box = st.tuples(number, number, number, number)


@given(st.data(), box, box)
def test_worded_answers_about_objects_are_read_back(data: st.DataObject, a: Any, b: Any) -> None:
    def named(text: str) -> str:
        return object_question(OBJECTS, text, (a, b), 1000)

    relation, holds = data.draw(st.sampled_from(RELATIONS)), data.draw(st.booleans())
    assert parse_relation(named(relation_answer(OBJECTS, relation, holds)), any_form=True) is holds
    quantity, metres = data.draw(st.sampled_from(QUANTITIES)), data.draw(st.floats(0.01, 1e5))
    length = parse_length(named(metres_answer(OBJECTS, metres, quantity)), any_form=True)
    assert length == pytest.approx(metres, abs=0.50001e-2)
    hour = data.draw(st.integers(1, 12))
    assert parse_hour(named(hour_answer(OBJECTS, hour))) == hour


pieces = st.sampled_from(
    [
        *("Yaw=", " pitch ", "roll:", "°", " degrees", "deg", "(", ")", ", ", ",", ".", " ", "\n"),
        *("+0.60", "-0.8", "338", "52", "\u2212", "1e9", "nan", " m", " meters", "<think>"),
        *("</think>", "<answer>", "yes", "No", "not ", "right", "Actually, ", "is ", " to ", "'"),
        *('"', "feet ", "in", "3 o'clock", "two ", A, "(338, 52)", "Rotation angle: 89.7 degrees"),
    ]
)


@given(st.sampled_from(READERS), st.lists(pieces).map("".join) | st.text(), st.booleans())
def test_any_text_gives_a_finite_value_or_an_answer_error(
    reader: str, text: str, may_be_cut: bool
) -> None:
    try:
        value = read(reader, text, may_be_cut)
    except AnswerError:
        return
    assert np.isfinite(value).all()


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    "piece",
    [
        *("1", "1 ", "1,", "1 , ", "1.", "1 and ", "yaw ", "yaw= ", "pitch 1", "-", " ", "\u2212"),
        *(
            "<",
            "not ",
            ". ",
            "is not ",
            "n't",
            "1'",
            "1 ft 1 ",
            "1 m 1 ",
            "1 / ",
            "inf ",
            "two or ",
            "°",
            "(1, 2) x",
        ),
    ],
)
def test_a_runaway_answer_is_read_in_one_pass(reader: str, piece: str) -> None:
    """Quadratic matching of the longest text would exceed the suite's timeout."""
    for text in (piece * (MAX_CHARACTERS // len(piece)), f"yaw{' ' * (MAX_CHARACTERS - 9)}(1"):
        try:
            read(reader, text)
        except AnswerError:
            continue


def test_lengths_of_sizes_cannot_name_a_second_object() -> None:
    assert all("{b}" not in text for size in SIZES for text in phrasings(OBJECTS.metres, size))
