# SPDX-License-Identifier: Apache-2.0
"""The remote engine against a real server: its answers equal those of the model in process."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator

import httpx
import numpy as np
import pytest

from vlm3_lab.scenes.views import sample_view
from vlm3_ros.datasets.views import View
from vlm3_ros.engines.base import Engine
from vlm3_ros.engines.load import load_engine
from vlm3_ros.engines.settings import EngineSettings
from vlm3_ros.paths import default_model
from vlm3_ros.tasks.depth import ask_depth, uniform_grid

VIEWS = [sample_view(np.random.default_rng(3), kind) for kind in ("room", "street")]


@pytest.fixture(scope="module")
def local() -> Iterator[Engine]:
    """Decodes whole answers, as `generate` does (see test_transformers.py)."""
    settings = EngineSettings(
        str(default_model()), device="cpu", dtype="float32", offline=True, force_answers=False
    )
    engine = load_engine(settings)
    yield engine
    engine.close()


@pytest.fixture(params=[False, True], ids=["free answers", "forced answers"])
def remote(model_server, request: pytest.FixtureRequest) -> Iterator[Engine]:
    engine = load_engine(
        EngineSettings(
            model_server.model,
            engine="openai",
            base_url=model_server.url,
            profile=str(default_model()),
            force_answers=request.param,
            token_probabilities=False,  # depths are then those of the texts, as in process
            concurrency=16,
            request_timeout=600.0,
            frame_timeout=900.0,
        )
    )
    yield engine
    engine.close()


def depths(engine: Engine, view: View) -> tuple[list[str], np.ndarray]:
    answers = ask_depth(engine, view.image, view.camera, uniform_grid(view.camera, 5, 4))
    return without_reasoning(answers.texts), answers.depth


def without_reasoning(texts: Iterable[str]) -> list[str]:
    """Remove reasoning: `transformers serve` sends it separately, and not verbatim."""
    return [text.rpartition("</think>")[2].strip() for text in texts]


def test_served_depths_equal_those_of_the_model_in_process(local, remote):
    assert remote.profile == local.profile
    assert remote.limits == local.limits
    answers = set()
    for view in VIEWS:
        texts, metres = depths(local, view)
        served_texts, served_metres = depths(remote, view)
        assert served_texts == texts
        np.testing.assert_array_equal(served_metres, metres)
        answers |= set(texts)
    # Otherwise a model that always answers the same would pass.
    assert len(answers) > 10


def test_two_images_and_free_questions(local, remote):
    images = [np.ascontiguousarray(np.full((96, 128, 3), c, np.uint8)) for c in (30, 220)]
    questions = ["How far is the wall?", "Which image is brighter?"]
    for order in (images, images[::-1]):
        local_texts = [answer.text for answer in local.ask(order, questions)]
        remote_texts = [answer.text for answer in remote.ask(order, questions)]
        assert without_reasoning(remote_texts) == without_reasoning(local_texts)


@pytest.mark.skipif("VLLM" not in os.environ, reason="needs a vLLM: make test-vllm")
def test_vllm_gets_each_image_once_and_computes_it_once(model_server, remote, caplog):
    sent = []

    async def note(request: httpx.Request) -> None:
        sent.append(request.content.count(b"base64,"))

    remote._client._http.event_hooks["request"] = [note]
    # 768 tokens: more than a block of the prefix cache.
    image = np.random.default_rng(9).integers(0, 256, (768, 1024, 3)).astype(np.uint8)
    questions = [f"How far is point {i}?" for i in range(24)]
    before = prefix_hits(model_server.address)
    for shown in (image, image[::-1].copy(), image):
        answers = remote.ask([shown], questions)
        assert not any(answer.fault for answer in answers)
    assert sum(sent) == 2
    assert prefix_hits(model_server.address) - before > 3 * 20 * 700
    assert "reads images as" not in caplog.text  # the server does not resize them


@pytest.mark.skipif("VLLM" not in os.environ, reason="needs a vLLM: make test-vllm")
def test_vllm_sees_the_named_image_of_a_pair(local, remote):
    """The server keeps one image of a pair; the other is new, or known in another place."""
    sent = []

    async def note(request: httpx.Request) -> None:
        sent.append(request.content.count(b"base64,"))

    remote._client._http.event_hooks["request"] = [note]
    images = [
        np.random.default_rng(seed).integers(low, low + 60, (96, 128, 3)).astype(np.uint8)
        for seed, low in ((11, 0), (12, 90), (13, 190))
    ]
    questions = ["How far is the wall?", "Which image is brighter?"]
    for pair, new in (((0, 1), 2), ((0, 2), 1), ((2, 1), 0), ((1, 0), 0)):
        shown = [images[i] for i in pair]
        before = sum(sent)
        answers = [answer.text for answer in remote.ask(shown, questions)]
        assert answers == [answer.text for answer in local.ask(shown, questions)]
        assert sum(sent) - before == new


def prefix_hits(address: str) -> float:
    """Return the number of tokens that vLLM found in its prefix cache so far."""
    metrics = httpx.get(f"{address}/metrics", timeout=60).text
    return sum(map(float, re.findall(r"^vllm:prefix_cache_hits_total.* (\S+)$", metrics, re.M)))
