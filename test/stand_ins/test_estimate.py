# SPDX-License-Identifier: Apache-2.0
"""The computed cost with the real tokenizer, and with our own in its place."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vlm3_lab.studies.bench.architectures import model_without_weights, shape_config
from vlm3_lab.studies.bench.calls import CallPasses
from vlm3_lab.studies.bench.estimate import TaskEstimate, estimate_task, examples
from vlm3_lab.studies.bench.hardware import HARDWARE
from vlm3_lab.studies.bench.roofline import model_work
from vlm3_lab.training.checkpoint import build_processor, build_tokenizer
from vlm3_ros.engines.profiles import shipped_profile
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.paths import shipped_profiles

CAMERA = PinholeCamera(640, 480, 600.0, 600.0, 319.5, 239.5)
LARGEST_DIFFERENCE, LARGEST_DIFFERENCE_OF_SUMS = 0.06, 0.04
"""Of own tokens per question and of FLOPs, relative to the real tokenizer; docs/cost.md says it."""


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


@pytest.fixture(scope="module")
def real(work, qwen3_tokenizer) -> dict[str, list[TaskEstimate]]:
    """The estimates with the real tokenizer, by profile."""
    return {name: estimates(work, name, qwen3_tokenizer) for name in shipped_profiles()}


@pytest.mark.parametrize("name", shipped_profiles())
def test_our_own_tokenizer_counts_about_as_many_tokens(work, real, name):
    for exact, own in zip(real[name], estimates(work, name), strict=True):
        assert own.own_tokens == pytest.approx(exact.own_tokens, rel=LARGEST_DIFFERENCE)
        assert own.flops == pytest.approx(exact.flops, rel=LARGEST_DIFFERENCE_OF_SUMS)
        assert [call.prefix for call in own.calls] == [call.prefix for call in exact.calls]


def test_the_page_has_the_tokens_and_flops(real):
    table = [row for row in page_rows() if len(row) == 13 and row[0].startswith("vlm3-")]
    assert [row[0] for row in table] == ["vlm3-depth", "vlm3-pose", "vlm3-corr", "vlm3-object"]
    for name, task, size, *cells in table:
        (one,) = real[name]
        (width, height), *_ = one.sizes
        assert task == one.task
        assert size == "2 x " * (len(one.sizes) > 1) + f"{width}x{height}"
        parts = [one.part_flops(part) / 1e12 for part in CallPasses._fields]
        tokens = [one.questions, one.calls[0].prefix, one.own_tokens, one.tree_tokens, one.steps]
        expected = [*tokens, *parts, one.flops / 1e12]
        assert list(map(number, cells)) == pytest.approx(expected, rel=0.005)


def test_the_page_has_the_floors(real):
    frames = {
        "vlm3-depth, 16x12": "vlm3-depth",
        "vlm3-pose": "vlm3-pose",
        "vlm3-corr, 8x6": "vlm3-corr",
        "vlm3-object, 18 questions": "vlm3-object",
    }
    table = {row[0]: row[1:] for row in page_rows() if len(row) == 6}
    assert table["frame"] == ["TFLOP", *HARDWARE]
    for frame, name in frames.items():
        (one,) = real[name]
        expected = [one.flops / 1e12, *(one.seconds(device.speed) for device in HARDWARE.values())]
        assert list(map(number, table[frame])) == pytest.approx(expected, rel=0.005)


def page_rows() -> list[list[str]]:
    """The rows of the tables in docs/cost.md."""
    lines = (Path(__file__).parents[2] / "docs" / "cost.md").read_text().splitlines()
    rows = [line.strip("|").replace("`", "").split("|") for line in lines if line[:1] == "|"]
    return [[cell.strip() for cell in row] for row in rows]


def number(cell: str) -> float:
    return float(cell.removesuffix(" s").replace(",", ""))
