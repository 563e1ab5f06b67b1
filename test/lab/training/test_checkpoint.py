# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForImageTextToText, AutoTokenizer

from vlm3_lab.training.checkpoint import (
    TinyShape,
    build_checkpoint,
    build_tokenizer,
    constant_parts,
    extend_checkpoint,
)
from vlm3_lab.training.packing import PACKED_ATTENTION, Packer, packed_hidden
from vlm3_ros.engines.base import Profile
from vlm3_ros.engines.processor import load_processor
from vlm3_ros.engines.profiles import read_profile
from vlm3_ros.language.prompts import load_prompt_set
from vlm3_ros.language.wordings.depth import DepthWording, depth_answer, depth_question
from vlm3_ros.language.wordings.pose import PoseWording

PROMPTS = load_prompt_set("vlm3")
SHAPE = TinyShape(vision_hidden=32, vision_depth=2, vision_heads=2, hidden=64, layers=2, heads=4)
TOKENIZER = build_tokenizer(PROMPTS)
PROFILE = Profile(focal=250.0, fit="pad", prompts=PROMPTS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    build_checkpoint(folder, SHAPE, PROFILE, seed=3)
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder: Path):
    """Loaded with stock classes: the saved one must equal the built one."""
    return AutoTokenizer.from_pretrained(folder)


def tokens(tokenizer, text: str) -> list[str]:
    return [tokenizer.decode([i]) for i in tokenizer(text, add_special_tokens=False)["input_ids"]]


def test_questions_and_answers_take_few_tokens(tokenizer):
    question = depth_question(PROMPTS[DepthWording], (12, 1999), PROMPTS.text_range)
    head, tail = constant_parts(PROMPTS[DepthWording].question)
    assert tokens(tokenizer, question) == [head, "1", "2", ",", " ", "1", "9", "9", "9", tail]
    assert tokens(tokenizer, depth_answer(PROMPTS[DepthWording], 3.25)) == [
        "<think> </think> <answer>",
        *"3.25",
        "</answer>",
    ]


def test_the_chat_around_a_question_stays_ordinary(tokenizer):
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": "How far?"}], tokenize=False, add_generation_prompt=True
    )
    assert chat == "<|im_start|>user\nHow far?<|im_end|>\n<|im_start|>assistant\n"
    assert tokens(tokenizer, chat)[-4:] == ["\n", "<|im_start|>", "assistant", "\n"]


def test_special_tokens_have_no_text_and_others_do(tokenizer):
    ids = tokenizer("<|im_start|><think>a</think><|im_end|>")["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "<think>a</think>"


@given(st.text())
def test_any_text_round_trips(text):
    text = unicodedata.normalize("NFC", text)
    assert TOKENIZER.decode(TOKENIZER(text, add_special_tokens=False)["input_ids"]) == text


@given(st.from_regex(r"[0-9]{1,12}", fullmatch=True))
def test_each_digit_is_one_token(digits):
    assert len(TOKENIZER(digits, add_special_tokens=False)["input_ids"]) == len(digits)


def test_the_prompt_round_trips(tokenizer):
    wording = PROMPTS[DepthWording]
    question = depth_question(wording, (0, 7), PROMPTS.text_range)
    text = f"{question}<|im_end|>\n{depth_answer(wording, 12.5)}"
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_stock_classes_take_the_folder(folder):
    config = AutoConfig.from_pretrained(folder)
    assert config.architectures == ["Qwen3VLForConditionalGeneration"]
    model = AutoModelForImageTextToText.from_pretrained(folder)
    assert type(model).__name__ == "Qwen3VLForConditionalGeneration"
    assert model.generation_config.eos_token_id == [
        config.text_config.eos_token_id,
        config.text_config.pad_token_id,
    ]


def test_the_processor_names_what_stock_loaders_look_for(folder):
    saved = json.loads((folder / "processor_config.json").read_text())
    assert saved["processor_class"] == "Qwen3VLProcessor"
    assert saved["image_processor"]["image_processor_type"] == "Qwen2VLImageProcessor"
    assert saved["video_processor"]["video_processor_type"] == "Qwen3VLVideoProcessor"


def test_the_profile_comes_back(folder):
    assert read_profile(folder) == PROFILE


def test_the_seed_decides_the_weights_and_the_caller_s_generator_is_unchanged(tmp_path, folder):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    build_checkpoint(tmp_path / "again", SHAPE, PROFILE, seed=3)
    assert torch.rand(1) == expected
    build_checkpoint(tmp_path / "other", SHAPE, PROFILE, seed=4)
    same, again, other = (
        (path / "model.safetensors").read_bytes()
        for path in (folder, tmp_path / "again", tmp_path / "other")
    )
    assert same == again
    assert same != other


def test_an_extended_checkpoint_answers_depth_as_before_and_can_be_asked_about_pairs(tmp_path):
    prompts = load_prompt_set("vlm3-short")
    depth_only = prompts.without("pose", "correspondence", "objects")
    build_checkpoint(tmp_path / "depth", TinyShape(), Profile(128.0, "pad", depth_only), seed=3)
    profile = Profile(128.0, "pad", load_prompt_set("vlm3-short"))
    extend_checkpoint(tmp_path / "depth", tmp_path / "pairs", profile)
    assert read_profile(tmp_path / "pairs") == profile

    tokens, before = (AutoTokenizer.from_pretrained(tmp_path / name) for name in ("pairs", "depth"))
    assert before.get_vocab().items() <= tokens.get_vocab().items()
    for template in (
        profile.prompts[PoseWording].distance.question,
        "The corresponding pixel is (",
    ):
        assert len(tokens.tokenize(template)) == 1 < len(before.tokenize(template))

    image = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    question = (
        depth_question(profile.prompts[DepthWording], (300, 1200), profile.prompts.text_range),
        depth_answer(profile.prompts[DepthWording], 2.5),
    )
    hidden = []
    for name in ("depth", "pairs"):
        model = AutoModelForImageTextToText.from_pretrained(tmp_path / name, dtype=torch.float32)
        model.set_attn_implementation(PACKED_ATTENTION)
        packer = Packer(load_processor(tmp_path / name))
        batch = packer.collate([packer.pack([image], [question])])
        with torch.inference_mode():
            hidden.append(packed_hidden(model, batch))
    assert torch.allclose(*hidden, atol=1e-5)
