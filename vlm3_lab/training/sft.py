# SPDX-License-Identifier: Apache-2.0
"""Supervised fine-tuning with transformers' Trainer."""

from __future__ import annotations

import json
import logging
import platform
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader
from tqdm.contrib.logging import logging_redirect_tqdm
from transformers import (
    AutoModelForImageTextToText,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers import logging as transformers_logging

from vlm3_lab.training.card import write_card
from vlm3_lab.training.checkpoint import (
    TinyShape,
    build_checkpoint,
    extend_checkpoint,
    has_own_words,
    save_processor,
)
from vlm3_lab.training.config import (
    DataConfig,
    OptimiserConfig,
    TrainConfig,
    TrainingError,
    WarmupConfig,
)
from vlm3_lab.training.curves import draw_curves
from vlm3_lab.training.lora import add_adapters, merged_state
from vlm3_lab.training.mixture import MixedQuestions
from vlm3_lab.training.object_warmup import ObjectHead, ObjectWarmup, collate_objects
from vlm3_lab.training.optimiser import build_optimiser
from vlm3_lab.training.packing import PACKED_ATTENTION, Packer, packed_loss
from vlm3_lab.training.pair_warmup import DensePairs, PairHead, collate_pairs
from vlm3_lab.training.progress import Clock, ProgressBar
from vlm3_lab.training.run_folder import (
    UNFINISHED,
    checkpoints,
    claim,
    drop_old_checkpoints,
    drop_unfinished,
    replace_text,
    step_of,
    writing,
)
from vlm3_lab.training.warmup import DenseDepth, DenseHead, collate
from vlm3_ros.engines.base import PROFILE_FILE, Profile, load_profile, write_profile
from vlm3_ros.engines.checkpoint import preflight
from vlm3_ros.engines.processor import image_limits, load_processor
from vlm3_ros.engines.settings import Dtype, EngineSettings
from vlm3_ros.language.prompts import PromptSet, load_prompt_set

logger = logging.getLogger(__name__)

Score = Callable[[Path], dict[str, float]]
"""Scores a checkpoint folder; the names and values go into the log and the curve."""


def _collate_packed(processor: Any) -> Callable[[list[Any]], dict[str, Any]]:
    return Packer(processor).collate


@dataclass(frozen=True)
class Streams:
    """What samples are drawn with: as recipes say, or what an ablation puts in its place.

    `dense`, `questions`: make a data set as `samples.SampleStream` is made. `collate`: makes, of a
    processor, what turns samples of `questions` into the keyword arguments of `packed_loss`.
    """

    dense: Callable[..., Any] = DenseDepth
    questions: Callable[..., Any] = MixedQuestions
    collate: Callable[[Any], Callable[[list[Any]], dict[str, Any]]] = _collate_packed


def train(
    config: TrainConfig,
    folder: Path | str,
    score: Score | None = None,
    streams: Streams = Streams(),
) -> Path:
    """Train a checkpoint, or go on with a run that was cut off in the same folder.

    Several processes train together where `accelerate launch` or `torchrun` started them; the
    first one writes.

    Args:
        folder: gets `run.json`, `checkpoint-N` folders, `log.json`, `curves.png` and, at the end,
            `final`, the checkpoint with its card.
        score: called with every checkpoint.
        streams: what samples are drawn with.

    Returns:
        The folder of the final checkpoint.

    Raises:
        TrainingError: when the folder is another run's, the model cannot be trained so, the loss
            is no number any more, or a checkpoint cannot be written.
        EngineError: when there is no such model.
    """
    transformers_logging.disable_progress_bar()  # of reading and writing weights
    folder = Path(folder)
    optimiser = config.optimiser
    args = _arguments(config, config.data, optimiser, folder)  # joins the processes, if several
    with args.main_process_first(local=False):
        claim(folder, config, args.world_size)
    final = folder / "final"
    if (final / PROFILE_FILE).is_file():
        logger.info("%s is finished", folder)
        return final
    start = _first_checkpoint(config, folder, args, streams)
    processor = load_processor(start.folder)
    last, step = _last_step(folder, args)
    scoring = _Score(folder, score)
    if last is not None and args.should_save:
        scoring.catch_up(last)
    if step < optimiser.steps:
        trainer = _Trainer(
            model=_question_model(config, start.folder),
            args=args,
            config=optimiser,
            train_dataset=streams.questions(
                processor,
                start.profile,
                image_limits(processor),
                config.data,
                optimiser.batch_size,
                start=step * _samples_per_step(args),
            ),
            data_collator=streams.collate(processor),
            callbacks=[scoring, ProgressBar("training")],
        )
        trainer.finish = partial(_write_checkpoint, config, processor, start.profile)
        trainer.go_on(last)
    with args.main_process_first(local=False):
        if args.should_save:
            _write_final(folder, config, start, processor, args)
    return final


def warm_up(config: TrainConfig, folder: Path | str, streams: Streams = Streams()) -> Path:
    """The checkpoint that questions would start from, for several runs to share.

    Args:
        config: of which only the warm-ups are run.
        folder: gets what `train` would write for them.
        streams: what samples are drawn with.

    Raises:
        TrainingError, EngineError: as `train` does.
    """
    folder = Path(folder)
    args = _arguments(config, config.data, config.optimiser, folder)
    return _first_checkpoint(config, folder, args, streams).folder


def whole_checkpoint(checkpoint: Path) -> Path:
    """Where in a `checkpoint-N` lies what every node takes: beside adapters, the merged model."""
    merged = checkpoint / "merged"
    return merged if merged.is_dir() else checkpoint


class _Start(NamedTuple):
    """What a training starts from."""

    folder: Path
    profile: Profile


class _Trainer(Trainer):
    """The stock Trainer with our optimisers, our streams of samples and checkpoints that are whole.

    `finish`: makes a folder that holds weights a checkpoint.
    """

    finish: Callable[[Any, Path, dict[str, Tensor] | None], None]

    def __init__(self, *args: Any, config: OptimiserConfig, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.remove_callback(PrinterCallback)
        self._config = config
        self._clock = Clock(_samples_per_step(self.args))
        self._parts: dict[str, list[Tensor]] = {}
        # Every batch counts alike, as the shares of the tasks are shares of batches.
        self.model_accepts_loss_kwargs = False
        self.add_callback(_Steps(self._clock))

    def go_on(self, checkpoint: Path | None) -> None:
        """Train, from a checkpoint of this run if there is one."""
        with logging_redirect_tqdm():
            self.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        streams: Any = self.train_dataset
        streams.sources.log_unreadable()

    def create_optimizer(self, model: Any = None) -> Optimizer:
        """See the base class.

        Raises:
            TrainingError: when the optimiser cannot work on what FSDP leaves it.
        """
        if self.is_fsdp_enabled and self._config.name != "adamw":
            raise TrainingError(
                f"optimiser.name is {self._config.name!r}, which needs whole matrices, and FSDP "
                "cuts them: use adamw"
            )
        if self.optimizer is None:
            trained: Any = self.model if model is None else model
            self.optimizer = build_optimiser(trained, self._config)
        return self.optimizer

    def get_train_dataloader(self) -> Any:
        """Batches of this process: a stream knows its share, see `worker_share`."""
        args, dataset = self.args, self.train_dataset
        assert dataset is not None
        return DataLoader(
            dataset,
            args.per_device_train_batch_size,
            collate_fn=self.data_collator,
            num_workers=args.dataloader_num_workers,
            prefetch_factor=args.dataloader_prefetch_factor,
            pin_memory=args.dataloader_pin_memory,
            # Else it draws from the generator of dropout, once more in a run that resumes.
            generator=torch.Generator(),
        )

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """See the base class."""
        self._clock.start_waiting()
        batches = super().get_batch_samples(*args, **kwargs)
        self._clock.start_working()
        return batches

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """See the base class.

        Raises:
            TrainingError: when the loss is no number.
        """
        loss = super().training_step(*args, **kwargs)
        if not torch.isfinite(loss):
            self._stop(f"the loss became {loss.item()} in step {self.state.global_step + 1}")
        return loss

    def compute_loss(
        self,
        model: Any,
        inputs: Any,
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """See the base class; the parts of a loss are kept for the log."""
        computed: Any = super().compute_loss(model, inputs, True, num_items_in_batch)
        loss, outputs = computed
        for name in outputs.keys() - {"loss"}:
            self._parts.setdefault(name, []).append(outputs[name].detach())
        return computed if return_outputs else loss

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """See the base class; the parts of a loss are means over the batches of this process."""
        if "loss" in logs:
            logs |= self._clock.read(self.state.log_history)
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
            self._stop(f"a weight is no number any more after step {self.state.global_step}")
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
        super()._save(output_dir, state_dict)
        if self.args.should_save:
            model = self.accelerator.unwrap_model(self.model)
            self.finish(model, Path(str(output_dir)), state_dict)


class _WarmupTrainer(_Trainer):
    """Trains a model with layers on top of it, of which a run that resumes needs all weights."""

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        assert self.model is not None
        # Embeddings may be the output layer as well, and safetensors takes no memory twice.
        weights = {name: value.clone() for name, value in self.model.state_dict().items()}
        super()._save(output_dir, weights)


class _Steps(TrainerCallback):
    """Ends the clock's steps, and logs at every checkpoint: a resumed run then logs the same."""

    def __init__(self, clock: Clock):
        self._clock = clock

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """See the base class."""
        # A state that was read from a checkpoint has the intervals of the sitting before.
        state.compute_steps(args, state.max_steps)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """See the base class."""
        self._clock.end_step()
        if control.should_save:
            control.should_log = True


class _Score(TrainerCallback):
    """Scores every checkpoint and writes the log."""

    def __init__(self, folder: Path, score: Score | None):
        self._folder, self._score = folder, score

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """See the base class."""
        if not state.is_world_process_zero:
            return
        self._note(self._folder / f"checkpoint-{state.global_step}", state)

    def catch_up(self, checkpoint: Path) -> None:
        """Score a checkpoint that is whole, but whose run was cut off before it was scored."""
        state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
        scored = {entry["step"] for entry in state.log_history if "loss" not in entry}
        if self._score is not None and state.global_step not in scored:
            self._note(checkpoint, state)

    def _note(self, checkpoint: Path, state: TrainerState) -> None:
        if self._score is not None:
            scores = self._score(whole_checkpoint(checkpoint))
            state.log_history.append({"step": state.global_step, **scores})
            told = ", ".join(f"{name} {value:.3f}" for name, value in scores.items())
            logger.info("step %d: %s", state.global_step, told)
        with writing(self._folder, "the log"):
            # With the scores, which a run that resumes here would lack.
            state_json = json.dumps(asdict(state), indent=2, sort_keys=True) + "\n"
            replace_text(checkpoint / "trainer_state.json", state_json)
            _write_log(self._folder, state.log_history)


def _write_log(folder: Path, log: list[dict[str, float]]) -> None:
    replace_text(folder / "log.json", json.dumps(log, indent=1))
    draw_curves(log, folder / "curves.png")


def _write_checkpoint(
    config: TrainConfig,
    processor: Any,
    profile: Profile,
    model: Any,
    folder: Path,
    state: dict[str, Tensor] | None,
) -> None:
    """Make a folder that the Trainer wrote weights or adapters to a checkpoint for every node."""
    if config.lora.rank:
        merged = merged_state(model.state_dict() if state is None else state, config.lora)
        folder /= "merged"
        model.get_base_model().save_pretrained(folder, state_dict=merged)
    _complete(folder, processor, profile)


def _write_final(
    folder: Path, config: TrainConfig, start: _Start, processor: Any, args: TrainingArguments
) -> None:
    """The last checkpoint as it is used: half the size, with a card, without what trains it."""
    last = checkpoints(folder)[-1]
    log = TrainerState.load_from_json(str(last / "trainer_state.json")).log_history
    unfinished = folder / UNFINISHED / "final"
    with writing(folder, "the final checkpoint"):
        _write_log(folder, log)
        # What the low bits of float32 weights add is far below a decimal of an answer.
        model: Any = AutoModelForImageTextToText.from_pretrained(
            whole_checkpoint(last), dtype=torch.bfloat16
        )
        model.save_pretrained(unfinished)
        shutil.copyfile(folder / "curves.png", unfinished / "curves.png")
        write_card(unfinished, config, log, hardware(args.world_size))
        _complete(unfinished, processor, start.profile)
        unfinished.rename(folder / "final")
        drop_unfinished(folder)


def hardware(processes: int) -> str:
    """What a run computes on, in words."""
    if torch.cuda.is_available():
        return f"{processes} x {torch.cuda.get_device_name()}"
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    name = found[1] if found else platform.machine()
    return f"{name}, {processes} x {torch.get_num_threads()} threads, no GPU"


def _first_checkpoint(
    config: TrainConfig, folder: Path, args: TrainingArguments, streams: Streams
) -> _Start:
    """Where the questions start: after the warm-ups that are asked for."""
    with args.main_process_first(local=False):
        start = _unwarmed_checkpoint(config, folder / "start")
    if config.warmup.optimiser.steps:
        start = _warm_up(config, start, folder / "warmup", streams)
    if config.object_warmup.optimiser.steps:
        start = _warm_up_objects(config, start, folder / "object_warmup")
    if config.pair_warmup.optimiser.steps:
        start = _warm_up_pairs(config, start, folder / "pair_warmup")
    return start


def _unwarmed_checkpoint(config: TrainConfig, folder: Path) -> _Start:
    """The configured model, asked as it was trained or else as configured; or random weights."""
    if not config.model:
        profile = _taught_profile(config)
        sizes = [field.name for field in fields(TinyShape)]
        if unknown := [key for key in config.shape if key not in sizes]:
            raise TrainingError(f"shape holds {unknown[0]!r}; known are {', '.join(sizes)}")
        if not (folder / PROFILE_FILE).is_file():
            build_checkpoint(folder, TinyShape(**config.shape), profile, config.seed)
        return _Start(folder, profile)
    # On the CPU, where weights are read before they go anywhere.
    settings = EngineSettings(config.model, device="cpu", dtype=_weights_dtype(config))
    source = preflight(settings, logger.info).folder
    if not (source / PROFILE_FILE).is_file():
        return _Start(source, _taught_profile(config))
    profile = load_profile(source)
    prompts = profile.prompts
    if ("pose" in prompts.wordings or not config.learns_pairs) and (
        "objects" in prompts.wordings or not config.learns_objects
    ):
        return _Start(source, profile)
    known, profile = profile, replace(profile, prompts=_taught_prompts(config, prompts))
    if not has_own_words(source, known):
        return _Start(source, profile)
    if not (folder / PROFILE_FILE).is_file():
        extend_checkpoint(source, folder, profile)
    return _Start(folder, profile)


def _taught_profile(config: TrainConfig) -> Profile:
    """The configured one."""
    return Profile(
        focal=config.profile.focal,
        fit=config.profile.fit,  # type: ignore[arg-type]  # load_config checks it
        prompts=_taught_prompts(config),
    )


def _taught_prompts(config: TrainConfig, known: PromptSet | None = None) -> PromptSet:
    """The configured ones; they claim no more than the run teaches or a checkpoint knows."""
    prompts = load_prompt_set(config.profile.prompts)
    known_tasks = () if known is None else known.wordings
    if not config.learns_pairs and "pose" not in known_tasks:
        prompts = prompts.without("pose", "correspondence")
    if not config.learns_objects and "objects" not in known_tasks:
        prompts = prompts.without("objects")
    return prompts


def _warm_up(config: TrainConfig, start: _Start, folder: Path, streams: Streams) -> _Start:
    """Train the vision half of `start` on dense depth; the whole model with it is returned."""

    def learner(model: Any) -> nn.Module:
        return DenseHead(model.model.visual, model.config.text_config.hidden_size)

    return _dense_training(config, config.warmup, start, folder, streams.dense, learner, collate)


def _warm_up_objects(config: TrainConfig, start: _Start, folder: Path) -> _Start:
    """Train `start` on objects and what is true of them; the model is returned."""
    collate = partial(collate_objects, Packer(load_processor(start.folder)))
    warmup = config.object_warmup
    return _dense_training(config, warmup, start, folder, ObjectWarmup, ObjectHead, collate)


def _warm_up_pairs(config: TrainConfig, start: _Start, folder: Path) -> _Start:
    """Train `start` on dense matches of pairs; the model is returned."""
    collate = partial(collate_pairs, Packer(load_processor(start.folder)))
    warmup = config.pair_warmup
    return _dense_training(config, warmup, start, folder, DensePairs, PairHead, collate)


def _dense_training(
    config: TrainConfig,
    warmup: WarmupConfig,
    start: _Start,
    folder: Path,
    dataset: Callable[..., Any],
    learner: Callable[[Any], nn.Module],
    collate: Callable[[list[Any]], dict[str, Any]],
) -> _Start:
    """Train a model through what `learner` puts on it, which is then thrown away."""
    final = _Start(folder / "final", start.profile)
    if (final.folder / PROFILE_FILE).is_file():
        return final
    processor = load_processor(start.folder)
    model = _trainable_model(start.folder, torch.float32)
    args = _arguments(config, warmup.data, warmup.optimiser, folder)
    last, step = _last_step(folder, args)
    torch.manual_seed(config.seed)  # of the new layers
    trainer = _WarmupTrainer(
        model=learner(model),
        args=args,
        config=warmup.optimiser,
        train_dataset=dataset(
            processor,
            start.profile,
            image_limits(processor),
            warmup.data,
            warmup.optimiser.batch_size,
            start=step * _samples_per_step(args),
        ),
        data_collator=collate,
        callbacks=[_Score(folder, None), ProgressBar(folder.name.replace("_", " "))],
    )
    if trainer.is_fsdp_enabled:
        raise TrainingError(
            f"{folder.name}.optimiser.steps is {warmup.optimiser.steps}, and FSDP cuts up what a "
            "warm-up hands on: train without FSDP, or start from a model that is warm"
        )
    trainer.finish = lambda *_: None  # the head that trains is no checkpoint
    trainer.go_on(last)
    with args.main_process_first(local=False):
        if args.should_save:
            with writing(folder, "the warmed-up model"):
                model.save_pretrained(final.folder)
                _complete(final.folder, processor, final.profile)
    return final


def _last_step(folder: Path, args: TrainingArguments) -> tuple[Path | None, int]:
    """The last checkpoint of a run that is to go on, and the steps that led to it."""
    with args.main_process_first(local=False):
        if args.should_save:
            drop_unfinished(folder)
    kept = checkpoints(folder)
    return (kept[-1], step_of(kept[-1])) if kept else (None, 0)


def _samples_per_step(args: TrainingArguments) -> int:
    """Of all processes together."""
    return args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size


def _arguments(
    config: TrainConfig, data: DataConfig, optimiser: OptimiserConfig, folder: Path
) -> TrainingArguments:
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
        # The others wait while the first process scores a checkpoint.
        ddp_timeout=4 * 3600,
        disable_tqdm=True,
        report_to=[],
        seed=config.seed,
    )
    if args.n_gpu > 1:
        # The Trainer would cut each batch up among them, which packed batches do not bear.
        raise TrainingError(
            f"one process sees {args.n_gpu} GPUs: start one for each (torchrun --nproc_per_node "
            f"{args.n_gpu} -m vlm3_ros.cli train ...), or show it one (CUDA_VISIBLE_DEVICES=0)"
        )
    return args


def _weights_dtype(config: TrainConfig) -> Dtype:
    """Of a model's own weights: float32 where they train, for small steps not to be lost."""
    return "bfloat16" if config.lora.rank and config.dtype == "bfloat16" else "float32"


def _question_model(config: TrainConfig, checkpoint: Path) -> Any:
    """A model that, called with a packed batch, returns its loss."""
    model = _trainable_model(checkpoint, getattr(torch, _weights_dtype(config)))
    # Not a function beside the model: calling the model is what wrappers for several processes
    # and for mixed precision see.
    model.forward = lambda **batch: {"loss": packed_loss(model, batch)}
    if config.gradient_checkpointing:
        # Its name from transformers 6 on, and the one before.
        enable = getattr(model, "activation_checkpointing_enable", None)
        (enable or model.gradient_checkpointing_enable)({"use_reentrant": False})
    torch.manual_seed(config.seed)  # of the adapters
    return add_adapters(model, config.lora) if config.lora.rank else model


def _trainable_model(checkpoint: Path, dtype: torch.dtype) -> Any:
    """A model whose attention reads packed batches."""
    model: Any = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=dtype)
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
