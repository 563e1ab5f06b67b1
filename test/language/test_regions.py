# SPDX-License-Identifier: Apache-2.0
"""Names of regions become boxes and back, and choices are read from either."""

from __future__ import annotations

import pytest

from vlm3_ros.language.answers import AnswerError
from vlm3_ros.language.prompts import load_prompt_set
from vlm3_ros.language.regions import mentioned_regions, parse_choice, with_boxes, with_names
from vlm3_ros.language.templates import PromptError
from vlm3_ros.language.wordings.objects import ObjectsWording

BOXES = [(0, 39, 652, 999), (6, 380, 228, 562)]
TEXT = "Which is below, Region [1] or region[0]? Region [1]'s height is 1.5 meters."


@pytest.mark.parametrize("name", ["vlm3-object", "vlm3", "vlm3-last"])
def test_names_become_boxes_and_back(name: str) -> None:
    wording = load_prompt_set(name)[ObjectsWording]
    text = with_boxes(wording, TEXT, BOXES, 1000)
    assert "egion [" not in text and text.count("562") == 2
    assert with_names(wording, text, BOXES) == TEXT.replace("region[0]", "Region [0]")
    spaced = text.replace(", ", " ,  ")
    assert mentioned_regions(with_names(wording, spaced, BOXES)) == [1, 0]
    other = text.replace("562", "563")
    assert mentioned_regions(with_names(wording, other, BOXES)) == [0]


def test_a_region_without_a_box_is_refused() -> None:
    wording = load_prompt_set("vlm3-object")[ObjectsWording]
    with pytest.raises(PromptError, match=r"Region \[2\] has no box: there are 2"):
        with_boxes(wording, "Is Region [2] wide?", BOXES, 1000)
    with pytest.raises(PromptError, match="outside of the text range"):
        with_boxes(wording, "Is Region [0] wide?", [(0, 0, 5, 1000)], 1000)


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("Region [1] is above.", 1),
        ("Positioned to the left is Region [0].", 0),
        ("Region [1].", 1),
        ("Region [1] is taller than Region [0].", 1),
        ("<think> Region [0]? </think> Region [1] stands taller. Region [1].", 1),
        ("From the viewer's perspective, Region [0] appears more on the left side.", 0),
    ],
)
def test_the_chosen_region_is_read(text: str, chosen: int) -> None:
    assert parse_choice(text) == chosen


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Both are the same.",
        "Region [0] or Region [1]",
        "Region [0] and Region [1] are equally tall.",
        "Between Region [0] and Region [1], it is Region [1] rather than Region [0].",
        "than Region [0]",
        "<think> Region [0]",
    ],
)
def test_no_choice_or_several_are_refused(text: str) -> None:
    with pytest.raises(AnswerError):
        parse_choice(text)
