# SPDX-License-Identifier: Apache-2.0
"""Measure the throughput of training: of vlm3-tiny, and of adapters on the large model."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerState

from gpu_check.extent import Extent
from gpu_check.running import Row
from gpu_check.subjects import engine_settings, random_model
from vlm3_lab.training.config import TrainConfig, load_config
from vlm3_lab.training.models import as_question_model, question_model
from vlm3_lab.training.run_folder import checkpoints
from vlm3_lab.training.sft import QUESTIONS
from vlm3_lab.training.start import starting_checkpoint
from vlm3_lab.training.trainer import fit, training_arguments
from vlm3_ros.engines.base import Profile
from vlm3_ros.engines.processor import load_processor

RECIPES = Path(__file__).resolve().parents[2] / "config" / "training"


def train_tiny(extent: Extent) -> Iterator[Row]:
    """Train vlm3-tiny by its recipe, from random weights and without its warm-ups."""
    config = load_config(
        RECIPES / "tiny_views.yaml",
        [
            "warmup.optimiser.steps=0",
            "object_warmup.optimiser.steps=0",
            *_settings(extent, extent.tiny_steps, extent.tiny_batch),
        ],
    )
    with tempfile.TemporaryDirectory() as scratch:
        start = starting_checkpoint(config, Path(scratch) / "start")
        model = question_model(config, start.folder)
        yield {
            "model": "vlm3-tiny, all weights",
            **_throughput(config, model, load_processor(start.folder), start.profile, scratch),
        }


def train_lora(extent: Extent) -> Iterator[Row]:
    """Train adapters on the model with random weights, by the paper's recipe for depth."""
    config = load_config(
        RECIPES / "paper_depth.yaml",
        [
            "data.sources={}",  # procedural scenes
            "profile.name=vlm3",
            "lora.rank=32",
            "optimiser.accumulate=1",
            *_settings(extent, extent.lora_steps, extent.lora_batch),
        ],
    )
    loaded = random_model(extent, engine_settings("bfloat16"))
    model = as_question_model(config, loaded.model)
    with tempfile.TemporaryDirectory() as scratch:
        yield {
            "model": f"{extent.shape}, adapters of rank {config.lora.rank}",
            **_throughput(config, model, loaded.processor, loaded.profile, scratch),
        }


def _settings(extent: Extent, steps: int, batch: int) -> list[str]:
    return [
        f"optimiser.steps={steps}",
        f"optimiser.batch_size={batch}",
        f"data.workers={extent.workers}",
        f"evaluate_every={steps // 2}",
        "evaluation_views=0",
    ]


def _throughput(
    config: TrainConfig, model: Any, processor: Any, profile: Profile, scratch: str
) -> Row:
    """Train, and return the speed of the second half: the first one warms up."""
    folder = Path(scratch) / "run"
    args = training_arguments(config, config.data, config.optimiser, folder)
    optimiser = config.optimiser
    fit(
        model,
        QUESTIONS,
        config.data,
        optimiser,
        args,
        processor,
        profile,
        callbacks=[],
        finish=lambda *_: None,  # the weights are not used again
    )
    state = TrainerState.load_from_json(str(checkpoints(folder)[-1] / "trainer_state.json"))
    last = [entry for entry in state.log_history if "samples_per_s" in entry][-1]
    computing = max(1 - last["data_wait_share"], 1e-3)  # the share is rounded
    row: Row = {
        "batch": optimiser.batch_size,
        "samples_per_s": last["samples_per_s"],
        "data_wait_share": last["data_wait_share"],
        "samples_per_s_computing": round(last["samples_per_s"] / computing, 2),
        "ms_per_step_computing": round(
            1e3 * optimiser.batch_size * computing / last["samples_per_s"], 1
        ),
    }
    if torch.cuda.is_available():
        row["peak_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
    return row
