# SPDX-License-Identifier: Apache-2.0
"""The warm-ups that a run can have, and how one is run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vlm3_lab.training.config import TrainConfig, WarmupConfig
from vlm3_lab.training.models import complete_checkpoint, trainable_model
from vlm3_lab.training.progress import ProgressBar
from vlm3_lab.training.run_folder import writing
from vlm3_lab.training.samples import Samples
from vlm3_lab.training.scores import Scoring
from vlm3_lab.training.start import Start
from vlm3_lab.training.streams import MixedStream, stream_of
from vlm3_lab.training.tasks.depth import Questions as DepthQuestions
from vlm3_lab.training.trainer import Lesson, fit, training_arguments
from vlm3_lab.training.warmups import dense_depth, dense_pairs, object_facts
from vlm3_lab.training.warmups.dense_depth import DenseSample
from vlm3_ros.datasets.views import View
from vlm3_ros.engines.processor import load_processor
from vlm3_ros.engines.profiles import PROFILE_FILE


@dataclass(frozen=True)
class Warmup:
    """What a warm-up learns from, and the head that is put on the model meanwhile.

    Attributes:
        head: builds the head on a model; called with a batch, it returns the loss and its parts.
    """

    lesson: Lesson
    head: Callable[[Any], nn.Module]


def dense_depth_warmup(
    samples: Callable[..., Samples[View, DenseSample]] = dense_depth.DenseDepth,
) -> Warmup:
    """The warm-up of the vision half, with its usual or with other samples."""
    lesson = Lesson(stream_of(samples), lambda packer: dense_depth.collate)
    return Warmup(lesson, dense_depth.vision_head)


WARMUPS = {
    "warmup": dense_depth_warmup(),
    "object_warmup": Warmup(
        Lesson(
            partial(
                MixedStream,
                samples={"depth": DepthQuestions, "objects": object_facts.ObjectFacts},
            ),
            lambda packer: partial(object_facts.collate, packer),
        ),
        object_facts.ObjectHead,
    ),
    "pair_warmup": Warmup(
        Lesson(
            stream_of(dense_pairs.DensePairs),
            lambda packer: partial(dense_pairs.collate, packer),
        ),
        dense_pairs.PairHead,
    ),
}
"""By their key in a configuration, which also names their folder in a run."""


def run_warmup(
    warmup: Warmup, config: TrainConfig, part: WarmupConfig, start: Start, folder: Path
) -> Start:
    """Train a model with a head, or continue; return the model without it.

    Args:
        part: the section of `config` for this warm-up.
        start: the checkpoint to train.
        folder: of the warm-up; gets `final`, the trained checkpoint.

    Raises:
        TrainingError: as `trainer.fit`.
    """
    final = Start(folder / "final", start.profile)
    if (final.folder / PROFILE_FILE).is_file():
        return final
    processor = load_processor(start.folder)
    model = trainable_model(start.folder, torch.float32)
    args = training_arguments(config, part.data, part.optimiser, folder)
    torch.manual_seed(config.seed)  # of the head
    fit(
        warmup.head(model),
        warmup.lesson,
        part.data,
        part.optimiser,
        args,
        processor,
        start.profile,
        callbacks=[Scoring(folder), ProgressBar(folder.name.replace("_", " "))],
    )
    with args.main_process_first(local=False):
        if args.should_save:
            with writing(folder, "the warmed-up model"):
                model.save_pretrained(final.folder)
                complete_checkpoint(final.folder, processor, final.profile)
    return final
