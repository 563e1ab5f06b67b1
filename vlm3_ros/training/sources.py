"""Where training scenes come from: rendered, ever new ones or a limited number of them.

A scene is a `View` or a `ViewPair`. Every source draws it with the random numbers that it is
given and nothing else, so that any worker can draw any scene.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from vlm3_ros.synthetic import KINDS, View, sample_view
from vlm3_ros.synthetic.pairs import ViewPair, sample_pair
from vlm3_ros.training.config import DataConfig, SourceConfig

LIMITED_STREAM = 0x7A12
"""First word of the seeds of scenes that are limited in number: those of a source are the same
for every seed of a training, as a dataset is."""

Scene = TypeVar("Scene")


class Source(ABC, Generic[Scene]):
    """Draws scenes.

    `size`: how many different ones there are; None without end.
    """

    name: str
    size: int | None

    @abstractmethod
    def draw(self, rng: np.random.Generator, is_enough: Callable[[Scene], bool]) -> Scene:
        """A scene of which there is enough to ask about."""


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
        while True:
            scene = self._render(rng, self._kinds[rng.integers(len(self._kinds))])
            if is_enough(scene):
                return scene


class MixedScenes(Generic[Scene]):
    """Scenes of several sources, drawn from each as often as its weight says."""

    def __init__(self, sources: Sequence[Source[Scene]], weights: ArrayLike):
        self._sources = tuple(sources)
        self._shares = np.asarray(weights, dtype=float) / np.sum(weights)

    def draw(self, rng: np.random.Generator, is_enough: Callable[[Scene], bool]) -> Scene:
        """A scene of which there is enough to ask about."""
        return self._sources[rng.choice(len(self._sources), p=self._shares)].draw(rng, is_enough)


class Sources:
    """The sources that a `data` section of a configuration names."""

    def __init__(self, data: DataConfig):
        named = data.sources or {"procedural": SourceConfig()}
        is_given = data.weights == "given"
        self._named = {n: source for n, source in named.items() if source.weight or not is_given}
        self._weights = data.weights

    def views(self) -> MixedScenes[View]:
        """Single views."""
        return self._mixed(sample_view)

    def pairs(self, gaps: tuple[int, int]) -> MixedScenes[ViewPair]:
        """Pairs of views; rendered ones as far apart as `synthetic.pairs.sample_pair` says."""
        return self._mixed(partial(sample_pair, gaps=gaps))

    def _mixed(self, render: Callable[[np.random.Generator, str], Scene]) -> MixedScenes[Scene]:
        sources = [RenderedScenes(name, config, render) for name, config in self._named.items()]
        weights = {
            "given": [self._named[source.name].weight for source in sources],
            "uniform": [1.0 for _ in sources],
            "size": [float(source.size or 0) for source in sources],
        }
        return MixedScenes(sources, weights[self._weights])
