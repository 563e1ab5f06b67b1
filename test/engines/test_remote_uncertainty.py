# SPDX-License-Identifier: Apache-2.0
"""Standard deviations of a server's answers, from the probabilities of its tokens."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from documented_chat import encode_chat
from numpy.typing import NDArray
from scipy.stats import norm
from stub_server import StubServer, completion

from vlm3_lab.scenes.views import sample_view
from vlm3_ros.datasets.views import View
from vlm3_ros.engines.base import ForwardingEngine
from vlm3_ros.engines.load import load_engine
from vlm3_ros.engines.remote.engine import RemoteEngine
from vlm3_ros.engines.remote.probabilities import (
    ALTERNATIVES,
    Token,
    number_histogram,
    parse_tokens,
)
from vlm3_ros.engines.settings import EngineSettings
from vlm3_ros.engines.transformers import TransformersEngine
from vlm3_ros.geometry.frame import RectifiedFrame
from vlm3_ros.language.prompts import load_prompt_set
from vlm3_ros.language.wordings.depth import DepthWording
from vlm3_ros.paths import default_model
from vlm3_ros.tasks.depth import DepthAnswers, DepthLimits, ask_depth, uniform_grid
from vlm3_ros.tasks.frame_depth import FrameDepthSettings, ask_frame_depth

TEMPLATE = load_prompt_set("vlm3")[DepthWording].answer
OPENING, CLOSING = TEMPLATE.split("{value}")
IMAGE = np.random.default_rng(0).integers(0, 256, (256, 288, 3)).astype(np.uint8)
QUESTIONS = [f"How far is point {i}?" for i in range(6)]
UNREPORTED = "does not report the probabilities of digits"


def logprobs(*places: dict[str, float]) -> dict[str, Any]:
    """Return `logprobs` of a completion; the first token of each place is the answer's."""
    content = []
    for place in places:
        listed = [{"token": t, "logprob": math.log(p)} for t, p in place.items()]
        content.append({**listed[0], "top_logprobs": listed})
    return {"content": content}


BETWEEN = logprobs(
    {OPENING: 1.0},
    {"2": 0.5, "3": 0.4, "x": 0.1},
    {".": 1.0},
    {"9": 0.6, "8": 0.4},
    {CLOSING: 0.75, "5": 0.25},
)
"""The probabilities of a model that answers 2.9 and could as well answer 3."""


def answered(number: str, probabilities: object) -> tuple[int, object]:
    status, content = completion(TEMPLATE.replace("{value}", number))
    (choice,) = content["choices"]
    return status, {"choices": [{**choice, "logprobs": probabilities}]}


def test_answers_have_the_median_and_spread_of_their_distribution(stub_server, connect):
    stub_server.reply = lambda chat, server: answered("2.9", BETWEEN)
    engine = connect()
    engine.profile = replace(engine.profile, std_scale=2.0)
    for answer in engine.ask([IMAGE], QUESTIONS, TEMPLATE):
        assert answer.text == TEMPLATE.replace("{value}", "2.9")
        # Shares of the mass: 2/9 in [2.8, 2.9), 1/4 at 2.9, 1/12 in [2.95, 2.96), 4/9 in [3, 4).
        assert answer.value == pytest.approx(2.953, abs=0.001)
        ends = norm.ppf([0.001, 2 / 9, 5 / 9, 0.999])
        low = np.interp(-1, ends[:2], [2.8, 2.9])
        high = np.interp(1, ends[2:], [3.0, 4.0])
        assert answer.std == pytest.approx(2.0 * (high - low) / 2, abs=0.001)
    for chat in stub_server.chats:
        assert (chat["logprobs"], chat["top_logprobs"]) == (True, ALTERNATIVES)


