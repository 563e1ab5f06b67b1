# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from documented_chat import encode_chat
from numpy.typing import NDArray
from stub_server import StubServer, completion
from transformers import AutoModelForImageTextToText

from vlm3_lab.training.checkpoint import TinyShape, build_checkpoint
from vlm3_ros.engines.base import Profile
from vlm3_ros.engines.model import LoadedModel
from vlm3_ros.engines.processor import load_processor
from vlm3_ros.engines.remote import client
from vlm3_ros.engines.remote.engine import RemoteEngine, load_remote_engine
from vlm3_ros.engines.settings import EngineSettings
from vlm3_ros.engines.transformers import TransformersEngine
from vlm3_ros.language.prompts import load_prompt_set
from vlm3_ros.language.wordings.depth import DepthWording, depth_answer, depth_question

# These models are asked for depth only.
PROMPTS = load_prompt_set("vlm3").without("pose", "correspondence", "objects")
PROFILE = Profile(focal=250.0, fit="pad", prompts=PROMPTS)
SHAPES = {
    "one deepstack layer, heads share keys": TinyShape(
        vision_hidden=32, vision_depth=2, vision_heads=2, hidden=64, layers=2, head_dim=16
    ),
    "two deepstack layers, a key head per head": TinyShape(
        vision_hidden=48,
        vision_depth=3,
        vision_heads=3,
        deepstack=(0, 2),
        hidden=96,
        layers=3,
        heads=2,
        kv_heads=2,
        head_dim=32,
        position_grid=8,
    ),
}


class TinyModel(SimpleNamespace):
    """A checkpoint folder with its loaded model and processor."""

    folder: Path
    model: torch.nn.Module
    processor: object
    profile: Profile = PROFILE

    def engine(self, **settings: object) -> TransformersEngine:
        loaded = LoadedModel(self.model, self.processor, PROFILE)
        return TransformersEngine(loaded, EngineSettings(model=str(self.folder), **settings))

    def inputs(self, images: Sequence[NDArray[np.uint8]], question: str) -> dict[str, torch.Tensor]:
        return encode_chat(self.processor, images, question)

    def generate(
        self,
        images: Sequence[NDArray[np.uint8]],
        question: str,
        max_new_tokens: int,
        **options: object,
    ) -> str:
        """Return the answer of stock `generate` to one question alone."""
        inputs = self.inputs(images, question)
        output = self.model.generate(
            **inputs, max_new_tokens=max_new_tokens, do_sample=False, **options
        )
        return self.processor.tokenizer.decode(
            output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True
        )


def _roughen(model: torch.nn.Module) -> None:
    """Scale random weights: as initialised, a model answers all questions the same."""
    generator = torch.Generator().manual_seed(7)
    head = torch.randn(model.lm_head.weight.shape, generator=generator)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if weights.ndim > 1:
                weights *= 4 * (8 if "embed_tokens" in name else 3 if "o_proj" in name else 1)
        # Untied: with the embedding as its head, the model only repeats the last token.
        model.lm_head.weight = torch.nn.Parameter(head)


@pytest.fixture(scope="session", params=SHAPES, ids=lambda name: name.replace(" ", "-"))
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    """A random model whose answers depend on question and image."""
    folder = tmp_path_factory.mktemp("rough")
    build_checkpoint(folder, SHAPES[request.param], PROFILE, seed=1)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    _roughen(model)
    return TinyModel(folder=folder, model=model, processor=load_processor(folder))


