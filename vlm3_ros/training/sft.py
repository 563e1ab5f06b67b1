"""Supervised fine-tuning with transformers' Trainer."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForImageTextToText,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_utils import get_last_checkpoint

from vlm3_ros.engines.base import Profile, load_profile, write_profile
from vlm3_ros.engines.processor import image_limits, load_processor
from vlm3_ros.language.prompts import load_prompt_set
from vlm3_ros.training.checkpoint import (
    TinyShape,
    build_checkpoint,
    extend_checkpoint,
    save_processor,
)
from vlm3_ros.training.config import DataConfig, OptimiserConfig, TrainConfig, WarmupConfig
from vlm3_ros.training.curves import draw_curves
from vlm3_ros.training.mixture import MixedQuestions
from vlm3_ros.training.optimiser import build_optimiser
from vlm3_ros.training.packing import PACKED_ATTENTION, Packer, packed_loss
from vlm3_ros.training.pair_warmup import DensePairs, PairHead, collate_pairs
from vlm3_ros.training.warmup import DenseDepth, DenseHead, collate

logger = logging.getLogger(__name__)

Score = Callable[[Path], dict[str, float]]
"""Scores a checkpoint folder; the names and values go into the log and the curve."""


def _pack(processor: Any) -> Callable[[list[Any]], dict[str, Any]]:
    return Packer(processor).collate


@dataclass(frozen=True)
class Streams:
    """What a run draws samples with; the recipe's own, or what an ablation puts in their place.

    `dense`, `questions`: make a data set as `samples.SampleStream` is made. `collate`: makes of a
    processor what turns samples of `questions` into the keyword arguments of `packed_loss`.
    """

    dense: Callable[..., Any] = DenseDepth
    questions: Callable[..., Any] = MixedQuestions
    collate: Callable[[Any], Callable[[list[Any]], dict[str, Any]]] = _pack


def train(
    config: TrainConfig,
    folder: Path | str,
    score: Score | None = None,
    streams: Streams = Streams(),  # it is frozen
) -> Path:
    """Train a checkpoint, or go on with a run that was cut off in the same folder.

    Args:
        folder: gets `checkpoint-N` folders, `log.json`, `curves.png` and, at the end, `final`,
            the checkpoint.
        score: called with every checkpoint.
        streams: what samples are drawn with.

    Returns:
        The folder of the final checkpoint.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    start = first_checkpoint(config, folder, streams)
    processor = load_processor(start, local_files_only=start != Path(config.model))
    profile = load_profile(start)
    model = _trainable_model(start)

    last, step = last_step(folder)
    optimiser = config.optimiser
    dataset = streams.questions(
        processor,
        profile,
        image_limits(processor),
        config.data,
        optimiser.batch_size,
        start=step * optimiser.batch_size,
    )
    trainer = _PackedTrainer(
        model=model,
        args=_arguments(config, config.data, optimiser, folder),
        train_dataset=dataset,
        data_collator=streams.collate(processor),
        optimizers=(build_optimiser(model, optimiser), None),
        callbacks=[_FinishCheckpoint(processor, profile, score)],
    )
    trainer.train(resume_from_checkpoint=last)
    final = folder / "final"
    # Half the size; what the low bits of float32 weights add is far below a decimal of an answer.
    model.bfloat16().save_pretrained(final)
    _complete(final, processor, profile)
    _write_log(folder, trainer.state.log_history)
    return final


class _Trainer(Trainer):
    """The stock Trainer that also logs how long it waited for data."""

    _waited = 0.0
    _since = 0.0

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        start = time.monotonic()
        batches = super().get_batch_samples(*args, **kwargs)
        self._waited += time.monotonic() - start
        return batches

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        now = time.monotonic()
        if "loss" in logs and self._since:
            logs["data_wait_share"] = round(self._waited / (now - self._since), 3)
        self._since, self._waited = now, 0.0
        super().log(logs, *args, **kwargs)


class _PackedTrainer(_Trainer):
    """Fed with packed batches."""

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        return packed_loss(model, inputs)


class _FinishCheckpoint(TrainerCallback):
    """Makes every saved folder a whole checkpoint, and scores it."""

    def __init__(self, processor: Any, profile: Profile, score: Score | None):
        self._processor, self._profile, self._score = processor, profile, score

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        _complete(folder, self._processor, self._profile)
        if self._score is not None:
            scores = self._score(folder)
            state.log_history.append({"step": state.global_step, **scores})
            logger.info("step %d: %s", state.global_step, scores)
        _write_log(Path(str(args.output_dir)), state.log_history)


def _write_log(folder: Path, log: list[dict[str, float]]) -> None:
    (folder / "log.json").write_text(json.dumps(log, indent=1))
    draw_curves(log, folder / "curves.png")


def first_checkpoint(config: TrainConfig, folder: Path, streams: Streams) -> Path:
    """The checkpoint that the questions start from: after the warm-ups that are asked for."""
    checkpoint = _unwarmed_checkpoint(config, folder / "start")
    if config.warmup.optimiser.steps:
        checkpoint = _warm_up(config, checkpoint, folder / "warmup", streams)
    if config.pair_warmup.optimiser.steps:
        checkpoint = _warm_up_pairs(config, checkpoint, folder / "pair_warmup")
    return checkpoint


