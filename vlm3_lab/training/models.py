# SPDX-License-Identifier: Apache-2.0
"""Models that train on packed batches, low-rank adapters on them, and the checkpoints they become.

Adapters (Hu et al. 2021) come from `peft`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText

from vlm3_lab.training.checkpoint import save_processor
from vlm3_lab.training.config import LoraConfig, TrainConfig, TrainingError
from vlm3_lab.training.packing import PACKED_ATTENTION, packed_loss
from vlm3_ros.engines.base import Profile
from vlm3_ros.engines.profiles import write_profile
from vlm3_ros.engines.settings import Dtype


def weights_dtype(config: TrainConfig) -> Dtype:
    """Dtype of the model's own weights: float32 if they train, so that small steps are not lost."""
    return "bfloat16" if config.lora.rank and config.dtype == "bfloat16" else "float32"


def trainable_model(checkpoint: Path, dtype: torch.dtype) -> Any:
    """Load a model whose attention reads packed batches."""
    model: Any = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=dtype)
    _read_packed_batches(model)
    return model


def _read_packed_batches(model: Any) -> None:
    model.set_attn_implementation(PACKED_ATTENTION)
    embed = model.model.visual.patch_embed

    def linear_patch_embed(patches: Tensor) -> Tensor:
        # A convolution whose kernel is the whole patch is a matrix product, and far slower as a
        # convolution on CPUs.
        # All frames of a still image are equal (`still_frames`), so their weights add up.
        weight = embed.proj.weight.sum(dim=2)
        still = patches[:, :, 0].flatten(1).to(weight.dtype)
        return nn.functional.linear(still, weight.flatten(1), embed.proj.bias)

    embed.forward = linear_patch_embed


def question_model(config: TrainConfig, checkpoint: Path) -> Any:
    """Load a model that, called with a packed batch, returns its loss."""
    dtype = getattr(torch, weights_dtype(config))
    return as_question_model(
        config, AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=dtype)
    )


def as_question_model(config: TrainConfig, model: Any) -> Any:
    """Make a model, called with a packed batch, return its loss; see `question_model`."""
    _read_packed_batches(model)
    # Replaces the model's own forward because wrappers for several processes and for mixed
    # precision only see calls of the model.
    model.forward = lambda **batch: {"loss": packed_loss(model, batch)}
    if config.gradient_checkpointing:
        # The first name is that of transformers 6 and later.
        enable = getattr(model, "activation_checkpointing_enable", None)
        (enable or model.gradient_checkpointing_enable)({"use_reentrant": False})
    torch.manual_seed(config.seed)  # of the adapters
    return add_adapters(model, config.lora) if config.lora.rank else model


def add_adapters(model: Any, config: LoraConfig) -> Any:
    """Wrap a model with adapters that train in place of its own weights.

    Raises:
        TrainingError: if `peft` is missing, or the model has no layer named in `targets`.
    """
    try:
        import peft
    except ImportError as error:
        raise TrainingError(
            f"lora.rank is {config.rank}, and adapters need the package peft: pip install peft"
        ) from error
    names = {name.rsplit(".", 1)[-1] for name, _ in model.named_modules()}
    if missing := [target for target in config.targets if target not in names]:
        raise TrainingError(f"lora.targets holds {missing[0]!r}, and the model has no such layer")
    return peft.get_peft_model(
        model,
        peft.LoraConfig(
            r=config.rank,
            lora_alpha=config.alpha,
            lora_dropout=config.dropout,
            target_modules=list(config.targets),
        ),
    )


def merged_state(state: dict[str, Tensor], config: LoraConfig) -> dict[str, Tensor]:
    """Weights of a model with its adapters added to its own weights.

    The model itself is not changed: taking adapters out of weights again would round them.

    Args:
        state: all weights, by name, of what `add_adapters` returned.
        config: as given to `add_adapters`.
    """
    state = {name.removeprefix("base_model.model."): weight for name, weight in state.items()}
    merged = {}
    for name, weight in state.items():
        if ".lora_" in name:
            continue
        layer, _, part = name.partition(".base_layer.")
        if part == "weight":
            down = state[f"{layer}.lora_A.default.weight"].float()
            up = state[f"{layer}.lora_B.default.weight"].float()
            added = up @ down * (config.alpha / config.rank)
            weight = (weight.float() + added.to(weight.device)).to(weight.dtype)
        merged[f"{layer}.{part}" if part else name] = weight
    return merged


def write_checkpoint(
    config: TrainConfig,
    processor: Any,
    profile: Profile,
    model: Any,
    folder: Path,
    state: dict[str, Tensor] | None,
) -> None:
    """Complete a folder with weights or adapters from the Trainer to a checkpoint for any node.

    Args:
        state: all weights, by name; None to take them from the model.
    """
    if config.lora.rank:
        merged = merged_state(model.state_dict() if state is None else state, config.lora)
        folder /= "merged"
        model.get_base_model().save_pretrained(folder, state_dict=merged)
    complete_checkpoint(folder, processor, profile)


def complete_checkpoint(folder: Path, processor: Any, profile: Profile) -> None:
    """Add processor and profile to a folder with weights."""
    save_processor(processor, folder)
    write_profile(folder, profile)


def whole_checkpoint(checkpoint: Path) -> Path:
    """The folder in a `checkpoint-N` that nodes can load: with adapters, the merged model."""
    merged = checkpoint / "merged"
    return merged if merged.is_dir() else checkpoint
