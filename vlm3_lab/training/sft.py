# SPDX-License-Identifier: Apache-2.0
"""Supervised fine-tuning: a run from its first checkpoint, through warm-ups, to its result."""

from __future__ import annotations

import logging
import platform
import re
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, TrainerState, TrainingArguments
from transformers import logging as transformers_logging

from vlm3_lab.training.card import write_card
from vlm3_lab.training.config import TrainConfig
from vlm3_lab.training.models import (
    complete_checkpoint,
    question_model,
    whole_checkpoint,
    write_checkpoint,
)
from vlm3_lab.training.progress import ProgressBar
from vlm3_lab.training.run_folder import UNFINISHED, checkpoints, claim, drop_unfinished, writing
from vlm3_lab.training.scores import Score, Scoring, write_log
from vlm3_lab.training.start import Start, starting_checkpoint
from vlm3_lab.training.streams import MixedStream
from vlm3_lab.training.trainer import Lesson, fit, last_step, training_arguments
from vlm3_lab.training.warmups.run import WARMUPS, Warmup, run_warmup
from vlm3_ros.engines.base import Profile
from vlm3_ros.engines.processor import load_processor
from vlm3_ros.engines.profiles import PROFILE_FILE

logger = logging.getLogger(__name__)

QUESTIONS = Lesson(MixedStream, lambda packer: packer.collate)
"""Questions about the tasks of `data`, in their shares."""


def train(
    config: TrainConfig, folder: Path | str, score: Score | None = None, lesson: Lesson = QUESTIONS
) -> Path:
    """Train a checkpoint, or continue a run that was cut off in the same folder.

    Several processes train together if `accelerate launch` or `torchrun` started them; the first
    one writes.

    Args:
        folder: gets `run.json`, `checkpoint-N` folders, `log.json`, `curves.png` and, at the end,
            `final`, the checkpoint with its card.
        score: called with every checkpoint.
        lesson: what is learned after the warm-ups.

    Returns:
        The folder of the final checkpoint.

    Raises:
        TrainingError: if the folder belongs to another run, the model cannot be trained like
            this, the loss is no longer finite, or a checkpoint cannot be written.
        EngineError: if the model does not exist.
    """
    transformers_logging.disable_progress_bar()  # of reading and writing weights
    folder = Path(folder)
    optimiser = config.optimiser
    args = training_arguments(config, config.data, optimiser, folder)
    with args.main_process_first(local=False):
        claim(folder, config, args.world_size)
    final = folder / "final"
    if (final / PROFILE_FILE).is_file():
        logger.info("%s is finished", folder)
        return final
    start = _warmed_up(config, folder, args, WARMUPS)
    processor = load_processor(start.folder)
    last, step = last_step(args)
    scoring = Scoring(folder, score)
    if last is not None and args.should_save:
        scoring.catch_up(last)
    if step < optimiser.steps:
        fit(
            question_model(config, start.folder),
            lesson,
            config.data,
            optimiser,
            args,
            processor,
            start.profile,
            callbacks=[scoring, ProgressBar("training")],
            finish=partial(write_checkpoint, config, processor, start.profile),
        )
    with args.main_process_first(local=False):
        if args.should_save:
            _write_final(folder, config, start.profile, processor, args)
    return final


def warm_up(
    config: TrainConfig, folder: Path | str, warmups: Mapping[str, Warmup] = WARMUPS
) -> Path:
    """Run the warm-ups of a configuration alone, for several runs to share.

    Args:
        folder: gets what `train` would write for them.
        warmups: by their key in a configuration.

    Returns:
        The checkpoint that questions would start from.

    Raises:
        TrainingError, EngineError: as `train`.
    """
    folder = Path(folder)
    args = training_arguments(config, config.data, config.optimiser, folder)
    return _warmed_up(config, folder, args, warmups).folder


def _warmed_up(
    config: TrainConfig, folder: Path, args: TrainingArguments, warmups: Mapping[str, Warmup]
) -> Start:
    """The checkpoint after the warm-ups that are configured."""
    with args.main_process_first(local=False):
        start = starting_checkpoint(config, folder / "start")
    for key, part in config.warmups.items():
        if part.optimiser.steps:
            start = run_warmup(warmups[key], config, part, start, folder / key)
    return start


def _write_final(
    folder: Path, config: TrainConfig, profile: Profile, processor: Any, args: TrainingArguments
) -> None:
    """Write the last checkpoint for use: half the size, with a card, without optimiser state."""
    last = checkpoints(folder)[-1]
    log = TrainerState.load_from_json(str(last / "trainer_state.json")).log_history
    unfinished = folder / UNFINISHED / "final"
    with writing(folder, "the final checkpoint"):
        write_log(folder, log)
        # What the low bits of float32 weights add is far below a decimal of an answer.
        model: Any = AutoModelForImageTextToText.from_pretrained(
            whole_checkpoint(last), dtype=torch.bfloat16
        )
        model.save_pretrained(unfinished)
        shutil.copyfile(folder / "curves.png", unfinished / "curves.png")
        write_card(unfinished, config, profile, log, hardware(args.world_size))
        complete_checkpoint(unfinished, processor, profile)
        unfinished.rename(folder / "final")
        drop_unfinished(folder)


def hardware(processes: int) -> str:
    """Name the hardware of a run."""
    if torch.cuda.is_available():
        return f"{processes} x {torch.cuda.get_device_name()}"
    names = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    name = names[1] if names else platform.machine()
    return f"{name}, {processes} x {torch.get_num_threads()} threads, no GPU"
