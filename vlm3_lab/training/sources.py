# SPDX-License-Identifier: Apache-2.0
"""Where training scenes come from: rendered, as many as wanted or a limited number, or recorded.

A scene is a `View` or a `ViewPair`. Every source draws it with the random numbers that it is
given and nothing else, so that any worker can draw any scene.
"""

from __future__ import annotations

import logging
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from ctypes import c_bool
from dataclasses import dataclass
from functools import partial
from multiprocessing.sharedctypes import RawArray
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlm3_lab.datasets.pairs import matches
from vlm3_lab.datasets.reading import Pair, load_dataset, read_view
from vlm3_lab.scenes import KINDS, View, sample_view
from vlm3_lab.scenes.pairs import GAPS, ViewPair, sample_pair
from vlm3_lab.training.config import (
    TASKS,
    ConfigError,
    DataConfig,
    SourceConfig,
    TrainConfig,
    TrainingError,
)
from vlm3_ros.evaluation.depthlm import DatasetError

LIMITED_STREAM = 0x7A12
"""First word of the seeds of scenes that are limited in number: those of a source are the same
for every seed of a training, as a dataset is."""

ATTEMPTS = 6
"""Scenes of a kind that are rendered for one that shows enough, before another kind gets its turn:
or some kinds would be rare where two objects are needed."""

TURNS = 100
"""Kinds that get their turn before a source is given up."""

logger = logging.getLogger(__name__)

Scene = TypeVar("Scene")
Entry = TypeVar("Entry")


class Source(ABC, Generic[Scene]):
    """Draws scenes.

    `size`: how many different ones there are; None without end.
    """

    name: str
    size: int | None

    @abstractmethod
    def draw(self, rng: np.random.Generator, is_enough: Callable[[Scene], bool]) -> Scene:
        """A scene that shows enough to ask about.

        Raises:
            TrainingError: when there seems to be none; names the source.
        """


class RenderedScenes(Source[Scene]):
    """Procedural scenes of some kinds."""

    def __init__(
        self,
        name: str,
        config: SourceConfig,
        render: Callable[[np.random.Generator, str], Scene],
    ):
        self.name, self.size = name, config.scenes or None
        self._kinds, self._render = config.kinds or KINDS, render

    def draw(self, rng: np.random.Generator, is_enough: Callable[[Scene], bool]) -> Scene:
        """See the base class."""
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
            "about: ask fewer questions, or of other kinds of scenes"
        )


class RecordedScenes(Source[Scene], Generic[Scene, Entry]):
    """Scenes of a dataset folder.

    `read`: makes a scene of an entry, None where it cannot.
    """

    def __init__(self, name: str, entries: Sequence[Entry], read: Callable[[Entry], Scene | None]):
        self.name, self.size = name, len(entries)
        self._entries, self._read = entries, read
        self._is_useless = np.zeros(len(entries), dtype=bool)

    def draw(self, rng: np.random.Generator, is_enough: Callable[[Scene], bool]) -> Scene:
        """See the base class."""
        while not self._is_useless.all():
            number = int(rng.integers(len(self._entries)))
            if self._is_useless[number]:
                continue
            scene = self._read(self._entries[number])
            if scene is not None and is_enough(scene):
                return scene
            self._is_useless[number] = True
        raise TrainingError(
            f"source {self.name}: of {self.size} scenes, none can be read and shows enough to ask "
            "about"
        )


