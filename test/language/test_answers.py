# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from collections.abc import Callable
from typing import get_args

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from vlm3_ros.language.answers import (
    FARTHEST_METRES,
    MAX_CHARACTERS,
    NEAREST_METRES,
    AnswerError,
    Reason,
)
from vlm3_ros.language.prompts import load_prompt_set
from vlm3_ros.language.wordings.correspondence import (
    CorrespondenceWording,
    correspondence_answer,
    parse_point,
)
from vlm3_ros.language.wordings.depth import DepthWording, depth_answer, parse_depth
from vlm3_ros.language.wordings.objects import (
    ObjectsWording,
    hour_answer,
    metres_answer,
    parse_hour,
    parse_length,
    parse_relation,
)
from vlm3_ros.language.wordings.pose import (
    PoseQuestion,
    PoseWording,
    parse_direction,
    parse_distance,
    parse_rotation,
    pose_answers,
)

VLM3 = load_prompt_set("vlm3")


DEPTH, POSE = VLM3[DepthWording], VLM3[PoseWording]
MATCH, OBJECTS = VLM3[CorrespondenceWording], VLM3[ObjectsWording]


def with_answer(answer: str, decimals: int = 2) -> DepthWording:
    return DepthWording("({x}, {y})?", answer, decimals)


TEMPLATES = [
    DEPTH.answer,
    "<answer>{value}</answer>",
    "The depth is {value} meters.",
    "[depth] {value} [end]",
    "({value})",
]


@pytest.mark.parametrize(
    ("text", "metres"),
    [
        ("<think> </think> <answer>3.14</answer>", 3.14),
        ("<answer>7</answer>", 7.0),
        ("<answer> .5\n</answer>", 0.5),
        ("<answer>+2.</answer>", 2.0),
        ("<answer>1.5e1</answer>", 15.0),
        ("<answer>2.5 m</answer>", 2.5),
        ("<answer>2.5 Meters</answer>", 2.5),
        ("<think>4 m? No, 9.</think>\n\n<answer>3.0</answer> Sure!<|im_end|>", 3.0),
        ("<think>Into <answer> </answer> goes <answer>5</answer>?</think><answer>3</answer>", 3.0),
        ("<answer>3</answer> so <answer>3.0</answer>", 3.0),
        ("<answer>the <answer>3.5</answer>", 3.5),
    ],
)
def test_the_number_in_the_answer_tags_counts(text: str, metres: float) -> None:
    assert parse_depth(text, DEPTH) == metres


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no answer"),
        ("3.14", "no answer"),
        ("<think> </think> 3.14", "no answer"),
        ("<answer>3.1", "no answer"),
        ("<think><answer>3.1</answer></think>", "no answer"),
        ("3.1</answer>", "no answer"),
        ("<answer></answer>", "not a number"),
        ("<answer>far away</answer>", "not a number"),
        ("<answer>3,5</answer>", "not a number"),
        ("<answer>3.5 feet</answer>", "not a number"),
        ("<answer>3.5 cm</answer>", "not a number"),
        ("<answer>2 3</answer>", "not a number"),
        ("<answer>1_000</answer>", "not a number"),
        ("<answer>0x10</answer>", "not a number"),
        ("<answer>٣</answer>", "not a number"),
        ("<answer>1.2.3</answer>", "not a number"),
        ("<answer>nan</answer>", "not finite"),
        ("<answer>-Infinity</answer>", "not finite"),
        ("<answer>inf</answer>", "not finite"),
        ("<answer>1e999</answer>", "not finite"),
        ("<answer>0.00</answer>", "not positive"),
        ("<answer>-3.2</answer>", "not positive"),
        ("<answer>1e-999</answer>", "not positive"),
        ("<answer>1e30</answer>", "out of range"),
        ("<answer>1e-30</answer>", "out of range"),
        ("<answer>3.1</answer> or <answer>3.2</answer>", "several answers"),
        ("<answer>3</answer>" + " " * MAX_CHARACTERS, "too long"),
    ],
)
def test_a_text_without_a_depth_is_refused_with_the_reason(text: str, reason: Reason) -> None:
    with pytest.raises(AnswerError) as raised:
        parse_depth(text, DEPTH)
    assert raised.value.reason == reason
    assert raised.value.text == text
    assert reason in str(raised.value)
    assert len(str(raised.value)) < 500


