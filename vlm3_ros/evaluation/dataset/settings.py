# SPDX-License-Identifier: Apache-2.0
"""What is asked about a data set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from vlm3_ros.evaluation.scores.base import Scores, TaskScores

MOST_GROUPS = 20
"""Scenes up to which there are scores of each."""

S = TypeVar("S", bound=Scores)


@dataclass(frozen=True)
class DataSettings:
    """What is asked.

    Attributes:
        frames: number of frames for depth, and of pairs; None for all.
        pixels: asked in each frame; None for all labelled ones, or some where none are labelled.
        matches: pixels asked in each pair; None likewise.
        seed: of what is drawn at random.
        view_focal: focal length at which images enter the model for depth, px; None for the
            checkpoint's.
    """

    frames: int | None = None
    pixels: int | None = None
    matches: int | None = None
    seed: int = 0
    view_focal: float | None = None


def by_few_groups(scores: TaskScores[S]) -> TaskScores[S]:
    """Drop the scores of scenes if there is one alone, or too many to look at."""
    is_few = 1 < len(scores.groups) <= MOST_GROUPS
    return scores if is_few else TaskScores(scores.overall)
