# SPDX-License-Identifier: Apache-2.0
"""Compare the engine's answers with those of stock `generate`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

from gpu_check.extent import Extent
from gpu_check.running import Row
from gpu_check.subjects import embedded_model, engine_settings, frame, random_model
from vlm3_lab.studies.bench.constrained import ask_constrained
from vlm3_lab.studies.bench.measuring import Workload
from vlm3_lab.studies.bench.stock import ask_naive
from vlm3_ros.engines.model import LoadedModel
from vlm3_ros.engines.settings import Dtype, EngineSettings
from vlm3_ros.engines.transformers import TransformersEngine
from vlm3_ros.language.wordings.depth import DepthWording

LENGTH = 16
"""Longest free answer in tokens, enough for one of vlm3-tiny."""


def compare(extent: Extent, dtype: Dtype) -> Iterator[Row]:
    """Compare free and forced answers of vlm3-tiny and of the model with random weights.

    In float32 without TF32, where all must be equal.
    """
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False  # on by default
    settings = engine_settings(dtype)
    models: dict[str, Callable[[], LoadedModel]] = {
        "vlm3-tiny": lambda: embedded_model(settings),
        f"{extent.shape}, random": lambda: random_model(extent, settings),
    }
    for name, load in models.items():
        loaded = load()
        workload = frame(loaded, *extent.grids[0])
        # Spread over the grid, so that coordinates have all lengths.
        step = max(1, len(workload.questions) // extent.compared)
        some = Workload(workload.image, workload.questions[::step][: extent.compared])
        for answers, (ours, stock) in _answers(loaded, some).items():
            equal = sum(a == b for a, b in zip(ours, stock, strict=True))
            yield {
                "model": name,
                "dtype": dtype,
                "answers": answers,
                "compared": len(stock),
                "equal": equal,
                "distinct": len(set(stock)),
                "example": [(a, b) for a, b in zip(ours, stock, strict=True) if a != b][:1],
            }


def _answers(
    loaded: LoadedModel, workload: Workload
) -> dict[str, tuple[Sequence[str], Sequence[str]]]:
    """Return the engine's answers and those of `generate`, free and forced."""
    engine = TransformersEngine(loaded, EngineSettings(max_new_tokens=LENGTH))
    image, questions = workload.image, workload.questions
    form = loaded.profile.prompts[DepthWording].answer
    engine.force(form)
    free = engine.ask([image], questions)
    forced = engine.ask([image], questions, form)
    return {
        "free": ([a.text for a in free], ask_naive(loaded, image, questions, LENGTH)),
        "forced": ([a.text for a in forced], ask_constrained(loaded, image, questions, form)),
    }
