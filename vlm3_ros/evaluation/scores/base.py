# SPDX-License-Identifier: Apache-2.0
"""What scores of every task offer, and scores by group."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from typing_extensions import Self

from vlm3_ros.evaluation.tables import TextTable

MODEL = "model"
"""Name of the model's row in a table."""


class Scores(ABC):
    """Scores of one task. Everything that is written about a task comes from here."""

    @abstractmethod
    def to_json(self) -> Any:
        """Return the model's entry in metrics.json."""

    def baselines_json(self) -> Mapping[str, Any]:
        """Return the entries of the baselines by name; empty without any."""
        return {}

    @abstractmethod
    def tables(self, groups: Mapping[str, Self]) -> list[TextTable]:
        """Return the tables of these scores and of those by group, which may be empty."""

    def verdict(self) -> str:
        """Return a sentence for the verdict; empty if these scores add nothing to it."""
        return ""


S = TypeVar("S", bound=Scores)
S_co = TypeVar("S_co", bound=Scores, covariant=True)


@dataclass(frozen=True)
class TaskScores(Generic[S_co]):
    """Scores over everything, and by group (a kind of scene); `groups` may be empty."""

    overall: S_co
    groups: Mapping[str, S_co] = field(default_factory=dict)

    def tables(self) -> list[TextTable]:
        """Return all tables of the task."""
        return self.overall.tables(self.groups)


class Grouped(Protocol):
    """Something that belongs to a group; "" for none."""

    @property
    def group(self) -> str:
        """Name of the group."""


G = TypeVar("G", bound=Grouped)
Item = TypeVar("Item")
Sample = TypeVar("Sample")
Scored = TypeVar("Scored")

Progress = Callable[[int, int], None]
"""Takes the number of steps done, and of all."""


def no_progress(done: int, total: int) -> None:
    """Ignore progress."""


def score_samples(
    samples: Iterable[Sample],
    count: int,
    score: Callable[[Sample], Scored],
    progress: Progress = no_progress,
) -> list[Scored]:
    """Score samples one by one.

    Args:
        samples: may be made while they are scored.
        count: number of samples.
        score: asks about a sample and puts the answers next to the truth.
        progress: is called after each sample.
    """
    scored = []
    for done, sample in enumerate(samples, 1):
        scored.append(score(sample))
        progress(done, count)
    return scored


def by_group(items: Iterable[G]) -> dict[str, list[G]]:
    """Sort items into their groups, in order of appearance; items without a group are left out."""
    groups: dict[str, list[G]] = {}
    for item in items:
        if item.group:
            groups.setdefault(item.group, []).append(item)
    return groups


def score_by_group(items: Sequence[G], score: Callable[[Sequence[G]], S]) -> TaskScores[S]:
    """Score all items together, and those of each group."""
    groups = {name: score(members) for name, members in by_group(items).items()}
    return TaskScores(score(items), groups)


def best_median_worst(items: Iterable[Item], error: Callable[[Item], float]) -> dict[str, Item]:
    """Return the items of the smallest, the middle and the largest error; at least one is given."""
    ranked = sorted(items, key=error)
    return {"best": ranked[0], "median": ranked[len(ranked) // 2], "worst": ranked[-1]}


def group_tables(
    title: str,
    columns: Sequence[str],
    overall: S,
    groups: Mapping[str, S],
    cells: Callable[[S], Sequence[str]],
    note: str,
) -> list[TextTable]:
    """Return a table with a row for everything and one per group; none without groups."""
    if not groups:
        return []
    rows = tuple((name, *cells(scores)) for name, scores in {"all": overall, **groups}.items())
    return [TextTable(title, ("", *columns), rows, note)]
