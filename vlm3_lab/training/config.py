# SPDX-License-Identifier: Apache-2.0
"""The recipe of a training run, read from a YAML file (`config/training/*.yaml`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, get_args

import yaml

from vlm3_lab.scenes import KINDS
from vlm3_lab.training.tasks import TASKS
from vlm3_ros.datasets.opening import FORMATS, SourceOptions
from vlm3_ros.engines.profiles import PAPER_PROFILE, shipped_profile
from vlm3_ros.errors import Vlm3Error
from vlm3_ros.geometry.calibration_files import GivenCamera
from vlm3_ros.geometry.camera import Axes, Fit
from vlm3_ros.language.prompts import load_prompt_set
from vlm3_ros.language.templates import PromptError
from vlm3_ros.paths import shipped_profiles

WARMUP_TASKS = {"warmup": "depth", "object_warmup": "objects", "pair_warmup": "pairs"}
"""The task that each warm-up prepares."""


class TrainingError(Vlm3Error):
    """A training that cannot start or continue."""


class ConfigError(Vlm3Error, ValueError):
    """An unusable training configuration; the message names the file and the key."""


class _Check(NamedTuple):
    """A condition on a value, and the advice if it does not hold."""

    holds: Callable[[Any], bool]
    advice: str


def _one_of(*values: str) -> _Check:
    *others, last = values
    return _Check(lambda value: value in values, f"use {', '.join(others)} or {last}")


_POSITIVE = _Check(lambda value: 0 < value < math.inf, "it must be positive and finite")
_NOT_NEGATIVE = _Check(lambda value: 0 <= value < math.inf, "it must not be negative or infinite")
_SHARE = _Check(lambda value: 0 <= value <= 1, "it must be in [0, 1]")


def _or_none(check: _Check) -> _Check:
    return _Check(lambda value: value is None or check.holds(value), check.advice)


def _checked(default: object, check: _Check) -> Any:
    """A field whose value must pass a check."""
    return field(default=default, metadata={"check": check})


def _values_like(item: object) -> dict[str, object]:
    """Metadata of a field that maps names of the user's choice to values like `item`."""
    return {"item": item}


@dataclass(frozen=True)
class ProfileConfig:
    """How the checkpoint is asked, see `vlm3_ros.engines.base.Profile`.

    A file may give the `name` of a shipped profile, by default "vlm3"; parts that it leaves out are
    those of that profile. `focal`, `longest_side`: px, one of them is None. `prompts`: name of a
    prompt set, or a JSON file.
    """

    focal: float | None = _checked(1000.0, _or_none(_POSITIVE))
    longest_side: int | None = _checked(None, _or_none(_POSITIVE))
    axes: str = _checked("each", _one_of(*get_args(Axes)))
    fit: str = _checked("scale", _one_of(*get_args(Fit)))
    prompts: str = "vlm3"
    max_new_tokens: int = _checked(128, _POSITIVE)


@dataclass(frozen=True)
class SourceConfig:
    """Where scenes come from: procedural, or a data set.

    Procedural: `kinds` of scene, all if empty; `scenes` limits them to this many different ones, 0
    for always new ones. Data set: its path by its format, one of `datasets.opening.FORMATS`
    (`dataset`: a folder made by `vlm3 dataset`); `images`: the folder of its images, where they
    lie elsewhere; `scene_list`: a file with the names of the scenes to use; `camera` or `hfov`: a
    calibration file or the horizontal field of view in degrees of all images, where the data set
    does not say it (for `spatialrgpt`, `camera` may be a .jsonl of the intrinsics of each image);
    its `frames`, "train", "held_out" or "all".
    """

    kinds: tuple[str, ...] = ()
    scenes: int = _checked(0, _Check(lambda n: n >= 0, "use 0 for always new scenes, or more"))
    dataset: str = ""
    depthlm: str = ""
    wai: str = ""
    spatialrgpt: str = ""
    tum: str = ""
    folder: str = ""
    images: str = ""
    scene_list: str = ""
    camera: str = ""
    hfov: float = _checked(0.0, _Check(lambda deg: 0 <= deg < 180, "use degrees, below 180"))
    frames: str = _checked("train", _one_of("train", "held_out", "all"))
    weight: float = 1.0

    @property
    def formats(self) -> list[str]:
        """The formats that a path is given for."""
        return [name for name in FORMATS if getattr(self, name, "")]

    @property
    def format(self) -> str:
        """Format of the data set; "" if procedural."""
        return next(iter(self.formats), "")

    @property
    def path(self) -> Path:
        """File or folder of the data set."""
        return Path(getattr(self, self.format))

    @property
    def options(self) -> SourceOptions:
        """What the format needs besides a path."""
        camera = None
        if self.camera or self.hfov:
            camera = GivenCamera(self.camera or None, self.hfov or None)
        return SourceOptions(
            images=Path(self.images) if self.images else None,
            camera=camera,
            scene_list=Path(self.scene_list) if self.scene_list else None,
        )


