# SPDX-License-Identifier: Apache-2.0
"""The speed of a device and the work of a model: a lower bound for measured times.

A decoding step cannot be faster than reading all weights once; reading a prompt cannot be faster
than its multiplications (Williams, Waterman and Patterson 2009).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

REPEATS = 5
COPIED_BYTES = 2**28
"""More than fits into any cache."""


@dataclass(frozen=True)
class DeviceSpeed:
    """Measured speed of a device in a copy and in a matrix product.

    `bytes_per_second`: read and written. `flops_per_second`: in the measured dtype.
    """

    bytes_per_second: float
    flops_per_second: float


@dataclass(frozen=True)
class ModelWork:
    """The least work of a model to answer questions about an image.

    Attributes:
        weight_bytes: read per decoding step: the language half with its output layer.
        vision_flops: to encode the image.
        token_flops: per token in the language half, without attention.
        pair_flops: per token and token it attends to, in all layers.
        output_flops: to choose a token.
    """

    weight_bytes: int
    vision_flops: float
    token_flops: float
    pair_flops: float
    output_flops: float

    def prefix_flops(self, prefix: int) -> float:
        """FLOPs to read a prefix of this many tokens, including its image."""
        pairs = prefix * (prefix + 1) / 2
        return self.vision_flops + prefix * self.token_flops + pairs * self.pair_flops

    def question_flops(self, prefix: int, own: int, answer: int) -> float:
        """FLOPs to read a question after a prefix and decode its answer.

        Args:
            prefix, own: number of tokens.
            answer: number of decoded tokens; the last one is not read.
        """
        tokens = own + answer - 1
        pairs = tokens * prefix + tokens * (tokens + 1) / 2
        return tokens * self.token_flops + pairs * self.pair_flops + answer * self.output_flops


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


def model_work(model: PreTrainedModel, patches: int) -> ModelWork:
    """The work of a model of the Qwen3-VL family.

    Args:
        patches: of the image, before merging.
    """
    parts: Any = model.model
    text, vision = model.config.text_config, model.config.vision_config
    language = _parameters(parts.language_model) - parts.language_model.embed_tokens.weight.numel()
    output = model.get_output_embeddings().weight.numel()
    merged = vision.spatial_merge_size**2
    mergers = _parameters(parts.visual.merger) + _parameters(parts.visual.deepstack_merger_list)
    head_size = getattr(text, "head_dim", text.hidden_size // text.num_attention_heads)
    return ModelWork(
        weight_bytes=(language + output) * model.dtype.itemsize,
        vision_flops=(
            2 * patches * _parameters(parts.visual.patch_embed)
            + 2 * patches * _parameters(parts.visual.blocks)
            + 4 * patches**2 * vision.hidden_size * vision.depth
            + 2 * patches / merged * mergers
        ),
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
