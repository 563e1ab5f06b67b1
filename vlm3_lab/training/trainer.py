# SPDX-License-Identifier: Apache-2.0
"""The training loop: transformers' Trainer on endless streams, with checkpoints that are whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader
from tqdm.contrib.logging import logging_redirect_tqdm
from transformers import (
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from typing_extensions import override

from vlm3_lab.training.config import DataConfig, OptimiserConfig, TrainConfig, TrainingError
from vlm3_lab.training.models import whole_checkpoint
from vlm3_lab.training.optimiser import build_optimiser
from vlm3_lab.training.packing import Packer
from vlm3_lab.training.progress import Clock
from vlm3_lab.training.run_folder import (
    UNFINISHED,
    checkpoints,
    drop_old_checkpoints,
    drop_unfinished,
    step_of,
    writing,
)
from vlm3_lab.training.streams import model_input
from vlm3_ros.engines.base import Profile

Collate = Callable[[list[Any]], dict[str, Any]]
Finish = Callable[[Any, Path, "dict[str, Tensor] | None"], None]


@dataclass(frozen=True)
class Lesson:
    """What a model learns from.

    Attributes:
        stream: builds the endless dataset of samples from a `ModelInput`, a `data` section, the
            batch size and `start`, the number of samples to skip.
        collate: builds, from a packer, the function that turns samples into keyword arguments of
            the model that trains.
    """

    stream: Callable[..., Any]
    collate: Callable[[Packer], Collate]


def fit(
    model: nn.Module,
    lesson: Lesson,
    data: DataConfig,
    optimiser: OptimiserConfig,
    args: TrainingArguments,
    processor: Any,
    profile: Profile,
    callbacks: Sequence[TrainerCallback],
    finish: Finish | None = None,
) -> None:
    """Train a model, or continue from its last checkpoint.

    Args:
        model: returns its loss.
        args: from `training_arguments`.
        finish: turns a folder with the model's weights into a checkpoint. None for a model whose
            extra layers are discarded: the folder then only serves to resume.

    Raises:
        TrainingError: if the model cannot be trained like this, the loss or a weight is no longer
            finite, or a checkpoint cannot be written.
    """
    last, step = last_step(args)
    inputs = model_input(processor, profile)
    start = step * samples_per_step(args)
    trainer = _Trainer(
        model=model,
        args=args,
        train_dataset=lesson.stream(inputs, data, optimiser.batch_size, start=start),
        data_collator=lesson.collate(inputs.packer),
        callbacks=list(callbacks),
        optimiser=optimiser,
        finish=finish,
    )
    with logging_redirect_tqdm():
        trainer.train(resume_from_checkpoint=str(last) if last else None)
    dataset: Any = trainer.train_dataset
    dataset.sources.log_unreadable()


def last_step(args: TrainingArguments) -> tuple[Path | None, int]:
    """The last whole checkpoint of a run, and its step; unfinished ones are deleted."""
    folder = Path(str(args.output_dir))
    with args.main_process_first(local=False):
        if args.should_save:
            drop_unfinished(folder)
    kept = checkpoints(folder)
    return (kept[-1], step_of(kept[-1])) if kept else (None, 0)


def samples_per_step(args: TrainingArguments) -> int:
    """Samples of all processes per step."""
    return args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size


def training_arguments(
    config: TrainConfig, data: DataConfig, optimiser: OptimiserConfig, folder: Path
) -> TrainingArguments:
    """Arguments of the Trainer; joins the processes of a distributed run.

    Raises:
        TrainingError: if one process sees several GPUs.
    """
    schedule: dict[str, Any] = {"lr_scheduler_type": "cosine"}
    if optimiser.schedule == "stable":
        decay = round(optimiser.steps * optimiser.decay)
        schedule = {
            "lr_scheduler_type": "warmup_stable_decay",
            "lr_scheduler_kwargs": {"num_decay_steps": decay, "decay_type": "cosine"},
        }
    args = TrainingArguments(
        output_dir=str(folder),
        max_steps=optimiser.steps,
        per_device_train_batch_size=optimiser.batch_size,
        learning_rate=optimiser.learning_rate,
        gradient_accumulation_steps=optimiser.accumulate,
        **schedule,
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
        save_steps=config.evaluate_every,
        logging_steps=min(50, config.evaluate_every),
        logging_nan_inf_filter=False,
        # The other processes wait while the first one scores a checkpoint.
        ddp_timeout=4 * 3600,
        disable_tqdm=True,
        report_to=[],
        seed=config.seed,
    )
    if args.n_gpu > 1:
        # The Trainer would split each batch among them, which packed batches do not allow.
        raise TrainingError(
            f"one process sees {args.n_gpu} GPUs: start one process per GPU (torchrun "
            f"--nproc_per_node {args.n_gpu} -m vlm3_ros.cli train ...), or show it one "
            "(CUDA_VISIBLE_DEVICES=0)"
        )
    return args


class _Trainer(Trainer):
    """The stock Trainer with our optimisers, endless datasets, and checkpoints that are whole."""

    def __init__(
        self, *args: Any, optimiser: OptimiserConfig, finish: Finish | None, **kwargs: Any
    ):
        super().__init__(*args, **kwargs)
        if self.is_fsdp_enabled and finish is None:
            folder = Path(str(self.args.output_dir)).name
            raise TrainingError(
                f"{folder}.optimiser.steps is {optimiser.steps}, and FSDP splits the model that a "
                "warm-up passes on: train without FSDP, or start from a model that is warmed up"
            )
        self.remove_callback(PrinterCallback)
        self._optimiser, self._finish = optimiser, finish
        self._clock = Clock(samples_per_step(self.args))
        self._parts: dict[str, list[Tensor]] = {}
        # Every batch counts the same, because the shares of the tasks are shares of batches.
        self.model_accepts_loss_kwargs = False
        self.add_callback(_Steps(self._clock))

    @override
    def create_optimizer(self, model: Any = None) -> Optimizer:
        if self.is_fsdp_enabled and self._optimiser.name != "adamw":
            raise TrainingError(
                f"optimiser.name is {self._optimiser.name!r}, which needs whole matrices, and "
                "FSDP splits them: use adamw"
            )
        if self.optimizer is None:
            trained: Any = self.model if model is None else model
            self.optimizer = build_optimiser(trained, self._optimiser)
        return self.optimizer

    @override
    def get_train_dataloader(self) -> Any:
        # Not accelerate's, which would split the batches: a stream knows the share of its process.
        args, dataset = self.args, self.train_dataset
        assert dataset is not None
        return DataLoader(
            dataset,
            args.per_device_train_batch_size,
            collate_fn=self.data_collator,
            num_workers=args.dataloader_num_workers,
            prefetch_factor=args.dataloader_prefetch_factor,
            pin_memory=args.dataloader_pin_memory,
            # Otherwise it draws from the generator of dropout, once more in a run that resumes.
            generator=torch.Generator(),
        )

    @override
    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        self._clock.start_waiting()
        batches = super().get_batch_samples(*args, **kwargs)
        self._clock.start_working()
        return batches

    @override
    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        loss = super().training_step(*args, **kwargs)
        if not torch.isfinite(loss):
            self._stop(f"the loss became {loss.item()} in step {self.state.global_step + 1}")
        return loss

    @override
    def compute_loss(
        self,
        model: Any,
        inputs: Any,
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        computed: Any = super().compute_loss(model, inputs, True, num_items_in_batch)
        loss, outputs = computed
        for name in outputs.keys() - {"loss"}:
            self._parts.setdefault(name, []).append(outputs[name].detach())
        return computed if return_outputs else loss

    @override
    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if "loss" in logs:
            logs |= self._clock.read(self.state.log_history)
            # Means over the batches of this process.
            logs |= {
                f"{name}_loss": torch.stack(parts).mean().item()
                for name, parts in self._parts.items()
            }
            self._parts.clear()
        super().log(logs, *args, **kwargs)

    def _stop(self, reason: str) -> NoReturn:
        kept = checkpoints(Path(str(self.args.output_dir)))
        advice = (
            f"{kept[-1]} is from before: train on from it in another folder (--model "
            f"{whole_checkpoint(kept[-1])} --out ...)"
            if kept
            else "there is no checkpoint yet: start again in another folder"
        )
        raise TrainingError(
            f"{reason}, and training stopped. {advice} with a smaller optimiser.learning_rate or "
            "optimiser.clip"
        )

    def _get_output_dir(self, trial: Any) -> str:
        return str(Path(super()._get_output_dir(trial)) / UNFINISHED)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        assert self.model is not None
        if not all(torch.isfinite(weights).all() for weights in self.model.parameters()):
            self._stop(f"a weight is not finite after step {self.state.global_step}")
        folder = Path(str(self.args.output_dir))
        name = f"checkpoint-{self.state.global_step}"
        with writing(folder, f"the checkpoint of step {self.state.global_step}"):
            super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            (folder / UNFINISHED / name).rename(folder / name)
            drop_old_checkpoints(folder)
        self.accelerator.wait_for_everyone()

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        if self._finish is None:
            assert self.model is not None
            # All weights, as the extra layers resume too. Cloned: embeddings may also be the
            # output layer, and safetensors refuses shared memory.
            weights = {name: value.clone() for name, value in self.model.state_dict().items()}
            super()._save(output_dir, weights)
            return
        super()._save(output_dir, state_dict)
        if self.args.should_save:
            model = self.accelerator.unwrap_model(self.model)
            self._finish(model, Path(str(output_dir)), state_dict)


class _Steps(TrainerCallback):
    """Ends the clock's steps, and logs at every checkpoint so that a resumed run logs the same."""

    def __init__(self, clock: Clock):
        self._clock = clock

    @override
    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # A state read from a checkpoint has the intervals of the previous sitting.
        state.compute_steps(args, state.max_steps)

    @override
    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._clock.end_step()
        if control.should_save:
            control.should_log = True
