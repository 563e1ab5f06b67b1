# SPDX-License-Identifier: Apache-2.0
"""Which frames and pairs of a data set are asked about, and which were skipped."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from vlm3_ros.datasets.files import read_json
from vlm3_ros.datasets.source import FrameSource, Pairs, listed_pairs
from vlm3_ros.datasets.views import View, ViewPair
from vlm3_ros.errors import DatasetError
from vlm3_ros.evaluation.scores.base import Scores
from vlm3_ros.evaluation.tables import TextTable

STREAM = 0xE7A4
"""First word of the seeds of what is drawn from data sets."""

_NAMED = 5
"""Skipped frames that a note or an error names; metrics.json has all."""


@dataclass
class FrameReader:
    """Reads the frames of a source, and skips those that cannot be used.

    Attributes:
        source: the data set.
        used: numbers of the frames that were asked about.
        skipped: why other frames, or pairs, were not, by name.
    """

    source: FrameSource
    used: set[int] = field(default_factory=set)
    skipped: dict[str, str] = field(default_factory=dict)

    def view(self, index: int) -> View | None:
        """Read a frame; None, with a reason in `skipped`, if it cannot be read."""
        try:
            return self.source.read(index)
        except DatasetError as error:
            self.skip(self.source.frame_name(index), str(error))
            return None

    def skip(self, name: str, reason: str) -> None:
        """Note why a frame or a pair is not asked about."""
        self.skipped[name] = reason

    def nothing(self, what: str, reason: str) -> DatasetError:
        """Return the error that nothing could be used.

        `reason`: why, if no frame was skipped; otherwise the first ones are named.
        """
        return DatasetError(
            f"{self.source.name}: no {what} could be used: {self._reasons() or reason}"
        )

    def note(self) -> str:
        """Return how many frames and pairs were skipped, and the first ones; "" for none."""
        return f"{len(self.skipped)}: {self._reasons()}" if self.skipped else ""

    def _reasons(self) -> str:
        named = [
            reason if name.rpartition("/")[2] in reason else f"{name}: {reason}"
            for name, reason in list(self.skipped.items())[:_NAMED]
        ]
        return "; ".join([*named, "..."] if len(self.skipped) > _NAMED else named)


@dataclass(frozen=True)
class UsedFrames(Scores):
    """Frames that were asked about, and why others were not, by name."""

    used: int
    skipped: Mapping[str, str]

    @override
    def to_json(self) -> dict[str, Any]:
        return {"used": self.used, "skipped": self.skipped}

    @override
    def tables(self, groups: Mapping[str, UsedFrames]) -> list[TextTable]:
        return []

    @override
    def verdict(self) -> str:
        return f"Skipped: {len(self.skipped)} frames or pairs." if self.skipped else ""


def chosen(usable: NDArray[np.bool_], count: int | None, seed: int) -> list[int]:
    """Choose usable frames at random, in their order; all if `count` is None or too large."""
    frames = np.flatnonzero(usable)
    if count is not None and count < len(frames):
        frames = np.sort(generator(seed).choice(frames, count, replace=False))
    return [int(frame) for frame in frames]


def generator(*seeds: int) -> np.random.Generator:
    """Return the random numbers of a seed, and of a frame or pair."""
    return np.random.default_rng(np.random.SeedSequence([STREAM, *seeds]))


def drawn_pairs(
    reader: FrameReader, pairs: Pairs, numbers: NDArray[np.int64], count: int, seed: int
) -> Iterator[tuple[tuple[int, int], ViewPair]]:
    """Draw pairs at random among these numbers, until there are `count`.

    Yields:
        The numbers of both frames, and the pair.
    """
    found = 0
    for number in generator(seed).permutation(numbers).tolist():
        if found >= count:
            return
        read = cache(reader.view)  # a search reads frames before it chooses them
        one = int(pairs.first[number])
        first = read(one)
        two = None if first is None else pairs.second(number, generator(seed, number), read)
        second = None if two is None else read(two)
        if first is None or two is None or second is None:
            continue
        if first.kind != second.kind:
            reader.skip(
                pair_name(reader.source, (one, two)),
                f"its frames are of two scenes: {first.kind} and {second.kind}",
            )
            continue
        found += 1
        yield (one, two), ViewPair(first, second, pairs.labels(number))


def short_name(source: FrameSource, index: int, scene: str) -> str:
    """Return what a frame is called in pictures; `scene`: "" if there is one alone."""
    return f"{scene} {source.frame_name(index).rpartition('/')[2]}".strip()


def pair_name(source: FrameSource, frames: tuple[int, int]) -> str:
    """Return what a pair is called."""
    return " and ".join(map(source.frame_name, frames))


def read_pairs(path: Path, source: FrameSource) -> Pairs:
    """Read a list of pairs.

    Args:
        path: a JSON list of pairs, `[["a.png", "b.png"], [0, 12]]`: frames by their name, by its
            end (from a "/" on) if that is unique, or by their number from 0.
        source: whose frames they are.

    Raises:
        DatasetError: naming the file, and the pair whose frame does not exist or has no pose.
    """
    listed = read_json(path)
    if not isinstance(listed, list) or not listed:
        raise DatasetError(
            f'{path}: expected a list of pairs, such as [["a.png", "b.png"], [0, 1]]'
        )
    names = _FrameNames(source)
    pairs = []
    for number, pair in enumerate(listed):
        where = f"{path}: pair {number}"
        if not isinstance(pair, list) or len(pair) != 2:
            raise DatasetError(f"{where}: expected two frames, found {json.dumps(pair)}")
        frames = [names.find(frame, where) for frame in pair]
        for frame in frames:
            if not source.contents.has_pose[frame]:
                raise DatasetError(f"{where}: frame {source.frame_name(frame)} has no pose")
        pairs.append(frames)
    return listed_pairs(pairs)


class _FrameNames:
    """Frames by name, by the end of it, and by number."""

    def __init__(self, source: FrameSource):
        self._source = source
        self._by_name: dict[str, list[int]] = {}

    def find(self, frame: Any, where: str) -> int:
        """Return the number of a frame; raise DatasetError if there is none, or several."""
        count = len(self._source.contents)
        if isinstance(frame, int) and not isinstance(frame, bool):
            if not 0 <= frame < count:
                raise DatasetError(
                    f"{where}: there is no frame {frame}: {self._source.name} has {count}"
                )
            return frame
        if not isinstance(frame, str):
            raise DatasetError(f"{where}: {json.dumps(frame)} is no name or number of a frame")
        found = self._named().get(frame, [])
        if len(found) != 1:
            raise DatasetError(
                f"{where}: {self._source.name} has "
                + (
                    f"{len(found)} frames called {frame!r}: give their numbers"
                    if found
                    else f"no frame called {frame!r}; its first one is "
                    f"{self._source.frame_name(0)!r}"
                )
            )
        return found[0]

    def _named(self) -> Mapping[str, Sequence[int]]:
        if not self._by_name:
            for index in range(len(self._source.contents)):
                parts = self._source.frame_name(index).split("/")
                for start in range(len(parts)):
                    self._by_name.setdefault("/".join(parts[start:]), []).append(index)
        return self._by_name