@pytest.mark.parametrize("settings", [{"force_answers": False}, {"token_probabilities": False}])
def test_probabilities_are_not_asked_for_without_need(stub_server, connect, settings):
    stub_server.reply = lambda chat, server: answered("2.9", BETWEEN)
    engine = connect(**settings)
    for template in (None, TEMPLATE):
        answers = engine.ask([IMAGE], QUESTIONS, template)
        assert {(answer.value, answer.std) for answer in answers} == {(None, None)}
    connect().ask([IMAGE], QUESTIONS)
    assert not any("logprobs" in chat for chat in stub_server.chats)


def refuses(chat: dict[str, Any], server: StubServer) -> tuple[int, object]:
    if "logprobs" in chat:
        return 422, {"detail": "Unexpected fields in the request: {'logprobs', 'top_logprobs'}"}
    return answered("2.9", None)


def ignores(chat: dict[str, Any], server: StubServer) -> tuple[int, object]:
    return answered("2.9", None)


def writes_whole_numbers(chat: dict[str, Any], server: StubServer) -> tuple[int, object]:
    return answered("2.9", logprobs({OPENING: 1.0}, {"2.9": 1.0}, {CLOSING: 1.0}))


@pytest.mark.parametrize("reply", [refuses, ignores, writes_whole_numbers])
def test_servers_without_probabilities_of_digits(stub_server, connect, caplog, reply):
    caplog.set_level(logging.INFO)
    stub_server.reply = reply
    engine = connect()
    for _ in range(3):
        answers = engine.ask([IMAGE], QUESTIONS, TEMPLATE)
        assert {answer.text for answer in answers} == {TEMPLATE.replace("{value}", "2.9")}
        assert {(answer.value, answer.std, answer.fault) for answer in answers} == {
            (None, None, None)
        }
    assert len([m for m in caplog.messages if UNREPORTED in m]) == 1, "logged once"
    assert not any("logprobs" in chat for chat in stub_server.chats[-12:])


@pytest.mark.parametrize(
    "content",
    [
        None,
        [],
        "text",
        {"content": None},
        {"content": [{"token": "2"}]},
        {"content": [{"token": "2", "logprob": "high", "top_logprobs": []}]},
        {"content": [{"token": "2", "logprob": 0.0, "top_logprobs": [None]}]},
        {"content": {"token": "2"}},
        {"content": [{"token": "2", "logprob": math.nan, "top_logprobs": []}]},
        {"content": [{"token": "2", "logprob": -math.inf, "top_logprobs": []}]},
    ],
)
def test_unexpected_logprobs_are_none(content):
    assert parse_tokens(content) == ()


def test_impossible_alternatives_are_left_out():
    others = [{"token": "3", "logprob": -math.inf}, {"token": "4", "logprob": -1.0}]
    content = {"content": [{"token": "2", "logprob": -0.5, "top_logprobs": others}]}
    assert parse_tokens(content) == (Token("2", {"2": -0.5, "4": -1.0}),)


def test_an_answer_of_another_form_is_no_reason_to_do_without_deviations(
    stub_server, connect, caplog
):
    """A server without regular expressions, and a single question, as query_node asks."""
    caplog.set_level(logging.INFO)
    babbles = False

    def reply(chat: dict[str, Any], server: StubServer) -> tuple[int, object]:
        if "structured_outputs" in chat:
            return 400, b"unknown field"
        if babbles:
            status, content = completion("I cannot tell.")
            (choice,) = content["choices"]
            logs = logprobs({"I cannot tell.": 1.0})
            return status, {"choices": [{**choice, "logprobs": logs}]}
        return answered("2.9", BETWEEN)

    stub_server.reply = reply
    engine = connect()
    engine.ask([IMAGE], QUESTIONS, TEMPLATE)
    babbles = True
    (answer,) = engine.ask([IMAGE], QUESTIONS[:1], TEMPLATE)
    assert (answer.text, answer.std) == ("I cannot tell.", None)
    babbles = False
    (answer,) = engine.ask([IMAGE], QUESTIONS[:1], TEMPLATE)
    assert answer.std is not None
    assert UNREPORTED not in caplog.text