@given(
    st.sampled_from(TEMPLATES),
    st.integers(0, 6),
    st.floats(NEAREST_METRES, FARTHEST_METRES, exclude_max=True),
    st.text(alphabet=st.characters(exclude_characters="<>[]()"), max_size=100),
)
def test_a_worded_depth_is_read_back_within_its_decimals(
    template: str, decimals: int, metres: float, thinking: str
) -> None:
    wording = with_answer(template, decimals)
    metres += 0.5 * 10.0**-decimals
    answer = depth_answer(wording, min(metres, FARTHEST_METRES))
    for text in (answer, f"<think>{thinking}</think>\n{answer}", f"{answer}\n"):
        found = parse_depth(text, wording)
        assert found == pytest.approx(metres, rel=1e-12, abs=0.5000001 * 10.0**-decimals)


pieces = st.sampled_from(
    [
        "<think>",
        "</think>",
        "<answer>",
        "</answer>",
        "3.5",
        "-",
        "nan",
        "1e",
        "400",
        " m",
        "\n",
        "The depth is ",
        " meters.",
        "(",
        ")",
        "[depth]",
        "[end]",
    ]
)
texts = st.text() | st.lists(pieces | st.text(max_size=5), max_size=12).map("".join)


def outcome_of(text: str, wording: DepthWording) -> float | AnswerError:
    try:
        return parse_depth(text, wording)
    except AnswerError as error:
        return error


templates = st.sampled_from(TEMPLATES) | st.tuples(texts, texts).filter(
    lambda enclosing: "{value}" not in "".join(enclosing) and all(map(str.strip, enclosing))
).map("{value}".join)


@given(texts, templates)
def test_any_text_gives_a_finite_positive_number_or_an_answer_error(
    text: str, template: str
) -> None:
    outcome = outcome_of(text, with_answer(template))
    if isinstance(outcome, AnswerError):
        assert outcome.reason in get_args(Reason)
        assert outcome.text == text
    else:
        assert type(outcome) is float
        assert math.isfinite(outcome)
        assert outcome > 0


