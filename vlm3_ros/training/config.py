"""The recipe of a training run, read from a YAML file (`config/training/*.yaml`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args

import yaml

from vlm3_ros.geometry.camera import Fit
from vlm3_ros.synthetic import KINDS


class ConfigError(ValueError):
    """A training configuration that cannot be used; the message names the file and the key."""


@dataclass(frozen=True)
class ProfileConfig:
    """How the checkpoint is asked: unified focal length in px, fit of sides, prompt set."""

    focal: float = 1000.0
    fit: str = "scale"
    prompts: str = "vlm3"


@dataclass(frozen=True)
class DataConfig:
    """What is drawn: `kinds` of procedural scenes, all when empty; one stream per `seed`.

    Every view gives `repeats` samples of `questions` pixels, every pair of views as many of the
    pose and of `matches` pixels. `pairs`: share of the batches that are of pairs.
    """

    kinds: tuple[str, ...] = ()
    questions: int = 10
    matches: int = 8
    pairs: float = 0.0
    repeats: int = 1
    seed: int = 1
    workers: int = 1


@dataclass(frozen=True)
class OptimiserConfig:
    """How weights move. The learning rate rises over the first `warmup` share of the steps.

    `name`: "adamw", or "muon" for Muon on matrices and AdamW on the rest. `vision_rate`: learning
    rate of the vision half, as a share of `learning_rate`. `batch_size`: samples that a process
    computes at once; a step averages over `accumulate` such batches of every process. `schedule`:
    after the warm-up the rate falls along a cosine ("cosine"), or stays and falls over the last
    `decay` share of the steps ("stable"). `clip`: largest norm of a step's gradient.
    """

    name: str = "adamw"
    learning_rate: float = 1e-3
    vision_rate: float = 1.0
    batch_size: int = 16
    accumulate: int = 1
    steps: int = 10_000
    schedule: str = "stable"
    warmup: float = 0.03
    decay: float = 0.3
    weight_decay: float = 0.01
    beta2: float = 0.98
    clip: float = 1.0


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters that train in place of the weights of linear layers; none at `rank` 0.

    `alpha`: their output counts `alpha / rank` times. `targets`: names of the layers that get
    them.
    """

    rank: int = 0
    alpha: int = 32
    dropout: float = 0.0
    targets: tuple[str, ...] = (
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    )


@dataclass(frozen=True)
class WarmupConfig:
    """Dense training through layers that are thrown away; none where `optimiser.steps` is 0."""

    data: DataConfig = field(default_factory=DataConfig)
    optimiser: OptimiserConfig = field(default_factory=lambda: OptimiserConfig(steps=0))


@dataclass(frozen=True)
class TrainConfig:
    """A training run.

    `model`: a checkpoint to start from; empty for random weights of the sizes in `shape` (the
    fields of `checkpoint.TinyShape`). `warmup`: dense depth for the vision half. `pair_warmup`:
    dense matches, before a model is asked about pairs. `lora`: of the questions, the warm-ups
    train all weights. `dtype`: precision of matrix products ("float32", "bfloat16"); weights that
    train stay float32. `gradient_checkpointing`: compute activations twice instead of keeping
    them. `evaluate_every`: steps between checkpoints, each scored on `evaluation_views` unseen
    views.
    """

    model: str = ""
    shape: dict[str, Any] = field(default_factory=dict)
    profile: ProfileConfig = field(default_factory=ProfileConfig)
    warmup: WarmupConfig = field(default_factory=WarmupConfig)
    pair_warmup: WarmupConfig = field(default_factory=WarmupConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    dtype: str = "bfloat16"
    gradient_checkpointing: bool = False
    seed: int = 0
    evaluate_every: int = 1000
    evaluation_views: int = 80

    @property
    def learns_pairs(self) -> bool:
        """Whether the run teaches pose and correspondence."""
        return bool(self.data.pairs or self.pair_warmup.optimiser.steps)


def load_config(path: Path | str, settings: Sequence[str] = ()) -> TrainConfig:
    """Read a training configuration.

    Args:
        path: of the YAML file.
        settings: `key.path=value`, each in place of what the file says; values are YAML.

    Raises:
        ConfigError: when the file cannot be read, or a key or a value does not belong there.
    """
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text()) or {}
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from error
    for setting in settings:
        _set(content, setting)
    return _checked(content, f"{path} with {' '.join(settings)}" if settings else str(path))


def _set(content: Any, setting: str) -> None:
    """Put one `key.path=value` into what a file holds."""
    keys, equals, text = setting.partition("=")
    *sections, key = keys.split(".")
    if not equals or not all((*sections, key)):
        raise ConfigError(f"{setting!r} sets nothing; write key.path=value")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{setting!r}: the value cannot be read ({error})") from error
    for section in sections:
        if isinstance(content, dict) and content.get(section) is None:
            content[section] = {}
        content = content[section] if isinstance(content, dict) else None
    if not isinstance(content, dict):
        raise ConfigError(f"{setting!r}: {'.'.join(sections)} holds no keys")
    content[key] = value


