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
    DepthPrompt,
    PromptError,
    depth_answer,
    depth_question,
    load_prompt_set,
    parse_prompt_set,
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
        ({"name": "x"}, "the prompt set must hold name, text_range, depth, not name"),
        (changed(extra=1), "the prompt set must hold .* not .*extra"),
        ({**OWN, "depth": {}}, "depth must hold question, answer, decimals"),
        ({**OWN, "depth": "how far?"}, "depth of the prompt set must be of type dict"),
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
