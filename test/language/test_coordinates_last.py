# SPDX-License-Identifier: Apache-2.0
"""The prompt set vlm3-last: constant text first, short answers."""

from __future__ import annotations

import pytest

from vlm3_ros.language.answers import AnswerError
from vlm3_ros.language.prompts import load_prompt_set
from vlm3_ros.language.wordings.correspondence import (
    CorrespondenceWording,
    correspondence_answer,
    correspondence_question,
    parse_point,
)
from vlm3_ros.language.wordings.depth import DepthWording, depth_answer, depth_question, parse_depth
from vlm3_ros.language.wordings.objects import (
    DISTANCES,
    RELATIONS,
    ObjectsWording,
    metres_answer,
    object_question,
    parse_hour,
    parse_length,
    parse_relation,
)
from vlm3_ros.language.wordings.pose import PoseWording

LAST = load_prompt_set("vlm3-last")
DEPTH, MATCH = LAST[DepthWording], LAST[CorrespondenceWording]
OBJECTS = LAST[ObjectsWording]


def test_questions_about_a_pixel_end_with_it() -> None:
    assert depth_question(DEPTH, (16, 1061), 2000).endswith("Point: 16,1061")
    assert correspondence_question(MATCH, (440, 60), 2000).endswith("Pixel: 440,60")


def test_pixels_have_the_coordinates_of_the_authors_depth_questions() -> None:
    authors = load_prompt_set("vlm3-depth")
    assert (LAST.text_range, LAST.text_rounding) == (authors.text_range, authors.text_rounding)
    assert DEPTH.decimals == authors[DepthWording].decimals


def test_all_questions_about_two_objects_begin_with_their_boxes() -> None:
    questions = {
        *(OBJECTS.relations[name] for name in RELATIONS),
        *(OBJECTS.quantities[name] for name in DISTANCES),
        OBJECTS.direction,
    }
    beginnings = {str(question).partition("{b}")[0] for question in questions}
    assert len(beginnings) == 1
    assert len(questions) == len(RELATIONS) + len(DISTANCES) + 1
    box = (1, 2, 3, 4), (5, 6, 7, 8)
    assert object_question(OBJECTS, str(OBJECTS.relations["front"]), box, 2000).endswith(
        "A: (1,2,3,4) B: (5,6,7,8) Is A in front of B?"
    )


def test_questions_about_a_motion_are_those_of_the_authors() -> None:
    """Nothing varies in them."""
    assert LAST[PoseWording].parts == load_prompt_set("vlm3-pose")[PoseWording].parts


@pytest.mark.parametrize(
    "text", ["(3.45)", " ( 3.45 )\n", "(3.45 m)", "It is (3.45).", "(3.45) (3.45)"]
)
def test_a_depth_is_the_number_in_parentheses(text: str) -> None:
    assert parse_depth(text, DEPTH) == 3.45


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("3.45", "no answer"),
        ("(3.4", "no answer"),
        ("(3.45 mm)", "not a number"),
        ("(3.45 or 3.5)", "not a number"),
        ("(16,1061)", "not a number"),
        ("The point (16,1061) is at (3.45)", "not a number"),
        ("(3.45) or (3.5)", "several answers"),
        ("(0.00)", "not positive"),
        ("(-1)", "not positive"),
        ("(nan)", "not finite"),
    ],
)
def test_what_is_no_depth_is_refused(text: str, reason: str) -> None:
    with pytest.raises(AnswerError, match=reason):
        parse_depth(text, DEPTH)


def test_taught_answers_are_short() -> None:
    assert depth_answer(DEPTH, 3.449) == "(3.45)"
    assert correspondence_answer(MATCH, (338, 52), 2000) == "(338,52)"
    assert metres_answer(OBJECTS, 3.449) == "(3.45 m)"


def test_other_answers_are_read() -> None:
    assert parse_point("(338,52)", MATCH, 2000).tolist() == [338, 52]
    assert parse_point("(338, 52)", MATCH, 2000).tolist() == [338, 52]
    with pytest.raises(AnswerError, match="no answer"):
        parse_point("(338,5", MATCH, 2000)
    assert parse_length("(3.45 m)") == 3.45
    assert parse_hour("(3 o'clock)") == 3
    assert (parse_relation("Yes"), parse_relation("No")) == (True, False)