def tokens(*texts: str) -> list[Token]:
    return [Token(text, {text: 0.0}) for text in texts]


@pytest.mark.parametrize(
    ("form", "texts"),
    [
        ("<answer>{value}</answer>", ["<answer>", "2", ".", "5", "</answer>", "<|im_end|>"]),
        ("It is {value} m. <a> {value} </a>", ["It is ", *"2.5", " m. <a> ", *"2.5", " </a>"]),
        ("{value}\n", [*"2.5", "\n"]),
    ],
)
def test_number_of_an_answer_is_found(form, texts):
    histogram = number_histogram(form, tokens(*texts))
    assert histogram is not None
    assert (histogram.median, histogram.std) == (2.5, 0.0)


@pytest.mark.parametrize(
    ("form", "texts"),
    [
        ("<answer>{value}</answer>", []),
        ("<answer>{value}</answer>", ["<answer>", *"2.5"]),  # cut off
        ("<answer>{value}</answer>", ["<answer>2", ".", "5", "</answer>"]),
        ("<answer>{value}</answer>", ["<answer>", "2.5", "</answer>"]),
        ("<answer>{value}</answer>", ["<answer>", *"2.", "5</", "answer>"]),
        ("<answer>{value}</answer>", ["<answer>", "far", "</answer>"]),
        ("<answer>{value}</answer>", ["<think>", "<answer>", *"2.5", "</answer>"]),
        ("It is {value} m: {value}.", ["It is ", *"2.5", " m: ", *"2.6", "."]),
        ("{value}. That is all", [*"2.5", ".", " That is all"]),  # the point is a symbol, too
        ("{value}", [*"2.5"]),
    ],
)
def test_answers_whose_number_has_no_distribution(form, texts):
    assert number_histogram(form, tokens(*texts)) is None


class Asked(ForwardingEngine):
    """Remembers what was asked and answered."""

    def ask(self, images, questions, template=None):
        answers = super().ask(images, questions, template)
        self.images, self.template = images, template
        self.answers = dict(zip(questions, answers, strict=True))
        return answers


@pytest.fixture(scope="module")
def local() -> Iterator[TransformersEngine]:
    settings = EngineSettings(str(default_model()), device="cpu", dtype="float32", offline=True)
    engine = load_engine(settings)
    yield engine
    engine.close()


def spoken_logprobs(
    engine: TransformersEngine, images: Sequence[NDArray[np.uint8]], question: str, answer: str
) -> dict[str, Any]:
    """Return what a server reports for an answer, computed by the model in process."""
    model, processor = engine._model, engine._processor
    asked = encode_chat(processor, images, question)
    said = processor.tokenizer(answer, return_tensors="pt")["input_ids"]
    inputs = {
        **asked,
        "input_ids": torch.cat([asked["input_ids"], said], 1),
        "attention_mask": torch.cat([asked["attention_mask"], torch.ones_like(said)], 1),
        "mm_token_type_ids": torch.cat([asked["mm_token_type_ids"], 0 * said], 1),
    }
    with torch.inference_mode():
        logits = model(**inputs).logits[0, -said.shape[1] - 1 : -1]
    likely = logits.float().log_softmax(-1).topk(ALTERNATIVES)
    rows = zip(said[0].tolist(), likely.indices.tolist(), likely.values.tolist(), strict=True)
    content = []
    for token, others, values in rows:
        texts = [processor.tokenizer.decode([other]) for other in others]
        listed = [{"token": t, "logprob": v} for t, v in zip(texts, values, strict=True)]
        (own,) = (entry for entry, other in zip(listed, others, strict=True) if other == token)
        content.append({**own, "top_logprobs": listed})
    return {"content": content}