@dataclass(frozen=True)
class DataConfig:
    """What is drawn: one stream per `seed`.

    `tasks`: relative shares of the batches, by name (`TASKS`). `sources`: where their scenes come
    from, by names of the user's choice; if empty, new procedural scenes of all kinds. `weights`:
    how often each source is drawn from: by its weight ("given"), all equally ("uniform"), or by
    its number of scenes ("size"); a source of weight 0 is never used.

    Every scene gives `repeats` samples. A sample of a view asks about `questions` pixels, or has
    `object_questions` questions about objects. A sample of a pair of views asks about `matches`
    pixels and, with `pose`, about the motion. `workers`: processes that make the samples.
    """

    tasks: dict[str, float] = field(
        default_factory=lambda: {"depth": 1.0}, metadata=_values_like(0.0)
    )
    sources: dict[str, SourceConfig] = field(
        default_factory=dict, metadata=_values_like(SourceConfig())
    )
    weights: str = _checked("given", _one_of("given", "uniform", "size"))
    questions: int = _checked(10, _POSITIVE)
    object_questions: int = _checked(10, _POSITIVE)
    matches: int = _checked(8, _NOT_NEGATIVE)
    pose: bool = True
    repeats: int = _checked(1, _POSITIVE)
    seed: int = _checked(1, _NOT_NEGATIVE)
    workers: int = _checked(1, _NOT_NEGATIVE)

    def share(self, task: str) -> float:
        """Share of a task in the batches, in [0, 1]."""
        return self.tasks.get(task, 0.0) / math.fsum(self.tasks.values())


@dataclass(frozen=True)
class OptimiserConfig:
    """How weights are updated.

    `name`: "adamw", or "muon" for Muon on matrices and AdamW on the rest. `vision_rate`: learning
    rate of the vision half, as a share of `learning_rate`. `batch_size`: samples per batch and
    process; a step averages over `accumulate` batches of every process. `schedule`: the learning
    rate rises over the first `warmup` share of the steps, then falls along a cosine ("cosine"), or
    stays and falls over the last `decay` share of the steps ("stable"). `clip`: largest norm of
    a gradient.
    """

    name: str = _checked("adamw", _one_of("adamw", "muon"))
    learning_rate: float = _checked(1e-3, _POSITIVE)
    vision_rate: float = _checked(1.0, _NOT_NEGATIVE)
    batch_size: int = _checked(16, _POSITIVE)
    accumulate: int = _checked(1, _POSITIVE)
    steps: int = _checked(10_000, _NOT_NEGATIVE)
    schedule: str = _checked("stable", _one_of("cosine", "stable"))
    warmup: float = _checked(0.03, _SHARE)
    decay: float = _checked(0.3, _SHARE)
    weight_decay: float = _checked(0.01, _NOT_NEGATIVE)
    beta2: float = _checked(0.98, _SHARE)
    clip: float = _checked(1.0, _POSITIVE)


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters that train in place of the weights of linear layers; none at `rank` 0.

    `alpha`: the adapters' output is scaled by `alpha / rank`. `targets`: names of the layers that
    get adapters.
    """

    rank: int = _checked(0, _Check(lambda n: n >= 0, "use 0 to train all weights, or more"))
    alpha: int = _checked(32, _POSITIVE)
    dropout: float = _checked(0.0, _Check(lambda p: 0 <= p < 1, "it must be in [0, 1)"))
    targets: tuple[str, ...] = _checked(
        ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        _Check(
            lambda names: bool(names) and all(isinstance(name, str) for name in names),
            "name at least one layer",
        ),
    )


@dataclass(frozen=True)
class WarmupConfig:
    """Training through layers that are discarded afterwards; none if `optimiser.steps` is 0."""

    data: DataConfig = field(default_factory=DataConfig)
    optimiser: OptimiserConfig = field(default_factory=lambda: OptimiserConfig(steps=0))


@dataclass(frozen=True)
class TrainConfig:
    """A training run.

    `model`: a checkpoint to start from; empty for random weights of the sizes in `shape` (the
    fields of `checkpoint.TinyShape`). `warmup`: dense depth for the vision half. `object_warmup`:
    facts of objects, learned next to questions about them and about depth. `pair_warmup`: dense
    matches, before a model is asked about pairs. `lora`: adapters for the questions; warm-ups
    train all weights. `dtype`: precision of matrix products ("float32", "bfloat16"); weights that
    train stay float32. `gradient_checkpointing`: compute activations twice instead of keeping
    them. `evaluate_every`: steps between checkpoints, each scored on `evaluation_views` unseen
    views.
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
    dtype: str = _checked("bfloat16", _one_of("float32", "bfloat16"))
    gradient_checkpointing: bool = False
    seed: int = _checked(0, _NOT_NEGATIVE)
    evaluate_every: int = _checked(1000, _POSITIVE)
    evaluation_views: int = _checked(80, _NOT_NEGATIVE)

    @property
    def warmups(self) -> dict[str, WarmupConfig]:
        """All warm-ups by key, in the order in which they run; also those without steps."""
        return {key: getattr(self, key) for key in WARMUP_TASKS}

    def learns(self, task: str) -> bool:
        """Whether the run teaches a task, in its questions or in a warm-up."""
        warm = [WARMUP_TASKS[key] for key, part in self.warmups.items() if part.optimiser.steps]
        return bool(self.data.share(task)) or task in warm


