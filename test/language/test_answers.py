from __future__ import annotations

import dataclasses
import math
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlm3_ros.language.answers import (
    FARTHEST_METRES,
    MAX_CHARACTERS,
    NEAREST_METRES,
    AnswerError,
    Reason,
    parse_depth,
)
from vlm3_ros.language.prompts import DepthPrompt, PromptSet, depth_answer, load_prompt_set

VLM3 = load_prompt_set("vlm3")


def with_answer(answer: str, decimals: int = 2) -> PromptSet:
    return dataclasses.replace(VLM3, depth=DepthPrompt("({x}, {y})?", answer, decimals))


TEMPLATES = [
    VLM3.depth.answer,
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
def test_the_number_in_the_answer_tags_is_what_counts(text: str, metres: float) -> None:
    assert parse_depth(text, VLM3) == metres


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
        parse_depth(text, VLM3)
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
    prompts = with_answer(template, decimals)
    metres += 0.5 * 10.0**-decimals
    answer = depth_answer(prompts, min(metres, FARTHEST_METRES))
    for text in (answer, f"<think>{thinking}</think>\n{answer}", f"{answer}\n"):
        found = parse_depth(text, prompts)
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


def outcome_of(text: str, prompts: PromptSet) -> float | AnswerError:
    try:
        return parse_depth(text, prompts)
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
    """Quadratic matching of the longest text would run into the suite's timeout."""
    with pytest.raises(AnswerError):
        parse_depth(piece * (MAX_CHARACTERS // len(piece)), VLM3)
