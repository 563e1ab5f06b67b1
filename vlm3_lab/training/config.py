# SPDX-License-Identifier: Apache-2.0
"""The recipe of a training run, read from a YAML file (`config/training/*.yaml`)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args

import yaml

from vlm3_lab.scenes import KINDS
from vlm3_ros.errors import Vlm3Error
from vlm3_ros.geometry.camera import Fit

TASKS = ("depth", "pairs", "objects")
"""What a model can be taught: depth of pixels of a view, motion and matches of pairs of views,
boxes of objects."""

WEIGHTS = ("given", "uniform", "size")
FRAMES = ("train", "held_out", "all")


class TrainingError(Vlm3Error):
    """A training that cannot be started or go on."""


class ConfigError(Vlm3Error, ValueError):
    """A training configuration that cannot be used; the message names the file and the key."""


def _named(default: object) -> dict[str, object]:
    """Metadata of a field that maps names of the user's to values of the default's type."""
    return {"items": default}


@dataclass(frozen=True)
class ProfileConfig:
    """How the checkpoint is asked: unified focal length in px, fit of sides, prompt set."""

    focal: float = 1000.0
    fit: str = "scale"
    prompts: str = "vlm3"


@dataclass(frozen=True)
class SourceConfig:
    """Where scenes come from: procedural, or a `dataset` folder that `vlm3 dataset` made.

    Procedural: of `kinds`, all when empty; ever new ones, or the same `scenes` again and again.
    Of a dataset: its `frames`, "train", "held_out" or "all".
    """

    kinds: tuple[str, ...] = ()
    scenes: int = 0
    dataset: str = ""
    frames: str = "train"
    weight: float = 1.0


@dataclass(frozen=True)
class DataConfig:
    """What is drawn: one stream per `seed`.

    `tasks`: relative shares of the batches, by name (`TASKS`). `sources`: where their scenes come
    from, by a name of one's own; new procedural scenes of all kinds when empty. `weights`: how
    often each source is drawn from: as its weight says ("given"), all alike ("uniform"), or by
    the number of scenes it has ("size"); one of weight 0 never.

    Every view gives `repeats` samples of `questions` pixels, or of `object_questions` questions
    about its objects, every pair of views as many of `matches` pixels and, with `pose`, of the
    motion between them.
    """

    tasks: dict[str, float] = field(default_factory=lambda: {"depth": 1.0}, metadata=_named(0.0))
    sources: dict[str, SourceConfig] = field(default_factory=dict, metadata=_named(SourceConfig()))
    weights: str = "given"
    questions: int = 10
    object_questions: int = 10
    matches: int = 8
    pose: bool = True
    repeats: int = 1
    seed: int = 1
    workers: int = 1

    def share(self, task: str) -> float:
        """Share of the batches that are of a task, in [0, 1]."""
        return self.tasks.get(task, 0.0) / math.fsum(self.tasks.values())


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
    """Training through layers that are thrown away; none where `optimiser.steps` is 0."""

    data: DataConfig = field(default_factory=DataConfig)
    optimiser: OptimiserConfig = field(default_factory=lambda: OptimiserConfig(steps=0))


@dataclass(frozen=True)
class TrainConfig:
    """A training run.

    `model`: a checkpoint to start from; empty for random weights of the sizes in `shape` (the
    fields of `checkpoint.TinyShape`). `warmup`: dense depth for the vision half. `object_warmup`:
    facts of objects beside questions about them and about depth. `pair_warmup`: dense matches,
    before a model is asked about pairs. `lora`: of the questions, the warm-ups train all weights.
    `dtype`: precision of matrix products ("float32", "bfloat16"); weights that train stay float32.
    `gradient_checkpointing`: compute activations twice instead of keeping them. `evaluate_every`:
    steps between checkpoints, each scored on `evaluation_views` unseen views.
    """

    model: str = ""
    shape: dict[str, Any] = field(default_factory=dict)
    profile: ProfileConfig = field(default_factory=ProfileConfig)
    warmup: WarmupConfig = field(default_factory=WarmupConfig)
    object_warmup: WarmupConfig = field(
        default_factory=lambda: WarmupConfig(DataConfig(tasks={"objects": 2.0, "depth": 1.0}))
    )
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
    def warmups(self) -> dict[str, WarmupConfig]:
        """All warm-ups by key, those of no steps too."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {key: value for key, value in values.items() if isinstance(value, WarmupConfig)}

    @property
    def learns_pairs(self) -> bool:
        """Whether the run teaches pose and correspondence."""
        return bool(self.data.share("pairs") or self.pair_warmup.optimiser.steps)

    @property
    def learns_objects(self) -> bool:
        """Whether the run teaches what is true of objects."""
        return bool(self.data.share("objects") or self.object_warmup.optimiser.steps)


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
    parts: dict[str, TrainConfig | WarmupConfig] = {"": config}
    parts |= {f"{key}.": warmup for key, warmup in config.warmups.items()}
    for prefix, part in parts.items():
        check_data(part.data, f"{path}: {prefix}data")
        _check_optimiser(part.optimiser, f"{path}: {prefix}optimiser")
    for key, value in (
        ("optimiser.steps", config.optimiser.steps),
        ("evaluate_every", config.evaluate_every),
    ):
        if value <= 0:
            raise ConfigError(f"{path}: {key} is {value}; it must be positive")
    for key, value in (
        *((f"{key}.optimiser.steps", part.optimiser.steps) for key, part in config.warmups.items()),
        ("evaluation_views", config.evaluation_views),
        ("seed", config.seed),
    ):
        if value < 0:
            raise ConfigError(f"{path}: {key} is {value}; it must not be negative")
    if not 0 < config.profile.focal < math.inf:
        raise ConfigError(f"{path}: profile.focal is {config.profile.focal}; it must be positive")
    if config.profile.fit not in get_args(Fit):
        raise ConfigError(
            f"{path}: profile.fit is {config.profile.fit!r}; use {' or '.join(get_args(Fit))}"
        )
    if config.dtype not in ("float32", "bfloat16"):
        raise ConfigError(f"{path}: dtype is {config.dtype!r}; use float32 or bfloat16")
    for key, warmup in (("warmup", config.warmup), ("pair_warmup", config.pair_warmup)):
        if warmup.data.tasks != DataConfig().tasks:
            raise ConfigError(f"{path}: {key}.data.tasks: a warm-up has a task of its own")
    objects = config.object_warmup.data
    if not objects.share("objects") or objects.share("pairs"):
        raise ConfigError(
            f"{path}: object_warmup.data.tasks: this warm-up has objects, and depth beside them"
        )
    _check_lora(config.lora, f"{path}: lora")
    return config