def served(stub_server: StubServer, connect, asked: Asked) -> RemoteEngine:
    """Return an engine for a server that answers as the model in process did."""

    def reply(chat: dict[str, Any], server: StubServer) -> tuple[int, object]:
        question = chat["messages"][0]["content"][-1]["text"]
        status, content = completion(asked.answers[question].text)
        if "logprobs" in chat:
            with server.lock:
                content["choices"][0]["logprobs"] = spoken_logprobs(
                    asked._engine, asked.images, question, asked.answers[question].text
                )
        return status, content

    stub_server.reply = reply
    return connect(profile=str(default_model()))


def depths(engine: Any, view: View) -> tuple[DepthAnswers, NDArray[np.float64]]:
    pixels = uniform_grid(view.camera, 8, 6)
    u, v = np.rint(pixels).astype(int).T
    return ask_depth(engine, view.image, view.camera, pixels), view.depth[v, u]


def check_distributions(
    local: Sequence[DepthAnswers], remote: Sequence[DepthAnswers], truth: NDArray[np.floating]
) -> None:
    """Compare the answers of a server with those in process; see docs/serving.md for figures."""
    depth, std = (np.concatenate([getattr(a, n) for a in local]) for n in ("depth", "std"))
    far_depth, far_std = (np.concatenate([getattr(a, n) for a in remote]) for n in ("depth", "std"))
    assert np.isfinite(far_std).all()
    assert np.corrcoef(std, far_std)[0, 1] > 0.95
    assert 0.9 < np.median(far_std / std) < 1.15
    assert np.median(np.abs(far_depth / depth - 1)) < 0.03
    near = np.isfinite(truth)
    within = [
        np.mean(np.abs(d - truth)[near] < s[near]) for d, s in ((depth, std), (far_depth, far_std))
    ]
    assert abs(within[1] - within[0]) < 0.1
    errors = [np.mean(np.abs(d / truth - 1)[near]) for d in (depth, far_depth)]
    assert errors[1] < errors[0] + 0.02


VIEWS = [sample_view(np.random.default_rng(i), kind) for i, kind in enumerate(("room", "street"))]


def test_distributions_are_close_to_those_in_process(local, stub_server, connect):
    asked, answers, truths = Asked(local), [], []
    for view in VIEWS:
        here, truth = depths(asked, view)
        there, _ = depths(served(stub_server, connect, asked), view)
        answers.append((here, there))
        truths.append(truth)
    check_distributions(*zip(*answers, strict=True), np.concatenate(truths))


def test_max_uncertainty_filters_the_answers_of_a_server(local, stub_server, connect):
    view = VIEWS[0]
    visible = np.ones(view.image.shape[:2], bool)
    frame = RectifiedFrame(image=view.image, camera=view.camera, visible=visible)
    asked = Asked(local)
    answers, _ = depths(asked, view)
    limit = float(np.median(answers.std / answers.depth))
    settings = FrameDepthSettings(8, 6, limits=DepthLimits(max_uncertainty=limit))
    here = ask_frame_depth(asked, frame, settings)
    there = ask_frame_depth(served(stub_server, connect, asked), frame, settings)
    kept = [np.isfinite(result.depth) for result in (here, there)]
    assert kept[0].sum() == 24
    assert 12 <= kept[1].sum() <= 30
    assert np.mean(kept[0] == kept[1]) > 0.75


@pytest.mark.skipif("VLLM" not in os.environ, reason="needs a vLLM: make test-vllm")
def test_distributions_of_a_real_vllm_are_close_to_those_in_process(local, model_server):
    settings = EngineSettings(
        model_server.model,
        engine="openai",
        base_url=model_server.url,
        profile=str(default_model()),
        request_timeout=600.0,
        frame_timeout=900.0,
    )
    remote = load_engine(settings)
    answers, truths = [], []
    for i, kind in enumerate(("room", "corridor", "yard", "street")):
        view = sample_view(np.random.default_rng(i), kind)
        here, truth = depths(local, view)
        there, _ = depths(remote, view)
        answers.append((here, there))
        truths.append(truth)
    remote.close()
    check_distributions(*zip(*answers, strict=True), np.concatenate(truths))