def _unwarmed_checkpoint(config: TrainConfig, folder: Path) -> Path:
    """The configured model, with words for pairs where it is to learn them; or random weights."""
    if config.model:
        profile = load_profile(config.model)
        if not config.learns_pairs or profile.prompts.pose is not None:
            return Path(config.model)
        profile = replace(profile, prompts=load_prompt_set(config.profile.prompts))
        if not (folder / "config.json").is_file():
            extend_checkpoint(config.model, folder, profile)
        return folder
    if not (folder / "config.json").is_file():
        prompts = load_prompt_set(config.profile.prompts)
        if not config.learns_pairs:
            # Its profile claims no more than it learns here.
            prompts = replace(prompts, pose=None, correspondence=None)
        profile = Profile(
            focal=config.profile.focal,
            fit=config.profile.fit,  # type: ignore[arg-type]  # load_config checks it
            prompts=prompts,
        )
        build_checkpoint(folder, TinyShape(**config.shape), profile, config.seed)
    return folder


def _warm_up(config: TrainConfig, start: Path, folder: Path, streams: Streams) -> Path:
    """Train the vision half of `start` on dense depth; the whole model with it is returned."""

    def learner(model: Any) -> nn.Module:
        return DenseHead(model.model.visual, model.config.text_config.hidden_size)

    return _dense_training(config, config.warmup, start, folder, streams.dense, learner, collate)


def _warm_up_pairs(config: TrainConfig, start: Path, folder: Path) -> Path:
    """Train `start` on dense matches of pairs; the model is returned."""
    collate = partial(collate_pairs, Packer(load_processor(start)))
    warmup = config.pair_warmup
    return _dense_training(config, warmup, start, folder, DensePairs, PairHead, collate)


def _dense_training(
    config: TrainConfig,
    warmup: WarmupConfig,
    start: Path,
    folder: Path,
    dataset: Callable[..., Any],
    learner: Callable[[Any], nn.Module],
    collate: Callable[[list[Any]], dict[str, Any]],
) -> Path:
    """Train a model through what `learner` puts on it, which is then thrown away."""
    final = folder / "final"
    if (final / "config.json").is_file():
        return final
    processor, profile = load_processor(start), load_profile(start)
    model = _trainable_model(start)
    last, step = last_step(folder)
    head, optimiser = learner(model), warmup.optimiser
    trainer = _Trainer(
        model=head,
        optimizers=(build_optimiser(head, optimiser), None),
        args=_arguments(config, warmup.data, optimiser, folder),
        train_dataset=dataset(
            processor,
            profile,
            image_limits(processor),
            warmup.data,
            optimiser.batch_size,
            start=step * optimiser.batch_size,
        ),
        data_collator=collate,
    )
    trainer.train(resume_from_checkpoint=last)
    _write_log(folder, trainer.state.log_history)
    model.save_pretrained(final)
    _complete(final, processor, profile)
    return final


def last_step(folder: Path) -> tuple[str | None, int]:
    """The last checkpoint of a run that is to go on, and the steps that led to it."""
    last = get_last_checkpoint(str(folder)) if folder.is_dir() else None
    return last, int(last.rsplit("-", 1)[1]) if last else 0


def _arguments(
    config: TrainConfig, data: DataConfig, optimiser: OptimiserConfig, folder: Path
) -> TrainingArguments:
    decay = round(optimiser.steps * optimiser.decay)
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=optimiser.steps,
        per_device_train_batch_size=optimiser.batch_size,
        learning_rate=optimiser.learning_rate,
        lr_scheduler_type="warmup_stable_decay",
        lr_scheduler_kwargs={"num_decay_steps": decay, "decay_type": "cosine"},
        warmup_steps=round(optimiser.steps * optimiser.warmup),
        max_grad_norm=optimiser.clip,
        bf16=config.dtype == "bfloat16",
        use_cpu=not torch.cuda.is_available(),
        dataloader_num_workers=data.workers,
        dataloader_prefetch_factor=4 if data.workers else None,
        dataloader_pin_memory=torch.cuda.is_available(),
        # The stream starts where the run resumes; skipping would draw every sample again.
        ignore_data_skip=True,
        remove_unused_columns=False,
        # A packed batch cannot be cut along its first axis, as dispatching from one process does.
        accelerator_config={"dispatch_batches": False},
        save_steps=config.evaluate_every,
        save_total_limit=2,
        logging_steps=min(50, config.evaluate_every),
        report_to=[],
        seed=config.seed,
    )


def _trainable_model(checkpoint: Path) -> Any:
    """A model in float32 whose attention reads packed batches."""
    model: Any = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32)
    model.set_attn_implementation(PACKED_ATTENTION)
    # A cheaper way to the same numbers.
    embed = model.model.visual.patch_embed

    def linear_patch_embed(patches: Tensor) -> Tensor:
        # A convolution whose kernel is the whole patch is a matrix product, and far slower as
        # a convolution on CPUs.
        # All frames of a still image are equal (`still_frames`), so their weights add up.
        weight = embed.proj.weight.sum(dim=2)
        still = patches[:, :, 0].flatten(1).to(weight.dtype)
        return nn.functional.linear(still, weight.flatten(1), embed.proj.bias)

    embed.forward = linear_patch_embed
    return model


def _complete(folder: Path, processor: Any, profile: Profile) -> None:
    save_processor(processor, folder)
    write_profile(folder, profile)
