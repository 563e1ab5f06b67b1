# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from vlm3_lab.studies.bench.roofline import measure_device, model_work
from vlm3_ros.engines.processor import encode_questions


def test_work_is_what_torch_counts_in_one_pass(tiny, picture):
    """torch counts all pairs of an attention, also those that causality leaves out."""
    encoded = encode_questions(tiny.processor, [picture(96, 64)], ["How far?"])
    ids = torch.tensor([encoded.prefix + encoded.suffixes[0]])
    image = (ids == tiny.model.config.image_token_id).int()
    tiny.model.set_attn_implementation("eager")  # its products are counted on every device
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            tiny.model(
                input_ids=ids,
                mm_token_type_ids=image,
                pixel_values=encoded.pixel_values,
                image_grid_thw=encoded.image_grid_thw,
                logits_to_keep=1,
            )
    finally:
        tiny.model.set_attn_implementation("sdpa")
    tokens = ids.shape[1]
    work = model_work(tiny.model, len(encoded.pixel_values))
    left_out = tokens * (tokens - 1) / 2 * work.pair_flops
    counted = counter.get_total_flops()
    assert work.prefix_flops(tokens) + work.output_flops + left_out == pytest.approx(
        counted, rel=0.05
    )
    weights = sum(
        weights.numel() for weights in tiny.model.model.language_model.layers.parameters()
    )
    head = tiny.model.lm_head.weight.numel()
    assert work.weight_bytes == pytest.approx(4 * (weights + head), rel=0.01)


def test_a_question_is_so_many_more_tokens(tiny):
    work = model_work(tiny.model, patches=24)
    alone = work.prefix_flops(100 + 20)
    behind = work.prefix_flops(100) + work.question_flops(prefix=100, own=20, answer=1)
    assert behind == pytest.approx(alone + work.output_flops)


def test_devices_copy_and_multiply():
    speed = measure_device(torch.device("cpu"), torch.float32)
    assert speed.bytes_per_second > 1e7
    assert speed.flops_per_second > 1e7
