# SPDX-License-Identifier: Apache-2.0
"""A checkpoint on procedural scenes: all tasks that it learned, as one result with pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from vlm3_lab.studies.task_evaluation import Calibrated, SceneSettings, TaskEvaluation
from vlm3_lab.studies.tasks import task_evaluations
from vlm3_ros.engines.base import Engine
from vlm3_ros.evaluation.parts.base import (
    Evaluation,
    Part,
    ProgressBar,
    Tasks,
    evaluate_parts,
    model_keys,
)
from vlm3_ros.evaluation.result import Result, joined_names


@dataclass(frozen=True)
class SceneEvaluation(Evaluation):
    """Scores on the scenes of a seed; `settings`: what was asked."""

    settings: SceneSettings


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
        NoAnswersError: if too few questions were answered.
    """
    kinds = [_kind(kind, settings, bar) for kind in task_evaluations()]
    return SceneEvaluation(**vars(evaluate_parts(engines, names, kinds)), settings=settings)


def _kind(
    kind: type[TaskEvaluation], settings: SceneSettings, bar: ProgressBar
) -> tuple[Tasks, Callable[[Mapping[str, Engine]], Part]]:
    return kind.tasks, lambda engines: kind.evaluate(engines, settings, bar)


def calibrate_on_scenes(
    engines: Mapping[str, Engine], evaluation: SceneEvaluation, bar: ProgressBar
) -> tuple[SceneEvaluation, list[Calibrated]]:
    """Check the measured uncertainties on as many scenes of the next seed.

    Returns:
        The evaluation with the checks, and what to store in the profiles of the checkpoints.
    """
    settings = replace(evaluation.settings, seed=evaluation.settings.seed + 1)
    parts: list[Part] = []
    stored: list[Calibrated] = []
    for part in evaluation.parts:
        assert isinstance(part, TaskEvaluation)
        checked, calibrated = part.calibrated(engines, settings, bar)
        parts.append(checked)
        stored += calibrated
    return replace(evaluation, parts=tuple(parts)), stored


def scene_result(evaluation: SceneEvaluation) -> Result:
    """Return the result of an evaluation."""
    names = evaluation.names
    seed = evaluation.settings.seed
    return Result(
        models=model_keys(names),
        title=f"{joined_names(names.values())} on procedural scenes, seed {seed}",
        source={"kind": "scenes", "name": "procedural scenes", "seed": seed},
        scores=evaluation.scores,
        left_out=evaluation.left_out,
        answers=evaluation.answers,
    )