def load_config(path: Path | str, settings: Sequence[str] = ()) -> TrainConfig:
    """Read a training configuration.

    Args:
        path: of the YAML file.
        settings: `key.path=value`, each overrides a value of the file; values are YAML.

    Raises:
        ConfigError: if the file cannot be read, or a key or a value is wrong.
    """
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text()) or {}
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected a mapping, found {content!r}")
    for setting in settings:
        _set(content, setting)
    where = f"{path} with {' '.join(settings)}" if settings else str(path)
    config: TrainConfig = _build(TrainConfig(), content, where)
    check(config, f"{where}: ")
    return config


def check(config: Any, where: str) -> None:
    """Check the values of a configuration or of a section of it.

    Args:
        config: one of the dataclasses of this module.
        where: what precedes the name of a key in messages.

    Raises:
        ConfigError: naming the key.
    """
    for declared in fields(config):
        value, name = getattr(config, declared.name), f"{where}{declared.name}"
        rule = declared.metadata.get("check")
        if rule and not rule.holds(value):
            raise ConfigError(f"{name} is {value!r}; {rule.advice}")
        if is_dataclass(value):
            check(value, f"{name}.")
        elif isinstance(declared.metadata.get("item"), SourceConfig):
            for key, source in value.items():
                check(source, f"{name}.{key}.")
    if isinstance(config, ProfileConfig):
        _check_profile(config, where)
    elif isinstance(config, DataConfig):
        _check_data(config, where)
    elif isinstance(config, OptimiserConfig):
        _check_schedule(config, where)
    elif isinstance(config, TrainConfig):
        _check_run(config, where)


def _check_profile(profile: ProfileConfig, where: str) -> None:
    try:
        load_prompt_set(profile.prompts)
    except PromptError as error:
        raise ConfigError(f"{where}prompts: {error}") from error


def _check_run(config: TrainConfig, where: str) -> None:
    if not config.optimiser.steps:
        raise ConfigError(f"{where}optimiser.steps is 0; it must be positive")
    for key, warmup in config.warmups.items():
        tasks = f"{where}{key}.data.tasks"
        if key == "object_warmup":
            if not warmup.data.share("objects") or warmup.data.share("pairs"):
                raise ConfigError(f"{tasks}: this warm-up has objects and, if wanted, depth")
        elif warmup.data.tasks != DataConfig().tasks:
            raise ConfigError(f"{tasks}: this warm-up has a fixed task; remove the key")


def _check_schedule(optimiser: OptimiserConfig, where: str) -> None:
    if optimiser.schedule == "stable" and optimiser.warmup + optimiser.decay > 1:
        raise ConfigError(
            f"{where}warmup {optimiser.warmup} and decay {optimiser.decay} are shares of the same "
            "steps; together they must not exceed 1"
        )


def _check_data(data: DataConfig, where: str) -> None:
    if not data.matches and not data.pose:
        raise ConfigError(f"{where}matches is 0 and pose is false: nothing is asked about pairs")
    _check_names(data.tasks, TASKS, f"{where}tasks")
    _check_shares(data.tasks, f"{where}tasks", "share")
    for name, source in data.sources.items():
        _check_source(source, f"{where}sources.{name}", data.weights)
    if data.sources:
        weights = {f"{name}.weight": source.weight for name, source in data.sources.items()}
        _check_shares(weights, f"{where}sources", "weight")


