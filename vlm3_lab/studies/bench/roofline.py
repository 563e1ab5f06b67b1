# SPDX-License-Identifier: Apache-2.0
"""The speed of this machine's devices, and the work of a model in memory or without weights."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import PreTrainedModel

from vlm3_lab.studies.bench.work import DeviceSpeed, ModelWork

REPEATS = 5
COPIED_BYTES = 2**28
"""More than fits into any cache."""


def measure_device(device: torch.device, dtype: torch.dtype) -> DeviceSpeed:
    """Measure the best of a few copies and products; takes a few seconds on a CPU."""
    # Filled: untouched memory is not backed by pages, and so is quick to read.
    source = torch.ones(COPIED_BYTES, dtype=torch.uint8, device=device)
    target = torch.ones_like(source)
    copying = _best_seconds(lambda: target.copy_(source), device)
    side = 8192 if device.type == "cuda" else 1024
    left = torch.randn(side, side, device=device).to(dtype)
    multiplying = _best_seconds(lambda: left @ left, device)
    return DeviceSpeed(2 * COPIED_BYTES / copying, 2 * side**3 / multiplying)


def model_work(model: PreTrainedModel) -> ModelWork:
    """The work of a model of the Qwen3-VL family; its weights may be on torch's device meta."""
    parts: Any = model.model
    text, vision = model.config.text_config, model.config.vision_config
    language = _parameters(parts.language_model) - parts.language_model.embed_tokens.weight.numel()
    output = model.get_output_embeddings().weight.numel()
    merged = vision.spatial_merge_size**2
    layers = _parameters(parts.visual.patch_embed) + _parameters(parts.visual.blocks)
    mergers = _parameters(parts.visual.merger) + _parameters(parts.visual.deepstack_merger_list)
    head_size = getattr(text, "head_dim", text.hidden_size // text.num_attention_heads)
    size = model.dtype.itemsize
    return ModelWork(
        vision_bytes=(layers + mergers) * size,
        language_bytes=language * size,
        output_bytes=output * size,
        patch_flops=2.0 * layers + 2.0 * mergers / merged,
        patch_pair_flops=4.0 * vision.hidden_size * vision.depth,
        token_flops=2.0 * language,
        pair_flops=4.0 * text.num_attention_heads * head_size * text.num_hidden_layers,
        output_flops=2.0 * output,
    )


def _parameters(module: torch.nn.Module) -> int:
    return sum(weights.numel() for weights in module.parameters())


def _best_seconds(run: Callable[[], object], device: torch.device) -> float:
    seconds = []
    for _ in range(REPEATS + 1):  # the first one warms up and is never the best
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return min(seconds)
