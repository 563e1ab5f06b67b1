# SPDX-License-Identifier: Apache-2.0
"""What every task defines to be scored on procedural scenes, see `vlm3_lab.studies.tasks`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from typing_extensions import Self

from vlm3_ros import paths
from vlm3_ros.engines.base import Engine
from vlm3_ros.evaluation.parts.base import Part, ProgressBar


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


class TaskEvaluation(Part):
    """The answers of models about the scenes of one seed, and their scores."""

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