def _check_source(source: SourceConfig, where: str, weights: str) -> None:
    _check_names(source.kinds, KINDS, f"{where}.kinds")
    formats = source.formats
    if len(formats) > 1:
        raise ConfigError(f"{where} is {' and '.join(formats)}: give each a source of its own")
    if formats and (source.kinds or source.scenes):
        raise ConfigError(
            f"{where} is a data set ({formats[0]}), and kinds or scenes are for procedural scenes"
        )
    if source.frames != "train" and not formats:
        raise ConfigError(f"{where} has frames, and no data set to take them from")
    if source.camera and source.hfov:
        raise ConfigError(f"{where} has camera and hfov: give one of them")
    options = {key: key for key in ("images", "scene_list", "camera")} | {"hfov": "camera"}
    for key, option in options.items():
        takers = [name for name, taken in FORMATS.items() if option in taken.options]
        if getattr(source, key) and source.format not in takers:
            raise ConfigError(f"{where} has {key}, which is for {', '.join(takers)}")
    if weights == "size" and source.weight and not formats and not source.scenes:
        raise ConfigError(
            f"{where} has no size, as it draws always new scenes: set its number of scenes, or "
            "give each source a weight and set `weights: given`"
        )


def _check_names(names: Iterable[str], known: tuple[str, ...], where: str) -> None:
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(f"{where} holds {unknown[0]!r}; known are {', '.join(known)}")


def _check_shares(shares: Mapping[str, float], where: str, meaning: str) -> None:
    for name, share in shares.items():
        if not (math.isfinite(share) and share >= 0):
            raise ConfigError(f"{where}.{name} is {share}; a {meaning} must be 0 or more")
    if not math.fsum(shares.values()):
        raise ConfigError(f"{where}: nothing is drawn; a {meaning} above 0 is needed")


def _set(content: Any, setting: str) -> None:
    """Put one `key.path=value` into the content of a file."""
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


def _build(default: Any, content: Any, where: str) -> Any:
    """Build a dataclass from a mapping; `default` has the values of missing keys."""
    if not isinstance(content, dict):
        raise ConfigError(f"{where}: expected a mapping, found {content!r}")
    declared = {f.name: f for f in fields(default)}
    values = {name: getattr(default, name) for name in declared}
    _check_keys(content, declared, where)
    for key, value in content.items():
        inside = f"{where}: {key}"
        values[key] = _value(values[key], value, inside)
        item = declared[key].metadata.get("item", MISSING)
        if item is not MISSING:
            values[key] = {
                str(name): _value(item, entry, f"{inside}: {name}") for name, entry in value.items()
            }
    return type(default)(**values)


def _check_keys(content: Iterable[Any], known: Iterable[str], where: str) -> None:
    if unknown := [key for key in content if key not in known]:
        raise ConfigError(f"{where}: unknown key {unknown[0]!r}; known are {', '.join(known)}")


def _build_profile(content: Any, where: str) -> ProfileConfig:
    """Build a profile from the parts that are given, and those of the shipped one it names."""
    if not isinstance(content, dict):
        example = "{name: vlm3-pose}"
        raise ConfigError(f"{where}: expected a mapping such as {example}, found {content!r}")
    _check_keys(content, ["name", *(f.name for f in fields(ProfileConfig))], where)
    parts = dict(content)
    name = parts.pop("name", PAPER_PROFILE)
    if name not in shipped_profiles():
        raise ConfigError(f"{where}.name is {name!r}; use one of {', '.join(shipped_profiles())}")
    if {"focal", "longest_side"} <= parts.keys():
        raise ConfigError(f"{where}: give focal or longest_side, not both")
    shipped = shipped_profile(name)
    default = ProfileConfig(
        shipped.focal,
        shipped.longest_side,
        shipped.axes,
        shipped.fit,
        shipped.prompts.name,
        shipped.max_new_tokens,
    )
    # The one that is given replaces the other; the numbers only say of which type it is.
    if "focal" in parts:
        default = replace(default, focal=1.0, longest_side=None)
    elif "longest_side" in parts:
        default = replace(default, focal=None, longest_side=1)
    profile: ProfileConfig = _build(default, parts, where)
    return profile


def _value(default: Any, value: Any, where: str) -> Any:
    if isinstance(default, ProfileConfig):
        return _build_profile(value, where)
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