def check_data(data: DataConfig, where: str) -> None:
    """Refuse what cannot be drawn.

    Args:
        data: the section.
        where: it stands, for the message.

    Raises:
        ConfigError: naming the key.
    """
    for key in ("questions", "object_questions", "repeats"):
        if (value := getattr(data, key)) <= 0:
            raise ConfigError(f"{where}.{key} is {value}; it must be positive")
    for key in ("matches", "seed", "workers"):
        if (value := getattr(data, key)) < 0:
            raise ConfigError(f"{where}.{key} is {value}; it must not be negative")
    if not data.matches and not data.pose:
        raise ConfigError(f"{where}.matches is 0 and {where}.pose false: nothing is asked of pairs")
    _check_names(data.tasks, TASKS, f"{where}.tasks")
    _check_shares(data.tasks, f"{where}.tasks", "share")
    if data.weights not in WEIGHTS:
        raise ConfigError(f"{where}.weights is {data.weights!r}; use {', '.join(WEIGHTS)}")
    for name, source in data.sources.items():
        _check_source(source, f"{where}.sources.{name}", data.weights)
    if data.sources:
        weights = {f"{name}.weight": source.weight for name, source in data.sources.items()}
        _check_shares(weights, f"{where}.sources", "weight")


def _check_source(source: SourceConfig, where: str, weights: str) -> None:
    _check_names(source.kinds, KINDS, f"{where}.kinds")
    if source.scenes < 0:
        raise ConfigError(f"{where}.scenes is {source.scenes}; use 0 for ever new ones, or more")
    if source.frames not in FRAMES:
        raise ConfigError(f"{where}.frames is {source.frames!r}; use {', '.join(FRAMES)}")
    if source.dataset and (source.kinds or source.scenes):
        raise ConfigError(
            f"{where} has a dataset, and kinds or scenes, which are of procedural ones"
        )
    if source.frames != "train" and not source.dataset:
        raise ConfigError(f"{where} has frames, and no dataset that they are of")
    if weights == "size" and source.weight and not source.dataset and not source.scenes:
        raise ConfigError(
            f"{where} has no size, it draws ever new scenes: give it a number of scenes, or each "
            "source a weight and write `weights: given`"
        )


def _check_names(names: Iterable[str], known: tuple[str, ...], where: str) -> None:
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(f"{where} holds {unknown[0]!r}; known are {', '.join(known)}")


def _check_shares(shares: Mapping[str, float], where: str, meaning: str) -> None:
    for name, share in shares.items():
        if not (math.isfinite(share) and share >= 0):
            raise ConfigError(f"{where}.{name} is {share}; a {meaning} is 0 or more")
    if not math.fsum(shares.values()):
        raise ConfigError(f"{where}: nothing is drawn, a {meaning} above 0 is needed")


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
    if optimiser.schedule == "stable" and optimiser.warmup + optimiser.decay > 1:
        raise ConfigError(
            f"{where}: warmup {optimiser.warmup} and decay {optimiser.decay} are shares of the "
            "same steps; together they must not exceed 1"
        )
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
    named = {f.name: f.metadata["items"] for f in fields(default) if "items" in f.metadata}
    values = {}
    for key, value in content.items():
        if key not in known:
            raise ConfigError(f"{where}: unknown key {key!r}; known are {', '.join(known)}")
        inside = f"{where}: {key}"
        values[key] = _value(known[key], value, inside)
        if key in named:
            values[key] = {
                str(name): _value(named[key], item, f"{inside}: {name}")
                for name, item in value.items()
            }
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
