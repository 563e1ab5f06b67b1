# SPDX-License-Identifier: Apache-2.0
"""The computed cost with the real tokenizer, and with our own in its place."""

from __future__ import annotations

import pytest
import torch

from vlm3_lab.studies.bench.architectures import model_without_weights, shape_config
from vlm3_lab.studies.bench.estimate import TaskEstimate, estimate_task, examples
from vlm3_lab.studies.bench.roofline import model_work
from vlm3_lab.training.checkpoint import build_processor, build_tokenizer
from vlm3_ros.engines.profiles import shipped_profile
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.paths import shipped_profiles

CAMERA = PinholeCamera(640, 480, 600.0, 600.0, 319.5, 239.5)
LARGEST_DIFFERENCE = 0.06
"""Of own tokens per question, relative to the real tokenizer; docs/cost.md says it."""


@pytest.fixture(scope="module")
def work(qwen3_tokenizer):
    return model_work(model_without_weights(shape_config("4b", qwen3_tokenizer), torch.bfloat16))


def estimates(work, name, tokenizer=None) -> list[TaskEstimate]:
    profile = shipped_profile(name)
    made = tokenizer or build_tokenizer(profile.prompts, constants_are_tokens=False)
    return [
        estimate_task(work, build_processor(made), profile, CAMERA, example)
        for task, example in examples((16, 12), (8, 6)).items()
        if task in profile.prompts.wordings
    ]


@pytest.mark.parametrize("name", shipped_profiles())
def test_our_own_tokenizer_counts_about_as_many_tokens(work, qwen3_tokenizer, name):
    for real, own in zip(
        estimates(work, name, qwen3_tokenizer), estimates(work, name), strict=True
    ):
        print(
            name,
            real.task,
            real.own_tokens,
            own.own_tokens,
            own.own_tokens / real.own_tokens - 1,
            [c.prefix for c in real.calls],
            [c.prefix for c in own.calls],
            own.flops / real.flops - 1,
            real.steps,
            own.steps,
        )
        assert own.own_tokens == pytest.approx(real.own_tokens, rel=LARGEST_DIFFERENCE)
        assert own.flops == pytest.approx(real.flops, rel=LARGEST_DIFFERENCE)
