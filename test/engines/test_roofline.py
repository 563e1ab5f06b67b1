# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from vlm3_lab.studies.bench.roofline import measure_device, model_work
from vlm3_lab.studies.bench.work import DeviceSpeed, Pass, causal_pairs
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
    work = model_work(tiny.model)
    image_flops = work.encode([len(encoded.pixel_values)]).flops
    reading = work.read(tokens, causal_pairs(tokens), choices=1)
    left_out = tokens * (tokens - 1) / 2 * work.pair_flops
    counted = counter.get_total_flops()
    assert image_flops + reading.flops + left_out == pytest.approx(counted, rel=0.05)
    weights = sum(
        weights.numel() for weights in tiny.model.model.language_model.layers.parameters()
    )
    head = tiny.model.lm_head.weight.numel()
    assert reading.weight_bytes == pytest.approx(4 * (weights + head), rel=0.01)
    vision = sum(weights.numel() for weights in tiny.model.model.visual.parameters())
    positions = tiny.model.model.visual.pos_embed.weight.numel()
    assert work.vision_bytes == 4 * (vision - positions)


def test_a_question_is_so_many_more_tokens(tiny):
    work = model_work(tiny.model)
    alone = work.read(100 + 20, causal_pairs(100 + 20))
    prefix, own = work.read(100, causal_pairs(100)), work.read(20, causal_pairs(20, before=100))
    assert prefix.flops + own.flops == pytest.approx(alone.flops)
    assert work.read(20, 0, choices=3).flops == pytest.approx(
        work.read(20, 0).flops + 3 * work.output_flops
    )


def test_each_image_attends_to_itself_alone(tiny):
    work = model_work(tiny.model)
    assert work.encode([24, 24]).flops == pytest.approx(2 * work.encode([24]).flops)
    assert work.encode([48]).flops > work.encode([24, 24]).flops
    assert work.encode([24, 24]).weight_bytes == work.encode([24]).weight_bytes


def test_a_pass_takes_the_longer_of_two_times():
    speed = DeviceSpeed(bytes_per_second=100, flops_per_second=1000)
    assert Pass(flops=500, weight_bytes=200).seconds(speed) == 2
    assert Pass(flops=5000, weight_bytes=200).seconds(speed) == 5


def test_devices_copy_and_multiply():
    speed = measure_device(torch.device("cpu"), torch.float32)
    assert speed.bytes_per_second > 1e7
    assert speed.flops_per_second > 1e7
