# SPDX-License-Identifier: Apache-2.0
"""A small Qwen3-VL checkpoint with random weights, to train from nothing.

The folder holds the same files as a Qwen3-VL checkpoint on the Hugging Face hub (config,
safetensors, tokenizer with Qwen's special tokens and chat template, processor), so that every tool
for Qwen3-VL takes it. It also holds `vlm3.json`, the profile that defines how it is asked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import (
    GenerationConfig,
    Qwen2Tokenizer,
    Qwen2VLImageProcessorPil,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from vlm3_ros.engines.base import Profile
from vlm3_ros.engines.processor import ImageOnlyQwen3VLProcessor
from vlm3_ros.engines.profiles import write_profile
from vlm3_ros.language.prompts import PromptSet, Wording
from vlm3_ros.language.wordings.pose import COARSE_WORDS

PATCH_SIZE, MERGE_SIZE, TEMPORAL_PATCH_SIZE = 16, 2, 2
# One merged patch, so that the smallest image that can be asked about is not resized.
MIN_PIXELS = (PATCH_SIZE * MERGE_SIZE) ** 2
MAX_PIXELS = 16_777_216
IMAGE_MEAN = IMAGE_STD = (0.5, 0.5, 0.5)

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
_CONFIG_TOKENS: dict[str, str] = {
    "image_token_id": "<|image_pad|>",
    "video_token_id": "<|video_pad|>",
    "vision_start_token_id": "<|vision_start|>",
    "vision_end_token_id": "<|vision_end|>",
}
# The order of texts numbers the tokens of a new checkpoint: it must not change.
_FIRST_WORDED = ("depth", "correspondence", "pose")

# Added tokens that decoding with skip_special_tokens keeps, as in Qwen3's own tokenizer.
PLAIN_ADDED_TOKENS = ("<think>", "</think>")

# The branches of Qwen3-VL's template for chats of images and text.
CHAT_TEMPLATE = """\
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' }}
{%- if message.content is string %}
{{- message.content }}
{%- else %}
{%- for part in message.content %}
{%- if part.type in ('image', 'image_url') or 'image' in part or 'image_url' in part %}
{{- '<|vision_start|><|image_pad|><|vision_end|>' }}
{%- elif 'text' in part %}
{{- part.text }}
{%- endif %}
{%- endfor %}
{%- endif %}
{{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}"""


@dataclass(frozen=True)
class TinyShape:
    """Sizes of a small model.

    Attributes:
        deepstack: vision layers whose features also enter the first text layers.
        position_grid: side of the learned grid of position embeddings, resampled to each image.
    """

    vision_hidden: int = 96
    vision_depth: int = 4
    vision_heads: int = 4
    deepstack: tuple[int, ...] = (1,)
    hidden: int = 128
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 32
    intermediate: int = 384
    position_grid: int = 32


def build_checkpoint(folder: Path | str, shape: TinyShape, profile: Profile, seed: int = 0) -> None:
    """Write a checkpoint with random weights to `folder`, which is created if missing.

    Args:
        profile: how the checkpoint is asked; its prompts shape the tokenizer.
        seed: of the weights.
    """
    folder = Path(folder)
    tokenizer = build_tokenizer(profile.prompts)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3VLForConditionalGeneration(model_config(shape, tokenizer))
    model.generation_config = _generation_config(tokenizer)
    model.save_pretrained(folder)
    save_processor(build_processor(tokenizer), folder)
    write_profile(folder, profile)


def _generation_config(tokenizer: Qwen2Tokenizer) -> GenerationConfig:
    return GenerationConfig(
        do_sample=False,
        bos_token_id=tokenizer.pad_token_id,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=[tokenizer.eos_token_id, tokenizer.pad_token_id],
    )


def build_tokenizer(prompts: PromptSet, constants_are_tokens: bool = True) -> Qwen2Tokenizer:
    """Build a byte-level tokenizer that knows the words of a prompt set.

    Any text round-trips; each digit is one token, as in Qwen's own tokenizer.

    Args:
        constants_are_tokens: make each piece of text between the numbers of a question or answer
            one token: the same strings in a quarter of the tokens. Otherwise each word is a
            token, as in Qwen's own tokenizer.
    """
    templates = prompt_templates(prompts)
    if not constants_are_tokens:
        return word_tokenizer(templates)
    added = [part for text in templates for part in constant_parts(text)]
    if "pose" in prompts.wordings:
        added += [word for words in COARSE_WORDS for word in words]
    # Only the words of the chat remain to be learned.
    return _tokenizer(_ordered_wordings(prompts)[0].templates(), 448, added)


def word_tokenizer(texts: Sequence[str]) -> Qwen2Tokenizer:
    """Build a byte-level tokenizer with a token for each word of some texts, and for each digit.

    These texts have about as many tokens as with Qwen's own tokenizer.
    """
    return _tokenizer(texts, 2048, [])  # more than there are words


def _tokenizer(texts: Sequence[str], size: int, added: Iterable[str]) -> Qwen2Tokenizer:
    """Build a tokenizer.

    Args:
        texts: from which the vocabulary is learned.
        size: of the learned vocabulary, at most.
        added: further tokens.
    """
    trained = _train_bpe([*texts, "system\nuser\nassistant\n"], size)
    tokenizer = Qwen2Tokenizer(
        vocab=trained["vocab"],
        merges=trained["merges"],
        bos_token=None,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=[
            token for token in SPECIAL_TOKENS if token not in ("<|endoftext|>", "<|im_end|>")
        ],
        model_max_length=32768,
        errors="replace",
    )
    tokens = dict.fromkeys((*PLAIN_ADDED_TOKENS, *added))
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in tokens])
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def prompt_templates(prompts: PromptSet) -> list[str]:
    """Return all questions and answers of a prompt set."""
    return [text for wording in _ordered_wordings(prompts) for text in wording.templates()]


def _ordered_wordings(prompts: PromptSet) -> list[Wording]:
    names = dict.fromkeys((*_FIRST_WORDED, *prompts.wordings))
    return [prompts.wordings[name] for name in names if name in prompts.wordings]


def extend_checkpoint(
    source: Path | str,
    folder: Path | str,
    profile: Profile,
    tokenizer: Qwen2Tokenizer | None = None,
) -> None:
    """Write a copy of a checkpoint that knows the words of more prompts.

    Tokens that both have keep their embeddings, the others start at random, but equally each time.

    Args:
        source: folder of a small checkpoint of ours.
        folder: of the copy.
        profile: how the copy is asked.
        tokenizer: of the copy; None for that of `profile.prompts`, see `build_tokenizer`.
    """
    model: Any = Qwen3VLForConditionalGeneration.from_pretrained(source, dtype=torch.float32)
    known = Qwen2Tokenizer.from_pretrained(source).get_vocab()
    tokenizer = tokenizer or build_tokenizer(profile.prompts)
    vocabulary = tokenizer.get_vocab()
    old = model.get_input_embeddings().weight.detach().clone()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        new = torch.randn(len(tokenizer), old.shape[1]) * old.std()
    for token, index in vocabulary.items():
        if token in known:
            new[index] = old[known[token]]
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.get_input_embeddings().weight.data.copy_(new)
    for name, token in _CONFIG_TOKENS.items():
        setattr(model.config, name, vocabulary[token])
    text = model.config.text_config
    text.bos_token_id = text.pad_token_id = tokenizer.pad_token_id
    text.eos_token_id = tokenizer.eos_token_id
    model.generation_config = _generation_config(tokenizer)
    model.save_pretrained(folder)
    save_processor(build_processor(tokenizer), folder)
    write_profile(folder, profile)


def has_own_words(folder: Path | str, profile: Profile) -> bool:
    """Whether a checkpoint's tokenizer was made for its prompts by `build_tokenizer`."""
    known = Qwen2Tokenizer.from_pretrained(folder).get_vocab()
    question = _ordered_wordings(profile.prompts)[0].templates()[0]
    return all(part in known for part in constant_parts(question))


def constant_parts(template: str) -> list[str]:
    """The parts of a template between its placeholders, without those of punctuation alone."""
    parts = re.split(r"\{\w+\}", template)
    return [part for part in parts if re.search(r"[^\W\d]", part)]


def build_processor(tokenizer: Qwen2Tokenizer) -> ImageOnlyQwen3VLProcessor:
    """Build the processor of a small checkpoint, image half only."""
    image_processor = Qwen2VLImageProcessorPil(
        patch_size=PATCH_SIZE,
        temporal_patch_size=TEMPORAL_PATCH_SIZE,
        merge_size=MERGE_SIZE,
        image_mean=list(IMAGE_MEAN),
        image_std=list(IMAGE_STD),
        size={"shortest_edge": MIN_PIXELS, "longest_edge": MAX_PIXELS},
    )
    return ImageOnlyQwen3VLProcessor(image_processor, tokenizer, chat_template=CHAT_TEMPLATE)


def save_processor(processor: ImageOnlyQwen3VLProcessor, folder: Path | str) -> None:
    """Save a processor so that stock loaders, which need its video half, accept the folder."""
    folder = Path(folder)
    processor.save_pretrained(folder)
    path = folder / "processor_config.json"
    config = json.loads(path.read_text())
    config["processor_class"] = "Qwen3VLProcessor"
    config["image_processor"]["image_processor_type"] = "Qwen2VLImageProcessor"
    config["video_processor"] = {
        "video_processor_type": "Qwen3VLVideoProcessor",
        "patch_size": PATCH_SIZE,
        "temporal_patch_size": TEMPORAL_PATCH_SIZE,
        "merge_size": MERGE_SIZE,
        "image_mean": list(IMAGE_MEAN),
        "image_std": list(IMAGE_STD),
        "size": {"shortest_edge": 4096, "longest_edge": 25_165_824},
    }
    path.write_text(json.dumps(config, indent=2) + "\n")
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    config["processor_class"] = "Qwen3VLProcessor"
    path.write_text(json.dumps(config, indent=2) + "\n")


def model_config(shape: TinyShape, tokenizer: Qwen2Tokenizer) -> Qwen3VLConfig:
    """Configuration of Qwen3VLForConditionalGeneration with this shape and vocabulary."""
    vocabulary = tokenizer.get_vocab()
    # Height and width take 5/16 of the rotary frequencies each, time the rest: as in Qwen3-VL.
    side = round(shape.head_dim / 2 * 5 / 16)
    token_ids: dict[str, Any] = {name: vocabulary[token] for name, token in _CONFIG_TOKENS.items()}
    return Qwen3VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": shape.hidden,
            "intermediate_size": shape.intermediate,
            "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.kv_heads,
            "head_dim": shape.head_dim,
            "max_position_embeddings": 32768,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e4,
                "mrope_interleaved": True,
                "mrope_section": [shape.head_dim // 2 - 2 * side, side, side],
            },
            "bos_token_id": tokenizer.pad_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": shape.vision_depth,
            "hidden_size": shape.vision_hidden,
            "intermediate_size": shape.vision_hidden * 3,
            "num_heads": shape.vision_heads,
            "patch_size": PATCH_SIZE,
            "spatial_merge_size": MERGE_SIZE,
            "temporal_patch_size": TEMPORAL_PATCH_SIZE,
            "out_hidden_size": shape.hidden,
            "num_position_embeddings": shape.position_grid**2,
            "deepstack_visual_indexes": list(shape.deepstack),
        },
        **token_ids,
        tie_word_embeddings=True,
    )


def _train_bpe(texts: list[str], vocabulary: int) -> dict[str, Any]:
    """Vocabulary and merges of a byte-level BPE; it has every byte, so nothing is unknown."""
    tokenizer = Tokenizer(BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return {"vocab": model["vocab"], "merges": [tuple(pair) for pair in model["merges"]]}
