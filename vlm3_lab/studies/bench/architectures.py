# SPDX-License-Identifier: Apache-2.0
"""Public architectures with random weights, to measure a model's cost without its checkpoint."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    GenerationConfig,
    PreTrainedModel,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)
from transformers.initialization import no_init_weights

from vlm3_lab.training.checkpoint import build_processor, build_tokenizer
from vlm3_ros.engines.base import EngineError
from vlm3_ros.engines.checkpoint import MEMORY_MARGIN, choose_device, choose_dtype, free_memory
from vlm3_ros.engines.model import LoadedModel
from vlm3_ros.engines.profiles import PAPER_PROFILE, shipped_profile
from vlm3_ros.engines.settings import EngineSettings

SHAPES: dict[str, dict[str, dict[str, Any]]] = {
    "4b": {
        "text_config": {
            "vocab_size": 151_936,
            "hidden_size": 2560,
            "intermediate_size": 9728,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "max_position_embeddings": 262_144,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 5e6,
                "mrope_interleaved": True,
                "mrope_section": [24, 20, 20],
            },
            "tie_word_embeddings": True,
        },
        "vision_config": {
            "depth": 24,
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_heads": 16,
            "patch_size": 16,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "out_hidden_size": 2560,
            "num_position_embeddings": 48**2,
            "deepstack_visual_indexes": [5, 11, 17],
        },
    }
}
"""Sizes from the checkpoints' config.json; 4b: Qwen3-VL-4B, the paper's model."""


def shape_config(shape: str, tokenizer: Any) -> Qwen3VLConfig:
    """Return the configuration of one of SHAPES, with the image tokens of a tokenizer."""
    vocabulary = tokenizer.get_vocab()
    sizes: dict[str, Any] = SHAPES[shape]
    return Qwen3VLConfig(
        **sizes,
        image_token_id=vocabulary["<|image_pad|>"],
        video_token_id=vocabulary["<|video_pad|>"],
        vision_start_token_id=vocabulary["<|vision_start|>"],
        vision_end_token_id=vocabulary["<|vision_end|>"],
        tie_word_embeddings=True,
    )


def model_without_weights(
    config: Qwen3VLConfig, dtype: torch.dtype
) -> Qwen3VLForConditionalGeneration:
    """Build a model that takes no memory: its weights are on torch's device meta."""
    with torch.device("meta"):
        model: Qwen3VLForConditionalGeneration = Qwen3VLForConditionalGeneration._from_config(
            config, dtype=dtype
        )
    return model


def random_model(shape: str, settings: EngineSettings, seed: int = 0) -> LoadedModel:
    """Build a model of a public architecture with random weights and the authors' prompts.

    Its vocabulary has the words of these prompts and single digits, as the real one, so questions
    have about as many tokens. Its answers are noise of the right cost.

    Args:
        shape: one of SHAPES.
        settings: device, dtype and attention are used.
        seed: of the weights.

    Raises:
        EngineError: if the model does not fit into memory.
    """
    device, dtype = choose_device(settings.device), choose_dtype(settings)
    profile = shipped_profile(PAPER_PROFILE)
    tokenizer = build_tokenizer(profile.prompts, constants_are_tokens=False)
    config = shape_config(shape, tokenizer)
    weights = model_without_weights(config, dtype).parameters()
    needed = int(sum(weight.numel() for weight in weights) * dtype.itemsize * MEMORY_MARGIN)
    if needed > (free := free_memory(device)):
        raise EngineError(
            f"a model of shape {shape} as {str(dtype).removeprefix('torch.')} needs about "
            f"{needed / 1e9:.1f} GB on {device}, and {free / 1e9:.1f} GB are free: choose another "
            "device or dtype, or free memory"
        )
    attention = settings.attn_implementation
    with no_init_weights(), torch.device(device):
        model = Qwen3VLForConditionalGeneration._from_config(
            config, dtype=dtype, attn_implementation=None if attention == "auto" else attention
        )
    fill_randomly(model, seed)
    with torch.no_grad():  # excludes tokens that the small tokenizer cannot spell
        model.get_output_embeddings().weight[len(tokenizer) :] = 0.0
    model.generation_config = GenerationConfig(
        do_sample=False,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=[],  # noise has no end
    )
    return LoadedModel(model.eval().requires_grad_(False), build_processor(tokenizer), profile)


def fill_randomly(model: PreTrainedModel, seed: int = 0) -> None:
    """Fill a model with random weights, whose answers are noise of the right cost."""
    generator = torch.Generator(model.device).manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 1:
                weight.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
            else:
                weight.normal_(std=0.02, generator=generator)
        # Spreads the logits: an undecided model would follow every number that it might say.
        model.get_output_embeddings().weight.mul_(25)