@pytest.mark.parametrize("piece", ["<answer>", "</answer>", "<answer>1", "<", "</think>", "a "])
def test_a_runaway_repetition_is_read_in_one_pass(piece: str) -> None:
    """Quadratic matching of the longest text would exceed the suite's timeout."""
    with pytest.raises(AnswerError):
        parse_depth(piece * (MAX_CHARACTERS // len(piece)), DEPTH)


READERS: dict[str, Callable[[str], object]] = {
    "distance": lambda text: parse_distance(text, POSE),
    "direction": lambda text: parse_direction(text, POSE),
    "rotation": lambda text: parse_rotation(text, POSE),
    "point": lambda text: parse_point(text, MATCH, 2000),
}

OBJECT_READERS: dict[str, Callable[[str], object]] = {
    "relation": parse_relation,
    "length": parse_length,
    "hour": parse_hour,
}


@pytest.mark.parametrize(
    ("reader", "text", "value"),
    [
        ("distance", "Translation distance: 0.50 meters.", 0.5),
        ("distance", "<think>1 m?</think> Translation distance: 0 meters.", 0.0),
        ("direction", "The camera moves right, unit vector (1.00, 0.00, 0.00).", (1, 0, 0)),
        ("direction", "It slides, unit  vector ( 0,\n-0.6 , .8 ).", (0, -0.6, 0.8)),
        ("direction", "x, unit vector (0.0, 0.0, 1.09).", (0, 0, 1)),
        ("direction", "x, unit vector (0.63, 0.0, -0.84).", (0.6, 0, -0.8)),
        ("rotation", "Yaw=-1.5, Pitch=2.25, Roll=0.0.", (-1.5, 2.25, 0)),
        ("rotation", "Yaw=180.0, Pitch=-90.0, Roll=-180.0.", (180, -90, -180)),
        ("rotation", "Yaw=1, Pitch=2, Roll=3.0. Yaw=1.0, Pitch=2.0, Roll=3.00.", (1, 2, 3)),
        ("point", "The corresponding pixel is (0, 1999).", (0, 1999)),
        ("point", "The corresponding pixel is (17.0,4).", (17, 4)),
    ],
)
def test_answers_about_two_views_are_read(reader: str, text: str, value: object) -> None:
    assert READERS[reader](text) == pytest.approx(np.array(value), abs=1e-12)


@pytest.mark.parametrize(
    ("reader", "text", "reason"),
    [
        ("distance", "0.5 meters", "no answer"),
        ("distance", "Translation distance: 0.5", "no answer"),
        ("distance", "Translation distance: -0.1 meters.", "negative"),
        ("distance", "Translation distance: nan meters.", "not finite"),
        ("distance", "Translation distance: 1e9 meters.", "out of range"),
        ("distance", "Translation distance: short meters.", "not a number"),
        (
            "distance",
            "Translation distance: 1 meters. Translation distance: 2 meters.",
            "several answers",
        ),
        ("direction", "The camera moves right.", "no answer"),
        ("direction", "right, unit vector (1.0, 0.0).", "no answer"),
        ("direction", "right, unit vector (1.0, 0.0, 0.0", "no answer"),
        ("direction", "right, unit vector (0, 0, 0).", "not a unit vector"),
        ("direction", "right, unit vector (0.5, 0.5, 0.5).", "not a unit vector"),
        ("direction", "right, unit vector (1, 1, 1).", "not a unit vector"),
        ("direction", "right, unit vector (1e200, 1e200, 0).", "not a unit vector"),
        ("direction", "right, unit vector (nan, 0, 1).", "not finite"),
        ("direction", "right, unit vector (x, y, z).", "not a number"),
        ("direction", ", unit vector (1, 0, 0). , unit vector (0, 1, 0).", "several answers"),
        ("rotation", "Yaw=1.0, Pitch=2.0", "no answer"),
        ("rotation", "Yaw=1.0, Pitch=2.0, Roll=3.4", "no answer"),
        ("rotation", "Yaw=1.0, Pitch=2.0, Roll=12.", "cut off"),
        ("rotation", "Yaw=180.1, Pitch=0.0, Roll=0.0.", "out of range"),
        ("rotation", "Yaw=0.0, Pitch=-90.5, Roll=0.0.", "out of range"),
        ("rotation", "Yaw=0.0, Pitch=0.0, Roll=-inf.", "not finite"),
        ("rotation", "Yaw=1.5°, Pitch=0.0, Roll=0.0.", "not a number"),
        ("point", "The corresponding pixel is (x, y).", "not a number"),
        ("point", "The corresponding pixel is (2000, 3).", "out of range"),
        ("point", "The corresponding pixel is (-1, 3).", "out of range"),
        ("point", "The corresponding pixel is (1.5, 3).", "not a whole number"),
        ("point", "The corresponding pixel is (1, 3", "no answer"),
        ("point", " " * (MAX_CHARACTERS + 1), "too long"),
    ],
)
def test_wrong_motions_and_pixels_are_refused(reader: str, text: str, reason: str) -> None:
    with pytest.raises(AnswerError) as raised:
        READERS[reader](text)
    assert raised.value.reason == reason
    assert raised.value.text == text


angle = st.floats(-179, 179)


@given(st.floats(0, 1e5), st.tuples(*[st.floats(-1, 1)] * 3), st.tuples(angle, angle, angle))
def test_a_worded_motion_is_read_back_within_its_decimals(
    distance: float, vector: tuple[float, ...], angles: tuple[float, ...]
) -> None:
    yaw, pitch, roll = angles[0], angles[1] / 2, angles[2]
    assume(math.hypot(*vector) > 0.01)
    direction = np.array(vector) / math.hypot(*vector)
    texts = pose_answers(POSE, distance, direction, (yaw, pitch, roll))
    assert parse_distance(texts[0], POSE) == pytest.approx(distance, abs=0.50001e-3)
    # Rounding moves the vector by at most 0.0009; then its length is made 1.
    np.testing.assert_allclose(parse_direction(texts[1], POSE), direction, atol=1.5e-3)
    np.testing.assert_allclose(parse_rotation(texts[2], POSE), (yaw, pitch, roll), atol=0.50001e-2)


@given(st.integers(0, 1999), st.integers(0, 1999))
def test_a_worded_pixel_is_read_back(x: int, y: int) -> None:
    assert parse_point(correspondence_answer(MATCH, (x, y), 2000), MATCH, 2000).tolist() == [x, y]


@pytest.mark.parametrize("length", range(len("Yaw=-12.34, Pitch=5.67, Roll=-8.90.")))
def test_a_truncated_answer_is_never_read(length: int) -> None:
    with pytest.raises(AnswerError):
        parse_rotation("Yaw=-12.34, Pitch=5.67, Roll=-8.90."[:length], POSE)


two_view_pieces = pieces | st.sampled_from(
    [
        "Yaw=",
        ", Pitch=",
        ", Roll=",
        ".",
        ", unit vector (",
        ", ",
        ").",
        "-0.6",
        "The corresponding pixel is (",
        "Translation distance: ",
        "Yaw=1.0, Pitch=2.0, Roll=3.0.",
        ", unit vector (0.0, 0.6, 0.8).",
    ]
)


def what_is_read(reader: str, text: str) -> object:
    try:
        return (READERS | OBJECT_READERS)[reader](text)
    except AnswerError as error:
        return error


@given(st.sampled_from(sorted(READERS)), st.text() | st.lists(two_view_pieces).map("".join))
def test_any_text_gives_a_sound_value_or_an_answer_error(reader: str, text: str) -> None:
    outcome = what_is_read(reader, text)
    if isinstance(outcome, AnswerError):
        assert outcome.reason in get_args(Reason)
        assert outcome.text == text
        return
    value = np.asarray(outcome)
    assert np.isfinite(value).all()
    if reader == "direction":
        assert np.linalg.norm(value) == pytest.approx(1)
    elif reader == "rotation":
        assert (np.abs(value) <= (180, 90, 180)).all()
    elif reader == "point":
        assert ((value >= 0) & (value < 2000)).all()
    else:
        assert value >= 0


@given(templates)
def test_a_pixel_is_read_back_in_any_wording(template: str) -> None:
    before, after = template.split("{value}")
    answer = f"{before}[{{x}};{{y}}]{after}"
    assume(answer.count("{x}") == answer.count("{y}") == 1)
    # A wording that holds its own opening inside could be read from there.
    assume("[" not in before and ";" not in before + after and "]" not in after)
    prompt = CorrespondenceWording("{x}{y}", answer)
    worded = correspondence_answer(prompt, (3, 41), 50)
    assume("</think>" not in worded.partition("[")[2])
    assert parse_point(worded, prompt, 50).tolist() == [3, 41]


@pytest.mark.parametrize("reader", sorted(READERS))
@pytest.mark.parametrize(
    "piece", ["Yaw=", "Yaw=1, Pitch=", ", unit vector (1, ", "(1, ", "1 ", "Translation distance: "]
)
def test_a_runaway_answer_about_two_views_is_read_in_one_pass(reader: str, piece: str) -> None:
    with pytest.raises(AnswerError):
        READERS[reader](piece * (MAX_CHARACTERS // len(piece)))


def test_a_custom_wording_is_read() -> None:
    pose = PoseWording(
        PoseQuestion("?", "<answer>{value}</answer>", 2),
        PoseQuestion("?", "v = [{x}; {y}; {z}]", 2),
        PoseQuestion("?", "[{yaw} | {pitch} | {roll}]", 0),
    )
    assert parse_distance("<answer> 3 m </answer>", pose) == 3
    assert parse_direction("v = [0;0;1]", pose).tolist() == [0, 0, 1]
    assert parse_rotation("[ 1 | 2|3 ]", pose).tolist() == [1, 2, 3]


FIRST, SECOND = (
    OBJECTS.region.format(xmin=xmin, ymin=20, xmax=700, ymax=1999) for xmin in (3, 400)
)


@pytest.mark.parametrize(
    ("reader", "text", "value"),
    [
        ("relation", "Yes.", True),
        ("relation", "No.", False),
        ("relation", "yes", True),
        ("relation", " **No**, it is not.", False),
        ("relation", "<answer>Yes</answer><|im_end|>", True),
        ("relation", "<think>No, no.</think> Yes, it is.", True),
        # As in SpatialRGPT's public templates.
        ("relation", f"Indeed, {FIRST} is positioned on the left side of {SECOND}.", True),
        ("relation", f"Correct, you'll find {FIRST} to the left of {SECOND}.", True),
        ("relation", "That is True.", True),
        ("relation", f"In fact, {FIRST} is to the right of {SECOND}.", False),
        ("relation", f"Actually, {FIRST} might be smaller than {SECOND}.", False),
        ("relation", f"Incorrect, {FIRST} is not positioned above {SECOND}.", False),
        ("relation", "That is False.", False),
        ("length", "It is 1.25 meters.", 1.25),
        ("length", f"{FIRST} is 2.5 m tall.", 2.5),
        ("length", f"{FIRST} and {SECOND} are 3 meters apart from each other.", 3),
        ("length", "The width is 48.47 Centimeters.", 0.4847),
        ("length", "77 cm", 0.77),
        ("length", "22.32 feet.", 22.32 * 0.3048),
        ("length", "1 foot", 0.3048),
        ("length", "2ft wide", 0.6096),
        ("length", "It is 35.9 inches in width.", 35.9 * 0.0254),
        ("length", "12 in.", 0.3048),
        ("length", "at 400 in the picture it is 0 metres high", 0),
        ("length", "1.5 m, that is 1.50 meters", 1.5),
        ("length", "<think>1 m or 2 m?</think> 2 m", 2),
        ("hour", "It is roughly at 10 o'clock.", 10),
        ("hour", f"{FIRST} will find {SECOND} around the 2 o\u2019clock direction.", 2),
        ("hour", "12 o'clock, straight ahead at 12 O'Clock", 12),
    ],
)
def test_answers_about_objects_are_read_in_many_words(
    reader: str, text: str, value: object
) -> None:
    found = OBJECT_READERS[reader](text)
    assert found == pytest.approx(value, rel=1e-12)
    assert type(found) is {"relation": bool, "length": float, "hour": int}[reader]


@pytest.mark.parametrize(
    ("reader", "text", "reason"),
    [
        ("relation", "", "no answer"),
        ("relation", "Maybe.", "no answer"),
        ("relation", "Notably bigger", "no answer"),
        ("relation", f"{FIRST} is not left of it", "no answer"),
        ("relation", "Yes. No.", "several answers"),
        ("relation", "No; well, yes", "several answers"),
        ("relation", "Indeed, no.", "several answers"),
        ("relation", "Yes" + " " * MAX_CHARACTERS, "too long"),
        ("length", "", "no answer"),
        ("length", "It is 1.25", "no answer"),
        ("length", f"{FIRST} is wide.", "no answer"),
        ("length", "400 in the picture", "no answer"),
        ("length", "1,200 m", "no answer"),
        ("length", "3,5 m", "no answer"),
        ("length", "5 m/s", "no answer"),
        ("length", "5 m\u00b2", "no answer"),
        ("length", "2 miles", "no answer"),
        ("length", "x2 m", "no answer"),
        ("length", "2-3 m", "no answer"),
        ("length", "2 - 3 m", "several answers"),
        ("length", "2 to 3 meters", "several answers"),
        ("length", "between 2 and 3 meters", "several answers"),
        ("length", "1 m or 2 m", "several answers"),
        ("length", "5 feet 3 inches", "several answers"),
        ("length", "-2 m", "negative"),
        ("length", "nan meters", "not finite"),
        ("length", "-inf m", "not finite"),
        ("length", "1e999 m", "not finite"),
        ("length", "1e7 m", "out of range"),
        ("hour", "It is roughly at 10", "no answer"),
        ("hour", "10:30 o'clock", "no answer"),
        ("hour", "2.5 o'clock", "no answer"),
        ("hour", "-3 o'clock", "no answer"),
        ("hour", "0 o'clock", "out of range"),
        ("hour", "13 o'clock", "out of range"),
        ("hour", "2 o'clock or 3 o'clock", "several answers"),
        ("hour", "between 2 and 3 o'clock", "several answers"),
    ],
)
def test_wrong_answers_about_objects_are_refused(reader: str, text: str, reason: str) -> None:
    with pytest.raises(AnswerError) as raised:
        OBJECT_READERS[reader](text)
    assert raised.value.reason == reason
    assert raised.value.text == text


@given(st.floats(0.01, 1e5), st.integers(1, 12))
def test_worded_answers_about_objects_are_read_back(metres: float, hour: int) -> None:
    assert parse_length(metres_answer(OBJECTS, metres)) == pytest.approx(metres, abs=0.50001e-2)
    assert parse_hour(hour_answer(OBJECTS, hour)) == hour
    assert parse_relation(OBJECTS.yes) and not parse_relation(OBJECTS.no)


@pytest.mark.parametrize("length", range(len("It is 12.34 meters.") - len("eters.")))
def test_a_length_without_its_unit_is_never_read(length: int) -> None:
    with pytest.raises(AnswerError):
        parse_length("It is 12.34 meters."[:length])


object_pieces = two_view_pieces | st.sampled_from(
    [
        *("yes", "No", "Indeed, ", " to ", "and ", "7", "12 ", " m", " feet", "in", "inches "),
        *(" o'clock", "o\u2019clock", "-inf", "1e9", "\u2013", FIRST),
        *("It is 1.25 meters.", "at 3 o'clock"),
    ]
)


@given(st.sampled_from(sorted(OBJECT_READERS)), st.text() | st.lists(object_pieces).map("".join))
def test_any_text_gives_a_sound_answer_about_objects_or_an_answer_error(
    reader: str, text: str
) -> None:
    value = what_is_read(reader, text)
    if isinstance(value, AnswerError):
        assert value.reason in get_args(Reason)
        assert value.text == text
    elif reader == "relation":
        assert type(value) is bool
    elif reader == "length":
        assert isinstance(value, float) and 0 <= value <= FARTHEST_METRES
    else:
        assert type(value) is int and 1 <= value <= 12


@pytest.mark.parametrize("reader", sorted(OBJECT_READERS))
@pytest.mark.parametrize("piece", ["1", "1 ", "1 and ", "-", " ", "<", "inf ", "o'clock"])
def test_a_runaway_answer_about_objects_is_read_in_one_pass(reader: str, piece: str) -> None:
    with pytest.raises(AnswerError):
        OBJECT_READERS[reader](piece * (MAX_CHARACTERS // len(piece)))
