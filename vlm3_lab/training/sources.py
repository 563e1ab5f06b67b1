# SPDX-License-Identifier: Apache-2.0
"""Where training scenes come from: rendered (an endless or a limited number), or data sets.

A scene is a `View` or a `ViewPair`. A source draws it from the random numbers it is given and
nothing else, so that any worker can draw any scene.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Mapping, Sequence
from ctypes import c_bool
from functools import cache, partial
from multiprocessing.sharedctypes import RawArray
from typing import Generic, TypeAlias, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlm3_lab.scenes import KINDS, sample_view
from vlm3_lab.scenes.view_pairs import sample_pair
from vlm3_lab.training.config import (
    WARMUP_TASKS,
    ConfigError,
    DataConfig,
    SourceConfig,
    TrainConfig,
    TrainingError,
)
from vlm3_lab.training.tasks import TASKS, task_samples
from vlm3_ros.datasets.opening import FORMATS
from vlm3_ros.datasets.source import Contents
from vlm3_ros.datasets.views import View, ViewPair
from vlm3_ros.errors import DatasetError

LIMITED_STREAM = 0x7A12
"""First word of the seeds of scenes that are limited in number. Those of a source are the same for
every seed of a training, as the frames of a dataset are."""

ATTEMPTS = 6
"""Scenes of one kind that are rendered in search of one that shows enough, before another kind is
drawn. With fewer, kinds that rarely show two objects would be rare in training."""

MATES = 8
"""Frames that are drawn for the second of a pair in search of one that can be read."""

CHANCES = 500
"""Pairs that are drawn from a data set in search of one whose frames show enough of the same."""

TURNS = 100
"""Kinds that are drawn before a source is given up."""

logger = logging.getLogger(__name__)

Scene = TypeVar("Scene")


class RenderedScenes(Generic[Scene]):
    """Procedural scenes. `size`: number of different ones; None if endless."""

    def __init__(
        self,
        name: str,
        config: SourceConfig,
        render: Callable[[np.random.Generator, str], Scene],
    ):
        self.name, self.size = name, config.scenes or None
        self._kinds, self._render = config.kinds or KINDS, render

    def draw(self, rng: np.random.Generator, is_enough: Callable[[Scene], bool]) -> Scene:
        """Draw a scene that shows enough to ask about.

        Raises:
            TrainingError: if none does; names the source.
        """
        if self.size is not None:
            number = int(rng.integers(self.size))
            rng = np.random.default_rng([LIMITED_STREAM, zlib.crc32(self.name.encode()), number])
        for _ in range(TURNS):
            kind = self._kinds[rng.integers(len(self._kinds))]
            for _ in range(ATTEMPTS):
                scene = self._render(rng, kind)
                if is_enough(scene):
                    return scene
        raise TrainingError(
            f"source {self.name}: of {TURNS * ATTEMPTS} rendered scenes, none shows enough to ask "
            "about: ask fewer questions, or choose other kinds of scenes"
        )


class RecordedScenes(Generic[Scene]):
    """Scenes of a data set.

    Attributes:
        size: number of scenes.

    Args:
        draw: makes a scene from its number and random numbers; None if it cannot be read, or if
            these random numbers lead to none.
        is_chance: whether other random numbers may lead to a scene. Otherwise a number that gives
            none is not drawn again.
    """

    def __init__(
        self,
        name: str,
        size: int,
        draw: Callable[[int, np.random.Generator], Scene | None],
        is_chance: bool = False,
    ):
        self.name, self.size = name, size
        self._draw, self._is_chance = draw, is_chance
        self._is_useless = np.zeros(size, dtype=bool)

    def draw(self, rng: np.random.Generator, is_enough: Callable[[Scene], bool]) -> Scene:
        """Draw a scene that shows enough to ask about.

        Raises:
            TrainingError: if none does; names the source.
        """
        failures = 0
        while failures < CHANCES and not self._is_useless.all():
            number = int(rng.integers(self.size))
            if self._is_useless[number]:
                continue
            scene = self._draw(number, rng)
            if scene is not None and is_enough(scene):
                return scene
            # What chance decides is not remembered: a scene would depend on those drawn before it,
            # a resumed run would differ, and every failure would cost a scene for good.
            if self._is_chance:
                failures += 1
            else:
                self._is_useless[number] = True
        raise TrainingError(
            f"source {self.name}: of {self.size} scenes, none can be read and shows enough to ask "
            "about"
        )


Source: TypeAlias = RenderedScenes[Scene] | RecordedScenes[Scene]

Usable: TypeAlias = Callable[[Contents], NDArray[np.bool_]]
"""Which frames of a data set a task can ask about."""


class MixedScenes(Generic[Scene]):
    """Scenes of several sources, each drawn from in proportion to its weight.

    `without`: names of sources that have no such scenes, for the log.
    """

    def __init__(
        self, sources: Sequence[Source[Scene]], weights: ArrayLike, without: Sequence[str]
    ):
        self._sources, self._without = tuple(sources), tuple(without)
        self._shares = np.asarray(weights, dtype=float) / np.sum(weights)

    def __str__(self) -> str:
        parts = [
            f"{source.name} {share:.1%} ({source.size or 'endless'})"
            for source, share in zip(self._sources, self._shares, strict=True)
        ]
        return ", ".join(parts + [f"{name} has none" for name in self._without])

    def draw(self, rng: np.random.Generator, is_enough: Callable[[Scene], bool]) -> Scene:
        """Draw a scene that shows enough to ask about.

        Raises:
            TrainingError: if the drawn source has none.
        """
        return self._sources[rng.choice(len(self._sources), p=self._shares)].draw(rng, is_enough)


class Recorded:
    """The frames of a data set that a source draws from.

    An unreadable image is logged once and counted, whichever worker finds it.
    """

    def __init__(self, name: str, config: SourceConfig):
        self.name = name
        self._source = FORMATS[config.format].open(config.path, config.options)
        contents = self._source.contents
        self._is_kept = {
            "train": ~contents.is_held_out,
            "held_out": contents.is_held_out,
            "all": np.ones(len(contents), bool),
        }[config.frames]
        self._is_unreadable = RawArray(c_bool, len(contents))

    def views(self, usable: Usable) -> RecordedScenes[View]:
        """Return the usable frames."""
        frames = np.flatnonzero(self._is_kept & usable(self._source.contents))
        return RecordedScenes(
            self.name, len(frames), lambda number, rng: self._view(int(frames[number]))
        )

    def pairs(self) -> RecordedScenes[ViewPair]:
        """Return the pairs of frames."""
        pairs = self._source.pairs()
        kept = np.flatnonzero(self._is_kept[pairs.first])

        def draw(number: int, rng: np.random.Generator) -> ViewPair | None:
            read = cache(self._view)  # a search reads frames before it chooses them
            first = read(int(pairs.first[kept[number]]))
            if first is None:
                return None
            for _ in range(MATES):
                index = pairs.second(int(kept[number]), rng, read)
                if index is None:
                    return None
                if (second := read(index)) is not None:
                    return ViewPair(first, second)
            return None

        return RecordedScenes(self.name, len(kept), draw, is_chance=True)

    def log_notes(self) -> None:
        """Log what the data set lacks, and what of it was left out."""
        for note in self._source.notes:
            logger.warning("source %s: %s", self.name, note)

    def log_unreadable(self) -> None:
        """Log how many images could not be read, if any."""
        if unreadable := sum(self._is_unreadable):
            logger.warning(
                "source %s: %d of %d images could not be read",
                self.name,
                unreadable,
                len(self._is_unreadable),
            )

    def _view(self, index: int) -> View | None:
        """Read a frame; None if it cannot be read."""
        if self._is_unreadable[index]:
            return None
        try:
            return self._source.read(index)
        except DatasetError as error:
            self._is_unreadable[index] = True
            logger.warning("source %s: %s; drawing other scenes", self.name, error)
            return None


class Sources:
    """The sources that a `data` section of a configuration names.

    `where`: the section's name, for messages.

    Raises:
        ConfigError: if a dataset folder cannot be read; names the key.
    """

    def __init__(self, data: DataConfig, where: str = "data"):
        named = data.sources or {"procedural": SourceConfig()}
        self._named = {name: source for name, source in named.items() if source.weight}
        self._weights, self._where = data.weights, where
        self._recorded = {
            name: self._opened(name, config)
            for name, config in self._named.items()
            if config.format
        }

    def views(
        self, task: str, missing: str, usable: Usable = lambda contents: contents.has_depth
    ) -> MixedScenes[View]:
        """Single views that a task can ask about.

        Args:
            task: name of the task, for the message.
            missing: what a data set lacks that has no usable frame, for the message.
            usable: which frames of a data set the task can ask about.

        Raises:
            ConfigError: if no source has any.
        """
        recorded = {name: recorded.views(usable) for name, recorded in self._recorded.items()}
        return self._mixed(task, missing, sample_view, recorded)

    def pairs(self, gaps: tuple[int, int]) -> MixedScenes[ViewPair]:
        """Pairs of views.

        Args:
            gaps: how far apart rendered ones are, see `view_pairs.sample_pair`.

        Raises:
            ConfigError: if no source has any.
        """
        recorded = {name: recorded.pairs() for name, recorded in self._recorded.items()}
        missing = "pairs of frames: they are made where poses and depth are known"
        return self._mixed("pairs", missing, partial(sample_pair, gaps=gaps), recorded)

    def log_notes(self) -> None:
        """Log what the data sets lack, and what of them was left out."""
        for recorded in self._recorded.values():
            recorded.log_notes()

    def log_unreadable(self) -> None:
        """Log how many images of each source could not be read, if any."""
        for recorded in self._recorded.values():
            recorded.log_unreadable()

    def _opened(self, name: str, config: SourceConfig) -> Recorded:
        try:
            return Recorded(name, config)
        except DatasetError as error:
            raise ConfigError(f"{self._where}.sources.{name}.{config.format}: {error}") from error

    def _mixed(
        self,
        task: str,
        missing: str,
        render: Callable[[np.random.Generator, str], Scene],
        recorded: Mapping[str, Source[Scene]],
    ) -> MixedScenes[Scene]:
        sources = [
            source
            for name, config in self._named.items()
            if (source := recorded.get(name) or RenderedScenes(name, config, render)).size != 0
        ]
        if not sources:
            raise ConfigError(
                f"{self._where}.tasks asks for {task}, but {', '.join(recorded)} has no {missing}"
            )
        weights = {
            "given": [self._named[source.name].weight for source in sources],
            "uniform": [1.0 for _ in sources],
            "size": [float(source.size or 0) for source in sources],
        }
        without = [name for name, source in recorded.items() if not source.size]
        return MixedScenes(sources, weights[self._weights], without)


def check_sources(config: TrainConfig, path: str) -> None:
    """Read the dataset folders of a configuration, and log what each task will be drawn from.

    Args:
        path: of the configuration, for messages.

    Raises:
        ConfigError: if a folder cannot be read, or a task has no source.
    """
    parts = {"data": (config.data, [task for task in TASKS if config.data.share(task)])}
    for key, warmup in config.warmups.items():
        if warmup.optimiser.steps:
            mixed = [task for task in TASKS if warmup.data.share(task)]
            tasks = mixed if key == "object_warmup" else [WARMUP_TASKS[key]]
            parts[f"{key}.data"] = warmup.data, tasks
    for key, (data, tasks) in parts.items():
        sources = Sources(data, f"{path}: {key}")
        sources.log_notes()
        for task in tasks:
            logger.info("%s: %s from %s", key, task, task_samples(task).scenes(sources))
