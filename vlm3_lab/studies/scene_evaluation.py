# SPDX-License-Identifier: Apache-2.0
"""A checkpoint on procedural scenes: all tasks that it learned, as one result with pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from vlm3_lab.studies.task_evaluation import (
    Calibrated,
    ProgressBar,
    SceneSettings,
    TaskEvaluation,
)
from vlm3_lab.studies.tasks import task_evaluations
from vlm3_ros.engines.base import Engine
from vlm3_ros.evaluation.result import Result
from vlm3_ros.evaluation.scores.base import Scores, TaskScores
from vlm3_ros.paths import Task


@dataclass(frozen=True)
class SceneEvaluation:
    """Scores on the scenes of a seed.

    Attributes:
        names: of the checkpoints that answered about images ("depth") and about pairs.
        settings: what was asked.
        parts: of the tasks that the checkpoints learned.
        left_out: why tasks have no scores.
    """

    names: Mapping[Task, str]
    settings: SceneSettings
    parts: tuple[TaskEvaluation, ...]
    left_out: Mapping[str, str]


def evaluate_scenes(
    engines: Mapping[Task, Engine],
    names: Mapping[Task, str],
    settings: SceneSettings,
    bar: ProgressBar,
) -> SceneEvaluation:
    """Ask about the scenes of one seed, and score the answers.

    Args:
        engines: that answer about images ("depth") and about pairs; both may be the same.
        names: of both.
        settings: what is asked.
        bar: shows the progress.
    """
    parts: list[TaskEvaluation] = []
    left_out: dict[str, str] = {}
    for kind in task_evaluations():
        if kind.is_learned(engines[kind.checkpoint]):
            part = kind.evaluate(engines[kind.checkpoint], settings, bar)
            parts.append(part)
            left_out |= part.left_out()
        else:
            titles = " and ".join(task.title for task in kind.tasks)
            reason = f"{names[kind.checkpoint]} did not learn {titles}"
            left_out |= {task.name: reason for task in kind.tasks}
    return SceneEvaluation(names, settings, tuple(parts), left_out)


def calibrate_on_scenes(
    engines: Mapping[Task, Engine], evaluation: SceneEvaluation, bar: ProgressBar
) -> tuple[SceneEvaluation, list[tuple[Task, Calibrated]]]:
    """Check the measured uncertainties on as many scenes of the next seed.

    Returns:
        The evaluation with the checks, and what to store in the profile of which checkpoint.
    """
    settings = replace(evaluation.settings, seed=evaluation.settings.seed + 1)
    parts, stored = [], []
    for part in evaluation.parts:
        checked, calibrated = part.calibrated(engines[part.checkpoint], settings, bar)
        parts.append(checked)
        if calibrated is not None:
            stored.append((part.checkpoint, calibrated))
    return replace(evaluation, parts=tuple(parts)), stored


def scene_result(evaluation: SceneEvaluation) -> Result:
    """Return the result of an evaluation."""
    name, pair_name = evaluation.names["depth"], evaluation.names["pairs"]
    scores: dict[str, TaskScores[Scores]] = {}
    for part in evaluation.parts:
        scores |= part.scores()
    both = name if name == pair_name else f"{name} and {pair_name}"
    seed = evaluation.settings.seed
    return Result(
        models={"model": name, "pair_model": pair_name},
        title=f"{both} on procedural scenes, seed {seed}",
        source={"kind": "scenes", "name": "procedural scenes", "seed": seed},
        scores=scores,
        left_out=evaluation.left_out,
    )


def draw_pictures(evaluation: SceneEvaluation, out: Path) -> dict[str, str]:
    """Draw the pictures of all tasks.

    Returns:
        Titles by the names of the files.
    """
    by_task = [part.pictures(evaluation.names[part.checkpoint]) for part in evaluation.parts]
    first = [picture for pictures in by_task for picture in pictures[:1]]
    others = [picture for pictures in by_task for picture in pictures[1:]]
    for picture in (*first, *others):
        picture.draw(out / picture.file)
    return {picture.file: picture.title for picture in (*first, *others)}
