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
from vlm3_ros.engines.base import Engine, EngineError
from vlm3_ros.evaluation.result import Result, joined_names
from vlm3_ros.evaluation.scores.base import Scores, TaskScores
from vlm3_ros.tasks.learned import has_learned


@dataclass(frozen=True)
class SceneEvaluation:
    """Scores on the scenes of a seed.

    Attributes:
        names: of the checkpoints that answered, by the name of their task.
        settings: what was asked.
        parts: of the tasks that the checkpoints learned.
        left_out: why tasks have no scores.
    """

    names: Mapping[str, str]
    settings: SceneSettings
    parts: tuple[TaskEvaluation, ...]
    left_out: Mapping[str, str]


def evaluate_scenes(
    engines: Mapping[str, Engine],
    names: Mapping[str, str],
    settings: SceneSettings,
    bar: ProgressBar,
) -> SceneEvaluation:
    """Ask about the scenes of one seed, and score the answers.

    Args:
        engines: by the name of their task; tasks may share one.
        names: of their checkpoints.
        settings: what is asked.
        bar: shows the progress.

    Raises:
        EngineError: if no model learned its task.
    """
    parts: list[TaskEvaluation] = []
    left_out: dict[str, str] = {}
    for kind in task_evaluations():
        missing = [task for task in kind.tasks if not has_learned(engines[task.name], task)]
        for name in dict.fromkeys(names[task.name] for task in missing):
            tasks = [task for task in missing if names[task.name] == name]
            reason = f"{name} did not learn {' and '.join(task.title for task in tasks)}"
            left_out |= {task.name: reason for task in tasks}
        if len(missing) < len(kind.tasks):
            part = kind.evaluate(engines, settings, bar)
            parts.append(part)
            left_out |= part.left_out()
    if not parts:
        raise EngineError("; ".join(dict.fromkeys(left_out.values())))
    return SceneEvaluation(names, settings, tuple(parts), left_out)


def calibrate_on_scenes(
    engines: Mapping[str, Engine], evaluation: SceneEvaluation, bar: ProgressBar
) -> tuple[SceneEvaluation, list[Calibrated]]:
    """Check the measured uncertainties on as many scenes of the next seed.

    Returns:
        The evaluation with the checks, and what to store in the profiles of the checkpoints.
    """
    settings = replace(evaluation.settings, seed=evaluation.settings.seed + 1)
    parts: list[TaskEvaluation] = []
    stored: list[Calibrated] = []
    for part in evaluation.parts:
        checked, calibrated = part.calibrated(engines, settings, bar)
        parts.append(checked)
        stored += calibrated
    return replace(evaluation, parts=tuple(parts)), stored


def scene_result(evaluation: SceneEvaluation) -> Result:
    """Return the result of an evaluation."""
    names = evaluation.names
    scores: dict[str, TaskScores[Scores]] = {}
    for part in evaluation.parts:
        scores |= part.scores()
    models = {"model": names["depth"], "pair_model": names["pose"]}
    for key, task, common in (
        ("match_model", "correspondence", "pair_model"),
        ("object_model", "objects", "model"),
    ):
        if names[task] != models[common]:
            models[key] = names[task]
    seed = evaluation.settings.seed
    return Result(
        models=models,
        title=f"{joined_names(names.values())} on procedural scenes, seed {seed}",
        source={"kind": "scenes", "name": "procedural scenes", "seed": seed},
        scores={task: score for task, score in scores.items() if task not in evaluation.left_out},
        left_out=evaluation.left_out,
    )


def draw_pictures(evaluation: SceneEvaluation, out: Path) -> dict[str, str]:
    """Draw the pictures of all tasks.

    Returns:
        Titles by the names of the files.
    """
    names = evaluation.names
    by_task = [
        part.pictures(joined_names(names[task.name] for task in part.tasks))
        for part in evaluation.parts
    ]
    first = [picture for pictures in by_task for picture in pictures[:1]]
    others = [picture for pictures in by_task for picture in pictures[1:]]
    for picture in (*first, *others):
        picture.draw(out / picture.file)
    return {picture.file: picture.title for picture in (*first, *others)}
