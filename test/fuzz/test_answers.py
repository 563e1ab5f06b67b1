# SPDX-License-Identifier: Apache-2.0
"""Any text of a model, a server or a file of answers is read or raises the documented error."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from functools import lru_cache

import httpx
import numpy as np
import pytest
from fuzzing import attempt, damaged, damaged_text, scratch_file
from hypothesis import example, given
from hypothesis import strategies as st

from vlm3_ros.engines.base import Answer, EngineError
from vlm3_ros.engines.profiles import parse_profile
from vlm3_ros.engines.recorded import RecordedEngine
from vlm3_ros.engines.remote.engine import RemoteEngine, load_remote_engine
from vlm3_ros.engines.settings import EngineSettings
from vlm3_ros.language.answers import AnswerError
from vlm3_ros.language.prompts import load_prompt_set
from vlm3_ros.language.wordings.correspondence import CorrespondenceWording, parse_point
from vlm3_ros.language.wordings.depth import DepthWording, parse_depth
from vlm3_ros.language.wordings.objects import parse_hour, parse_length, parse_relation
from vlm3_ros.language.wordings.pose import (
    PoseWording,
    parse_angle,
    parse_direction,
    parse_distance,
    parse_rotation,
)
from vlm3_ros.paths import share_folder

SETS = [load_prompt_set(name) for name in ("vlm3", "vlm3-short")]
LAST = load_prompt_set("vlm3-last")
DEPTHS = [prompts[DepthWording] for prompts in (*SETS, LAST, load_prompt_set("vlm3-depth"))]
AUTHORS_POSE = load_prompt_set("vlm3-pose")[PoseWording]
POSES = [*(prompts[PoseWording] for prompts in (*SETS, LAST)), AUTHORS_POSE]
POINTS = [
    load_prompt_set(name)[CorrespondenceWording]
    for name in ("vlm3", "vlm3-short", "vlm3-last", "vlm3-corr", "vlm3-corr-think")
]
PICTURE = np.zeros((256, 256, 3), np.uint8)

number = st.one_of(
    st.sampled_from(
        ["2.5", "0", "-1", "1e999", "nan", "inf", "1.2.3", "٣", "1_0", "0x1", ".5", "3 m"]
    ),
    st.floats().map(str),
    st.integers().map(str),
    st.text(max_size=6),
)
junk = st.one_of(st.just(""), st.just(""), st.text(max_size=20), st.just("</think>"))


def answers(*templates: str) -> st.SearchStrategy[str]:
    """Texts of these templates with arbitrary text for the numbers and around the answer."""
    names = ("value", "x", "y", "z", "yaw", "pitch", "roll", "coarse")

    @st.composite
    def answer(draw: st.DrawFn) -> str:
        text = draw(st.sampled_from(templates))
        for name in names:
            if f"{{{name}}}" in text:
                text = text.replace(f"{{{name}}}", draw(number))
        return draw(junk) + text + draw(junk)

    return st.one_of(answer(), damaged_text(*templates), st.text())


def finite(value: object) -> bool:
    return bool(np.isfinite(value).all())


READERS = {
    "depth": (
        [wording.answer for wording in DEPTHS],
        [lambda text, w=w: parse_depth(text, w) for w in DEPTHS],
        lambda value: finite(value) and value > 0,
    ),
    "distance": (
        [wording.distance.answer for wording in POSES],
        [lambda text, w=w: parse_distance(text, w) for w in POSES],
        lambda value: finite(value) and value >= 0,
    ),
    "direction": (
        [*(wording.direction.answer for wording in POSES), "{x}, {y}, {z}"],
        [lambda text, w=w: parse_direction(text, w) for w in POSES],
        lambda value: math.isclose(np.linalg.norm(value), 1, rel_tol=1e-9),
    ),
    "rotation": (
        [*(wording.rotation.answer for wording in POSES), "yaw {yaw} pitch {pitch} roll {roll}"],
        [lambda text, w=w: parse_rotation(text, w) for w in POSES],
        lambda value: finite(value) and np.abs(value).max() <= 180,
    ),
    "angle": (
        ["Rotation angle: {value} degrees", "{value}°", "{value} to {x} deg"],
        [lambda text: parse_angle(text, AUTHORS_POSE)],
        lambda value: 0 <= value <= 180,
    ),
    "point": (
        [*(wording.answer for wording in POINTS), "{x}, {y}"],
        [
            lambda text, w=w, cut=cut: parse_point(text, w, 2000, cut)
            for w in POINTS
            for cut in (True, False)
        ],
        lambda value: value.min() >= 0 and value.max() < 2000,
    ),
    "relation": (
        ["Yes, {x} is.", "No, {x}.", "Indeed, <b>{x}</b>.", "In fact, {x}.", "{x} is not {y}."],
        [parse_relation, lambda text: parse_relation(text, any_form=True)],
        lambda value: value in (True, False),
    ),
    "length": (
        ["{value} m", "It is {value} feet and {x} inches.", "{value} to {x} cm", "{value} in."],
        [parse_length, lambda text: parse_length(text, any_form=True)],
        lambda value: finite(value) and value >= 0,
    ),
    "hour": (
        ["{value} o'clock", "{value} or {x} o\u2019clock", "three o'clock {x}"],
        [parse_hour],
        lambda value: 1 <= value <= 12,
    ),
}


@st.composite
def named_answers(draw: st.DrawFn) -> tuple[str, str]:
    name = draw(st.sampled_from(list(READERS)))
    return name, draw(answers(*READERS[name][0]))


@given(named_answers())
def test_texts(case):
    name, text = case
    _, readers, is_right = READERS[name]
    for read in readers:
        value, refusal = attempt((AnswerError,), read, text)
        assert refusal or is_right(value)


COMPLETIONS = (
    json.dumps({"choices": [{"message": {"content": "<answer>2.5</answer>"}}]}).encode(),
    json.dumps({"choices": [{"message": {"content": None}}], "usage": {"x": [1, 2.5]}}).encode(),
    json.dumps({"error": {"message": "no"}, "data": [{"id": "model"}]}).encode(),
    b"[" * 3000,
    b'{"a":' * 3000,
)


@lru_cache(maxsize=1)
def engine_of_a_server() -> tuple[RemoteEngine, list[httpx.Response]]:
    """An engine without a connection: its server returns the response in the list."""
    responses: list[httpx.Response] = []
    settings = EngineSettings("model", "openai", profile="vlm3", base_url="http://server/v1")
    engine = load_remote_engine(settings)
    transport = httpx.MockTransport(lambda request: responses[0])
    engine._client._http = httpx.AsyncClient(transport=transport)
    return engine, responses


@pytest.fixture(scope="module", autouse=True)
def _closed() -> Iterator[None]:
    yield
    if engine_of_a_server.cache_info().currsize:
        engine_of_a_server()[0].close()


content_types = st.one_of(
    st.sampled_from(["application/json", "text/html; charset=utf-7", "", "text/x; charset=hex"]),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=9),
)


@given(
    damaged(*COMPLETIONS),
    st.sampled_from([200, 200, 200, 201, 204, 302, 400, 401, 404, 422]),
    content_types,
)
@example(COMPLETIONS[-1], 200, "application/json")
@example(b"\xff", 200, "text/html; charset=hex")
@example(b"\xff", 404, "text/html; charset=hex")
def test_responses_of_a_server(body, status, content_type):
    engine, responses = engine_of_a_server()
    engine._client.circuit.close()
    responses[:] = [httpx.Response(status, headers={"Content-Type": content_type}, content=body)]
    template = "<answer>{value}</answer>"
    answers, refusal = attempt((EngineError,), engine.ask, [PICTURE], ["How far?"], template)
    if answers:
        assert_answer(answers[0])
    else:
        assert "http://server/v1" in refusal


RECORDING = b"".join(
    json.dumps(line).encode() + b"\n"
    for line in (
        {
            "vlm3_recording": 1,
            "model": "tiny",
            "profile": {"focal": 200.0, "fit": "pad", "prompts": "vlm3"},
            "limits": {"multiple": 32, "min_pixels": 1024, "max_pixels": 16777216},
        },
        {
            "images": ["d"],
            "question": "q",
            "template": None,
            "text": "<answer>2.5</answer>",
            "value": 2.5,
            "std": 0.1,
        },
    )
)


WITH_NAN = RECORDING.replace(b"2.5,", b"NaN,")


@given(damaged(RECORDING, WITH_NAN, RECORDING.replace(b'"d"', b"[[]]")))
@example(WITH_NAN)
@example(RECORDING.replace(b'"<answer>2.5</answer>"', b"7"))
@example(RECORDING + b"[" * 3000 + b"\n")
def test_recordings(content):
    path = scratch_file("answers.jsonl", content)
    engine, refusal = attempt((EngineError,), RecordedEngine, path)
    if engine is None:
        assert path.name in refusal
        return
    assert isinstance(engine.name, str)
    for answer in engine._answers.values():
        assert_answer(answer)
    attempt((EngineError,), engine.ask, [PICTURE], ["How far?"])


PROFILE = (share_folder() / "models" / "vlm3-tiny" / "vlm3.json").read_bytes()


@given(damaged(PROFILE))
def test_profiles(content):
    data, _ = attempt((ValueError, RecursionError), json.loads, content)  # those of json itself
    profile, _ = attempt((ValueError,), parse_profile, data)
    if profile:
        assert profile.focal > 0
        if "depth" in profile.prompts.wordings:
            wording = profile.prompts[DepthWording]
            attempt((AnswerError,), parse_depth, "<answer>2.5</answer>", wording)


def assert_answer(answer: Answer) -> None:
    assert isinstance(answer.text, str)
    for value in (answer.value, answer.std):
        assert value is None or (isinstance(value, (int, float)) and math.isfinite(value))
