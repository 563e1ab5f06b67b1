# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from vlm3_lab.studies.bench import architectures
from vlm3_lab.studies.bench.stock import ask_naive
from vlm3_ros.engines.base import EngineError
from vlm3_ros.engines.processor import encode_questions
from vlm3_ros.engines.settings import EngineSettings
from vlm3_ros.engines.transformers import TransformersEngine
from vlm3_ros.language.wordings.depth import DepthWording, depth_question

SETTINGS = EngineSettings("random", device="cpu", dtype="float32", max_new_tokens=9)


@pytest.fixture
def small(monkeypatch):
    """The 4B shape with every size divided."""
    whole = architectures.SHAPES["4b"]
    text = {
        **whole["text_config"],
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 128,
    }
    vision = {
        **whole["vision_config"],
        "depth": 3,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "out_hidden_size": 64,
        "deepstack_visual_indexes": [0, 1],
    }
    sizes = {"text_config": text, "vision_config": vision}
    monkeypatch.setitem(architectures.SHAPES, "small", sizes)
    return architectures.random_model("small", SETTINGS)


def test_a_random_model_is_asked_like_the_real_one(small):
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    prompts = small.profile.prompts
    questions = [
        depth_question(prompts[DepthWording], (1234 + i, 999 - i), prompts.text_range)
        for i in range(5)
    ]
    engine = TransformersEngine(small, SETTINGS)
    engine.force(prompts[DepthWording].answer)
    free = engine.ask([image], questions)
    assert [answer.text for answer in free] == ask_naive(small, image, questions, 9)
    assert all(answer.text for answer in free)
    assert {answer.std for answer in free} == {None}
    forced = engine.ask([image], questions, prompts[DepthWording].answer)
    opening, closing = prompts[DepthWording].answer.split("{value}")
    for answer in forced:
        assert float(answer.text.removeprefix(opening).removesuffix(closing)) >= 0
        assert answer.std is not None


def test_questions_are_about_as_long_as_in_the_real_vocabulary(small):
    """74 own tokens after 17 shared ones, with two coordinates of four digits."""
    prompts = small.profile.prompts
    image = np.zeros((32, 32, 3), np.uint8)
    encoded = encode_questions(
        small.processor,
        [image],
        [
            depth_question(prompts[DepthWording], xy, prompts.text_range)
            for xy in ((1234, 999), (871, 1700))
        ],
    )
    assert np.mean([len(suffix) for suffix in encoded.suffixes]) == pytest.approx(74, abs=6)


def test_4b_is_the_size_of_qwen3_vl_4b_and_refused_where_it_does_not_fit(monkeypatch):
    monkeypatch.setattr(architectures, "free_memory", lambda device: 1_000_000_000)
    with pytest.raises(EngineError, match=r"shape 4b as float32 needs about 21\.\d GB on cpu"):
        architectures.random_model("4b", SETTINGS)