@pytest.fixture(scope="session")
def picture() -> Callable[..., NDArray[np.uint8]]:
    def make(width: int, height: int, seed: int = 0) -> NDArray[np.uint8]:
        cells = np.random.default_rng(seed).integers(0, 256, (height // 16, width // 16, 3))
        return np.kron(cells, np.ones((16, 16, 1))).astype(np.uint8)

    return make


@pytest.fixture(scope="session")
def questions() -> list[str]:
    """Depth questions with one to four digits per coordinate, and two with another wording."""
    rng = np.random.default_rng(5)
    pixels = np.concatenate([rng.integers(0, high, (4, 2)) for high in (10, 100, 1000, 2000)])
    return [
        *(depth_question(PROMPTS[DepthWording], pixel, PROMPTS.text_range) for pixel in pixels),
        "How far?",
        "Given this image, how far is the red door? Answer in metres, please, and be brief.",
    ]


@pytest.fixture(scope="session")
def fluent(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    """A model trained for a few seconds to answer about x / 200 m, in the form of its prompts."""
    folder = tmp_path_factory.mktemp("fluent")
    shape = SHAPES["one deepstack layer, heads share keys"]
    build_checkpoint(folder, shape, PROFILE, seed=2)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    processor = load_processor(folder)
    tiny = TinyModel(folder=folder, model=model, processor=processor)
    rng = np.random.default_rng(0)
    image = np.zeros((32, 32, 3), np.uint8)
    optimizer = torch.optim.AdamW(model.parameters(), 4e-3)
    for _ in range(150):
        _step(optimizer, model, [_example(tiny, image, rng) for _ in range(16)])
    model.eval().save_pretrained(folder)
    return tiny


THOUGHTS = (
    "<think> The point is around {value} meters away from the camera. </think>\n"
    "<answer> {value} </answer>"
)
"""The form of DepthLM's answers, whose number stands twice; not the one in PROFILE."""


@pytest.fixture(scope="session")
def thoughtful_answers() -> dict[str, str]:
    """Questions about 32 pixels, and answers in the form THOUGHTS."""
    pixels = np.random.default_rng(13).integers(0, 2000, (32, 2))
    return {
        depth_question(PROMPTS[DepthWording], pixel, PROMPTS.text_range): THOUGHTS.replace(
            "{value}", f"{0.8 + 0.37 * i:.2f}"
        )
        for i, pixel in enumerate(pixels)
    }


@pytest.fixture(scope="session")
def thoughtful(
    tmp_path_factory: pytest.TempPathFactory, thoughtful_answers: dict[str, str]
) -> TinyModel:
    """A model that knows these answers by heart, and whose profile has another form."""
    folder = tmp_path_factory.mktemp("thoughtful")
    build_checkpoint(folder, SHAPES["one deepstack layer, heads share keys"], PROFILE, seed=3)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    tiny = TinyModel(folder=folder, model=model, processor=load_processor(folder))
    image = np.zeros((32, 32, 3), np.uint8)
    lengths: dict[int, list[dict]] = {}
    for question, answer in thoughtful_answers.items():
        example = _spoken(tiny, image, question, answer)
        lengths.setdefault(example["input_ids"].shape[1], []).append(example)
    optimizer = torch.optim.AdamW(model.parameters(), 4e-3)
    for _ in range(300):
        loss = max(_step(optimizer, model, batch) for batch in lengths.values())
        if loss < 0.003:
            break
    model.eval().save_pretrained(folder)
    return tiny


@pytest.fixture(scope="session")
def depth_questions() -> list[str]:
    """Depth questions that the fluent model was trained on."""
    rng = np.random.default_rng(11)
    return [
        depth_question(PROMPTS[DepthWording], pixel, PROMPTS.text_range)
        for pixel in rng.integers(1000, 2000, (24, 2))
    ]


@pytest.fixture(scope="session")
def image() -> NDArray[np.uint8]:
    """The only image that the fluent model was trained on."""
    return np.zeros((32, 32, 3), np.uint8)


def _example(tiny: TinyModel, image: NDArray[np.uint8], rng: np.random.Generator) -> dict:
    x, y = rng.integers(1000, 2000, 2)
    question = depth_question(PROMPTS[DepthWording], (x, y), PROMPTS.text_range)
    answer = depth_answer(PROMPTS[DepthWording], x / 200 * rng.uniform(0.9, 0.999))
    return _spoken(tiny, image, question, answer)


def _spoken(tiny: TinyModel, image: NDArray[np.uint8], question: str, answer: str) -> dict:
    """Return a question with its answer as model inputs and labels."""
    inputs = tiny.inputs([image], question)
    tokens = tiny.processor.tokenizer(answer + "<|im_end|>", return_tensors="pt")["input_ids"]
    asked = inputs["input_ids"]
    return {
        "input_ids": torch.cat([asked, tokens], 1),
        "labels": torch.cat([torch.full_like(asked, -100), tokens], 1),
        "mm_token_type_ids": torch.cat([inputs["mm_token_type_ids"], 0 * tokens], 1),
        "pixel_values": inputs["pixel_values"],
        "image_grid_thw": inputs["image_grid_thw"],
    }


def _step(
    optimizer: torch.optim.Optimizer, model: torch.nn.Module, examples: Sequence[dict]
) -> float:
    """Train on examples of the same length; return the loss."""
    inputs = {name: torch.cat([example[name] for example in examples]) for name in examples[0]}
    loss = model(**inputs).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return float(loss.detach())


@pytest.fixture
def stub_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[StubServer]:
    monkeypatch.setattr(client, "BACKOFF", 0.01)
    running = StubServer(reply=lambda chat, server: completion("nothing"))
    running.start()
    yield running
    running.stop()


@pytest.fixture
def connect(stub_server: StubServer) -> Iterator[Callable[..., RemoteEngine]]:
    """Makes patient engines for the stub server."""
    engines = []

    def make(**settings: Any) -> RemoteEngine:
        patient = {"request_timeout": 100.0, "frame_timeout": 200.0}
        given = {"model": "served", "profile": "vlm3", "base_url": stub_server.url, **patient}
        given |= settings
        engines.append(load_remote_engine(EngineSettings(engine="openai", **given)))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()
