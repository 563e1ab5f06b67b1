# SPDX-License-Identifier: Apache-2.0
"""The remote engine against a real server: its answers equal those of the model in process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pytest

from vlm3_lab.scenes.views import View, sample_view
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