def _checked(content: Any, path: str) -> TrainConfig:
    config: TrainConfig = _build(TrainConfig(), content, path)
    positive: dict[str, float] = {
        "optimiser.steps": config.optimiser.steps,
        "evaluate_every": config.evaluate_every,
    }
    for prefix, part in (
        ("", config),
        ("warmup.", config.warmup),
        ("pair_warmup.", config.pair_warmup),
    ):
        positive |= {
            f"{prefix}data.questions": part.data.questions,
            f"{prefix}data.matches": part.data.matches,
            f"{prefix}data.repeats": part.data.repeats,
        }
        _check_optimiser(part.optimiser, f"{path}: {prefix}optimiser")
        if not 0 <= part.data.pairs <= 1:
            raise ConfigError(
                f"{path}: {prefix}data.pairs is {part.data.pairs}; it is a share, from 0 to 1"
            )
        if unknown := [kind for kind in part.data.kinds if kind not in KINDS]:
            raise ConfigError(
                f"{path}: {prefix}data.kinds holds {unknown[0]!r}; known are {', '.join(KINDS)}"
            )
    for key, value in positive.items():
        if value <= 0:
            raise ConfigError(f"{path}: {key} is {value}; it must be positive")
    if config.profile.fit not in get_args(Fit):
        raise ConfigError(
            f"{path}: profile.fit is {config.profile.fit!r}; use {' or '.join(get_args(Fit))}"
        )
    if config.dtype not in ("float32", "bfloat16"):
        raise ConfigError(f"{path}: dtype is {config.dtype!r}; use float32 or bfloat16")
    _check_lora(config.lora, f"{path}: lora")
    return config


def _check_optimiser(optimiser: OptimiserConfig, where: str) -> None:
    for key in ("batch_size", "accumulate", "learning_rate", "clip"):
        if not 0 < getattr(optimiser, key) < math.inf:
            raise ConfigError(
                f"{where}.{key} is {getattr(optimiser, key)}; it must be positive and finite"
            )
    for key in ("vision_rate", "weight_decay"):
        if not 0 <= getattr(optimiser, key) < math.inf:
            raise ConfigError(f"{where}.{key} is {getattr(optimiser, key)}; it must be 0 or more")
    for key in ("warmup", "decay", "beta2"):
        if not 0 <= getattr(optimiser, key) <= 1:
            raise ConfigError(f"{where}.{key} is {getattr(optimiser, key)}; it must be in [0, 1]")
    for key, known in (("name", ("adamw", "muon")), ("schedule", ("cosine", "stable"))):
        if getattr(optimiser, key) not in known:
            raise ConfigError(
                f"{where}.{key} is {getattr(optimiser, key)!r}; use {' or '.join(known)}"
            )


def _check_lora(lora: LoraConfig, where: str) -> None:
    if lora.rank < 0:
        raise ConfigError(f"{where}.rank is {lora.rank}; use 0 to train all weights, or more")
    if lora.alpha <= 0:
        raise ConfigError(f"{where}.alpha is {lora.alpha}; it must be positive")
    if not 0 <= lora.dropout < 1:
        raise ConfigError(f"{where}.dropout is {lora.dropout}; it must be in [0, 1)")
    if not lora.targets or not all(isinstance(name, str) for name in lora.targets):
        raise ConfigError(f"{where}.targets is {lora.targets}; name one layer at least")


def _build(default: Any, content: Any, where: str) -> Any:
    """A dataclass of the default's type with the values that a mapping holds."""
    if not isinstance(content, dict):
        raise ConfigError(f"{where}: expected a mapping, found {content!r}")
    known = {f.name: getattr(default, f.name) for f in fields(default)}
    values = {}
    for key, value in content.items():
        if key not in known:
            raise ConfigError(f"{where}: unknown key {key!r}; known are {', '.join(known)}")
        values[key] = _value(known[key], value, f"{where}: {key}")
    return type(default)(**{**known, **values})


def _value(default: Any, value: Any, where: str) -> Any:
    if is_dataclass(default):
        return _build(default, value, where)
    if isinstance(default, tuple) and isinstance(value, list):
        return tuple(value)
    if isinstance(default, float) and isinstance(value, (int, str)) and not isinstance(value, bool):
        try:
            return float(value)  # YAML reads 1e-3 as a string
        except ValueError:
            pass
    if type(value) is not type(default):
        raise ConfigError(f"{where} is {value!r}; expected a {type(default).__name__}")
    return value
