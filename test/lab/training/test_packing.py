# SPDX-License-Identifier: Apache-2.0
"""A packed batch gives the same results as separate, unpacked chats."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from documented_chat import encode_chat
from transformers import AutoModelForImageTextToText

from vlm3_lab.training.checkpoint import TinyShape, build_checkpoint
from vlm3_lab.training.packing import (
    IGNORE,
    PACKED_ATTENTION,
    Packer,
    mrope_positions,
    packed_hidden,
    packed_loss,
)
from vlm3_ros.engines.base import Profile
from vlm3_ros.engines.processor import load_processor
from vlm3_ros.engines.profiles import read_profile
from vlm3_ros.language.prompts import load_prompt_set
from vlm3_ros.language.wordings.depth import DepthWording, depth_answer, depth_question


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    profile = Profile(160.0, "pad", load_prompt_set("vlm3"))
    shape = TinyShape(vision_hidden=32, vision_depth=2, hidden=64, layers=2, heads=4, head_dim=16)
    build_checkpoint(folder, shape, profile, seed=3)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.0)  # random initial weights hardly tell inputs apart
    return model, load_processor(folder), read_profile(folder)


def _samples(profile, rng):
    """Three samples of different image size and number of digits."""
    for width, height in ((96, 64), (64, 64), (160, 96)):
        image = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
        pairs = [
            (
                depth_question(
                    profile.prompts[DepthWording],
                    rng.integers(0, 2000, 2),
                    profile.prompts.text_range,
                ),
                depth_answer(profile.prompts[DepthWording], float(rng.uniform(0.3, 120))),
            )
            for _ in range(4)
        ]
        yield image, pairs


def _plain_losses(model, processor, image, question, answer):
    """Cross entropy of each answer token of one ordinary chat, by the stock model."""
    inputs = encode_chat(processor, [image], question)
    tokens = processor.tokenizer(answer, add_special_tokens=False)["input_ids"]
    tokens = torch.tensor([[*tokens, processor.tokenizer.eos_token_id]])
    start = inputs["input_ids"].shape[1]
    for name, fill in (("input_ids", tokens), ("attention_mask", 1), ("mm_token_type_ids", 0)):
        more = fill if name == "input_ids" else torch.full_like(tokens, fill)
        inputs[name] = torch.cat([inputs[name], more], 1)
    logits = model(**inputs).logits[0, start - 1 : -1]
    return torch.nn.functional.cross_entropy(logits, tokens[0], reduction="none")


def test_packed_loss_equals_that_of_separate_chats(checkpoint):
    model, processor, profile = checkpoint
    packer = Packer(processor)
    samples = list(_samples(profile, np.random.default_rng(0)))
    with torch.inference_mode():
        model.set_attn_implementation("sdpa")
        alone = torch.cat(
            [
                _plain_losses(model, processor, image, question, answer)
                for image, pairs in samples
                for question, answer in pairs
            ]
        )
        model.set_attn_implementation(PACKED_ATTENTION)
        batch = packer.collate([packer.pack([image], pairs) for image, pairs in samples])
        packed = packed_loss(model, batch)
    assert alone.std() > 0.1
    assert packed.item() == pytest.approx(alone.mean().item(), rel=1e-5)


def test_only_answers_carry_loss(checkpoint):
    _, processor, profile = checkpoint
    packer = Packer(processor)
    image, pairs = next(_samples(profile, np.random.default_rng(1)))
    sample = packer.pack([image], pairs)
    for (_, answer), block, label in zip(pairs, sample.blocks, sample.labels, strict=True):
        learned = label[label != IGNORE]
        assert processor.tokenizer.decode(learned) == answer + processor.tokenizer.eos_token
        assert np.array_equal(block[label != IGNORE], learned)
        assert (label[: len(label) - len(learned)] == IGNORE).all()


def test_no_question_sees_another(checkpoint):
    model, processor, profile = checkpoint
    packer = Packer(processor)
    image, pairs = next(_samples(profile, np.random.default_rng(2)))
    others = [
        pairs[0],
        *[(q, depth_answer(profile.prompts[DepthWording], 77.77)) for q, _ in pairs[1:]],
    ]
    model.set_attn_implementation(PACKED_ATTENTION)

    def loss_of_first(chosen):
        batch = packer.collate([packer.pack([image], chosen)])
        layout = batch["layout"]
        batch["labels"][:, layout.prefix + layout.block :] = IGNORE
        with torch.inference_mode():
            return packed_loss(model, batch).item()

    assert loss_of_first(pairs) == pytest.approx(loss_of_first(others), rel=1e-6)


@pytest.mark.parametrize("sizes", [[(96, 64)], [(64, 160), (96, 96)], [(64, 64)] * 3])
def test_positions_are_the_model_s_own(checkpoint, sizes):
    model, processor, _ = checkpoint
    images = [np.zeros((h, w, 3), np.uint8) for w, h in sizes]
    inputs = encode_chat(processor, images, "How far? (12, 3)")
    expected, _ = model.model.get_rope_index(
        inputs["input_ids"],
        mm_token_type_ids=inputs["mm_token_type_ids"],
        image_grid_thw=inputs["image_grid_thw"],
    )
    is_image = (inputs["input_ids"][0] == model.config.image_token_id).numpy()
    ours = mrope_positions(is_image, inputs["image_grid_thw"].numpy(), 2)
    assert np.array_equal(ours, expected[:, 0].numpy())


def test_a_sample_without_questions_holds_only_its_images(checkpoint):
    model, processor, _ = checkpoint
    packer, image = Packer(processor), np.full((64, 96, 3), 40, np.uint8)
    bare = packer.pack([image, image], [])
    asked = packer.pack([image, image], [("one?", "1"), ("two?", "2")])
    assert bare.blocks == ()
    n = len(bare.prefix_ids)
    assert np.array_equal(bare.prefix_ids, asked.prefix_ids[:n])
    model.set_attn_implementation(PACKED_ATTENTION)
    with torch.inference_mode():
        alone, before = (
            packed_hidden(model, packer.collate([sample]))[:, :n] for sample in (bare, asked)
        )
    assert torch.allclose(alone, before, atol=1e-5)


def test_a_model_with_another_attention_is_refused(checkpoint):
    model, processor, _ = checkpoint
    packer = Packer(processor)
    batch = packer.collate([packer.pack([np.zeros((64, 96, 3), np.uint8)], [("one?", "1")])])
    model.set_attn_implementation("sdpa")
    with pytest.raises(ValueError, match=r"is sdpa.*set_attn_implementation\(PACKED_ATTENTION\)"):
        packed_loss(model, batch)
