# SPDX-License-Identifier: Apache-2.0
"""What every task defines to be scored on procedural scenes, see `vlm3_lab.studies.tasks`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from typing_extensions import Self

from vlm3_ros import paths
from vlm3_ros.engines.base import Engine
from vlm3_ros.evaluation.answer_counts import AnswerCounts
from vlm3_ros.evaluation.scores.base import Progress, Scores, TaskScores
from vlm3_ros.tasks.task import Task

ProgressBar = Callable[[str], AbstractContextManager[Progress]]
"""Opens a bar with a description."""


@dataclass(frozen=True)
class SceneSettings:
    """What is asked.

    `count`: number of views or pairs per module of `vlm3_lab.studies.tasks`. `pixels`: asked in
    each view. `matches`: asked in each pair. `view_focal`: as in `ask_depth`.
    """

    count: int
    seed: int
    pixels: int
    matches: int
    view_focal: float | None = None


class Picture(NamedTuple):
    """A picture of a report; `draw` writes it to a path as a PNG."""

    file: str
    title: str
    draw: Callable[[Path], None]


@dataclass(frozen=True)
class Calibrated:
    """Values for a checkpoint's profile, measured on scenes.

    `task`: whose checkpoint. `changes`: by field of `Profile`. `what`: these values in words.
    `check`: how they do on the scenes of the next seed; "" if the tables show it.
    """

    task: paths.Task
    changes: Mapping[str, Any]
    what: str
    check: str = ""


class TaskEvaluation(ABC):
    """The answers of models about the scenes of one seed, and their scores.

    Attributes:
        tasks: that are asked.
    """

    tasks: ClassVar[tuple[Task[Any, Any, Any, Any], ...]]

    @classmethod
    @abstractmethod
    def evaluate(
        cls, engines: Mapping[str, Engine], settings: SceneSettings, bar: ProgressBar
    ) -> Self:
        """Ask about the scenes of a seed, and score the answers.

        Args:
            engines: by the name of their task; at least one of `tasks` was learned.
            settings: what is asked.
            bar: shows the progress.
        """

    @abstractmethod
    def scores(self) -> dict[str, TaskScores[Scores]]:
        """Return the scores, by their key in metrics.json, in the order in which they are shown.

        Those of a task that was not learned do not count.
        """

    @abstractmethod
    def answers(self) -> dict[str, AnswerCounts]:
        """Return what became of the questions, by task."""

    def left_out(self) -> dict[str, str]:
        """Return why scores are missing, by their key in metrics.json."""
        return {}

    def pictures(self, model: str) -> list[Picture]:
        """Return what to draw; `model` names the checkpoints.

        The first picture of every task comes before the second one of any.
        """
        return []

    def calibrated(
        self, engines: Mapping[str, Engine], settings: SceneSettings, bar: ProgressBar
    ) -> tuple[Self, list[Calibrated]]:
        """Check measured uncertainties on other scenes.

        Args:
            engines: by the name of their task.
            settings: those of the evaluation, with the next seed.
            bar: shows the progress.

        Returns:
            The evaluation with the check, and what to store in the checkpoints' profiles.
        """
        return self, []
