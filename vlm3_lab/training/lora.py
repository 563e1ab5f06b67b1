# SPDX-License-Identifier: Apache-2.0
"""Low-rank adapters (Hu et al. 2021), through `peft`."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from vlm3_lab.training.config import LoraConfig, TrainingError


def add_adapters(model: Any, config: LoraConfig) -> Any:
    """The model with adapters that train in place of its own weights.

    Raises:
        TrainingError: when `peft` is missing, or the model has no layer of a name in `targets`.
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
    """Weights of a model in which its adapters are added to its own.

    The model itself is not touched: taking adapters out of weights again rounds them.

    Args:
        state: all weights of what `add_adapters` returned, by name.
        config: as it was given there.
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
