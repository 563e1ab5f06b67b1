# SPDX-License-Identifier: Apache-2.0
"""Frames with truth, whatever format they are stored in: what evaluation and training draw from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlm3_ros.datasets.covisibility import (
    MIN_COVISIBILITY,
    ReducedFrame,
    covisibility,
    reduced_frame,
)
from vlm3_ros.datasets.views import PairLabels, View

CANDIDATES = 8
"""Frames that are read in search of one that shows enough of the same as another one."""

REACH = 40
"""Largest distance, in frames of a scene, between the frames of a pair that is searched."""


@dataclass(frozen=True)
class Contents:
    """What is known about frames before they are read, shape (n,) each.

    One byte per fact and frame, as sources may hold millions.

    Attributes:
        has_depth: depth in metres is known, everywhere or at some pixels.
        has_pose: the pose of the camera in its scene is known.
        has_objects: objects or questions about them are known.
        is_held_out: the frame is kept for evaluation.
    """

    has_depth: NDArray[np.bool_]
    has_pose: NDArray[np.bool_]
    has_objects: NDArray[np.bool_]
    is_held_out: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.has_depth)


Read = Callable[[int], View | None]
"""Reads a frame; None if it cannot be read."""


@dataclass(frozen=True)
class Pairs:
    """Pairs of frames that show enough of the same.

    Attributes:
        first: the first frame of each pair, or each frame that others can be paired with, shape
            (n,), indices of frames.
        second: takes a number from 0 to n - 1, random numbers, and how to read a frame, in case
            that it must look; returns the index of the second frame, None if there is none.
        labels: takes such a number; returns the pixels that an evaluation asks about, None for any.
    """

    first: NDArray[np.int64]
    second: Callable[[int, np.random.Generator, Read], int | None]
    labels: Callable[[int], PairLabels | None] = lambda number: None

    def __len__(self) -> int:
        return len(self.first)


class FrameSource(ABC):
    """Frames with truth of one data set.

    Attributes:
        name: its file or folder, for messages and reports.
        contents: what is known about each frame without reading it.
        notes: what a reader of a report must know, such as what was left out and why.
        has_conversations: whether its views have questions in the data set's own words.
    """

    name: str
    contents: Contents
    notes: list[str]
    has_conversations: bool = False

    @abstractmethod
    def read(self, index: int) -> View:
        """Read a frame.

        Raises:
            DatasetError: naming the file that cannot be read.
        """

    def pairs(self, min_covisibility: float | None = None) -> Pairs:
        """Return pairs of frames of the same scene and split; none by default.

        `min_covisibility`: least share of each frame that the other one shows; None for all pairs
        that the data set lists, or `MIN_COVISIBILITY` where it lists none.
        """
        return listed_pairs([])

    def frame_name(self, index: int) -> str:
        """Return what a frame is called in messages and in lists of pairs: its number by default.

        Its end, from a "/" on, may stand for it where that is unique.
        """
        return str(index)


def listed_pairs(pairs: ArrayLike) -> Pairs:
    """Return pairs that are known, indices of frames, shape (n, 2)."""
    first, second = np.asarray(pairs, dtype=np.int64).reshape(-1, 2).T
    return Pairs(first, lambda number, rng, read: int(second[number]))


def sought_pairs(
    source: FrameSource, scenes: ArrayLike, min_covisibility: float | None = None
) -> Pairs:
    """Return pairs that are found by depth and poses when they are drawn.

    Args:
        source: its frames of a scene follow each other.
        scenes: number of the scene of each frame, shape (n,); frames of a negative one are in no
            pair.
        min_covisibility: see `FrameSource.pairs`.
    """
    scene = np.asarray(scenes)
    least = MIN_COVISIBILITY if min_covisibility is None else min_covisibility
    contents = source.contents
    is_usable = contents.has_pose & (scene >= 0)
    firsts = np.flatnonzero(is_usable)

    def second(number: int, rng: np.random.Generator, read: Read) -> int | None:
        first = int(firsts[number])
        near = np.arange(max(0, first - REACH), min(len(scene), first + REACH + 1))
        is_mate = (
            is_usable[near]
            & (scene[near] == scene[first])
            & (contents.is_held_out[near] == contents.is_held_out[first])
            & (near != first)
        )
        view = read(first)
        if view is None:
            return None
        one, mates = reduced_view(view), near[is_mate]
        share = 1 / np.abs(mates - first)  # those nearby show more of the same
        count = min(CANDIDATES, len(mates))
        chosen = rng.choice(mates, count, replace=False, p=share / share.sum()) if count else mates
        for candidate in chosen.tolist():
            other = read(candidate)
            if other is not None and covisibility(one, reduced_view(other)) >= least:
                return int(candidate)
        return None

    return Pairs(firsts, second)


def reduced_view(view: View) -> ReducedFrame:
    """Reduce a view, to compare it with others."""
    return reduced_frame(view.camera, view.depth, view.T_world_camera)