class MixedScenes(Generic[Scene]):
    """Scenes of several sources, drawn from each as often as its weight says.

    `without`: names of sources that have none of these scenes.
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
        """A scene that shows enough to ask about."""
        return self._sources[rng.choice(len(self._sources), p=self._shares)].draw(rng, is_enough)


@dataclass(frozen=True)
class RecordedPair(ViewPair):
    """Two frames of a dataset: their depth is measured, and has errors and holes."""

    def matches(self, pixels1: ArrayLike) -> NDArray[np.float64]:
        """See the base class."""
        return matches(self.first, self.second, pixels1)


class Recording:
    """The frames of a dataset folder that are in use.

    An image that cannot be read is named once and counted, whichever worker finds it.
    """

    def __init__(self, name: str, config: SourceConfig):
        self.name, self._split = name, config.frames
        self._dataset = load_dataset(config.dataset)
        self._is_unreadable = RawArray(c_bool, len(self._dataset.frames))

    def frames(self, task: str) -> list[int]:
        """Places of the frames that a task can ask about."""
        return [
            place
            for place, frame in enumerate(self._dataset.frames)
            if self._has(frame.split)
            and (task != "objects" or (frame.objects and frame.T_world_camera is not None))
        ]

    def pairs(self) -> list[Pair]:
        """The pairs of frames."""
        return [pair for pair in self._dataset.pairs if self._has(pair.split)]

    def view(self, place: int) -> View | None:
        """A frame; None where it cannot be read."""
        if self._is_unreadable[place]:
            return None
        try:
            return read_view(self._dataset, place)
        except DatasetError as error:
            self._is_unreadable[place] = True
            logger.warning("source %s: %s; other scenes are drawn", self.name, error)
            return None

    def pair(self, pair: Pair) -> ViewPair | None:
        """Two frames; None where one cannot be read."""
        first, second = self.view(pair.first), self.view(pair.second)
        return None if first is None or second is None else RecordedPair(first, second)

    def log_unreadable(self) -> None:
        """Say how many images could not be read, if any."""
        if unreadable := sum(self._is_unreadable):
            logger.warning(
                "source %s: %d of %d images could not be read",
                self.name,
                unreadable,
                len(self._dataset.frames),
            )

    def _has(self, split: str) -> bool:
        return self._split in (split, "all")


class Sources:
    """The sources that a `data` section of a configuration names.

    Raises:
        ConfigError: when a dataset folder cannot be read; names the key, which `where` begins.
    """

    def __init__(self, data: DataConfig, where: str = "data"):
        named = data.sources or {"procedural": SourceConfig()}
        self._named = {name: source for name, source in named.items() if source.weight}
        self._weights, self._where = data.weights, where
        self._recordings = {
            name: self._recording(name, config)
            for name, config in self._named.items()
            if config.dataset
        }

    def views(self, task: str) -> MixedScenes[View]:
        """Single views that a task can ask about.

        Raises:
            ConfigError: when no source has any.
        """
        recorded = {
            name: RecordedScenes(name, recording.frames(task), recording.view)
            for name, recording in self._recordings.items()
        }
        return self._mixed(task, sample_view, recorded)

    def pairs(self, gaps: tuple[int, int]) -> MixedScenes[ViewPair]:
        """Pairs of views.

        Args:
            gaps: how far apart rendered ones are, see `synthetic.pairs.sample_pair`.

        Raises:
            ConfigError: when no source has any.
        """
        recorded = {
            name: RecordedScenes(name, recording.pairs(), recording.pair)
            for name, recording in self._recordings.items()
        }
        return self._mixed("pairs", partial(sample_pair, gaps=gaps), recorded)

    def log_unreadable(self) -> None:
        """Say how many images of each source could not be read, if any."""
        for recording in self._recordings.values():
            recording.log_unreadable()

    def _recording(self, name: str, config: SourceConfig) -> Recording:
        try:
            return Recording(name, config)
        except DatasetError as error:
            raise ConfigError(f"{self._where}.sources.{name}.dataset: {error}") from error

    def _mixed(
        self,
        task: str,
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
                f"{self._where}.tasks asks for {task}, but {', '.join(recorded)} has no "
                f"{_MISSING[task]}"
            )
        weights = {
            "given": [self._named[source.name].weight for source in sources],
            "uniform": [1.0 for _ in sources],
            "size": [float(source.size or 0) for source in sources],
        }
        without = [name for name, source in recorded.items() if not source.size]
        return MixedScenes(sources, weights[self._weights], without)


_MISSING = {
    "depth": "such frames",
    "pairs": "pairs of frames: they are made where poses and depth are known",
    "objects": "frames with boxes of objects and a pose",
}


def check_sources(config: TrainConfig, path: str) -> None:
    """Read the dataset folders of a configuration, and log what will be drawn from what.

    Args:
        path: of the configuration, for messages.

    Raises:
        ConfigError: when a folder cannot be read, or a task has no source.
    """
    parts = {"data": (config.data, [task for task in TASKS if config.data.share(task)])}
    if config.warmup.optimiser.steps:
        parts["warmup.data"] = config.warmup.data, ["depth"]
    if config.object_warmup.optimiser.steps:
        data = config.object_warmup.data
        parts["object_warmup.data"] = data, [task for task in TASKS if data.share(task)]
    if config.pair_warmup.optimiser.steps:
        parts["pair_warmup.data"] = config.pair_warmup.data, ["pairs"]
    for key, (data, tasks) in parts.items():
        sources = Sources(data, f"{path}: {key}")
        for task in tasks:
            mixed = sources.pairs(GAPS) if task == "pairs" else sources.views(task)
            logger.info("%s: %s from %s", key, task, mixed)
