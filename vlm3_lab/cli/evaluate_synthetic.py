# SPDX-License-Identifier: Apache-2.0
"""`vlm3 evaluate --synthetic`: score a checkpoint on procedural scenes."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from vlm3_ros.cli.model_options import loaded_engines
from vlm3_ros.engines.profiles import PROFILE_FILE, write_profile
from vlm3_ros.engines.settings import given_settings, model_name, model_setting, task_settings
from vlm3_ros.errors import CommandError
from vlm3_ros.paths import Task

if TYPE_CHECKING:
    from vlm3_lab.studies.task_evaluation import Calibrated

TASKS: tuple[Task, ...] = get_args(Task)

_CALIBRATED: tuple[Task, ...] = ("depth", "pose", "correspondence")


def evaluate_on_scenes(options: argparse.Namespace) -> int:
    """Score depth, and the other tasks that the checkpoint learned; return the exit status."""
    from rich.console import Console

    from vlm3_lab.studies.rerun_views import log_views
    from vlm3_lab.studies.scene_evaluation import (
        calibrate_on_scenes,
        evaluate_scenes,
        scene_result,
    )
    from vlm3_lab.studies.task_evaluation import SceneSettings
    from vlm3_lab.studies.tasks.depth import Evaluation as DepthEvaluation
    from vlm3_ros.cli.progress import progress_bar
    from vlm3_ros.evaluation.output import print_result, write_result
    from vlm3_ros.evaluation.parts.base import draw_pictures

    models = given_settings(vars(options))
    folders = {task: task_settings(models, task).model for task in TASKS}
    if options.calibrate:
        for task in _CALIBRATED:
            if not (folders[task] and Path(folders[task]).is_dir()):
                raise CommandError(
                    "--calibrate stores its result in a checkpoint folder, not "
                    f"{folders[task] or options.engine} ({model_setting(task)})"
                )
    options.out.mkdir(parents=True, exist_ok=True)
    settings = SceneSettings(
        options.synthetic, options.seed, options.pixels, options.matches, options.focal
    )
    calibrated: list[Calibrated] = []
    with loaded_engines(options, *TASKS) as engines:
        names = {task: model_name(one.name) for task, one in engines.items()}
        evaluation = evaluate_scenes(engines, names, settings, progress_bar)
        if options.rerun is not None:
            for part in evaluation.parts:
                if isinstance(part, DepthEvaluation):
                    views = part.depth.overall.views
                    log_views(engines["depth"], options.seed, views, options.rerun, options.focal)
        if options.calibrate:
            evaluation, calibrated = calibrate_on_scenes(engines, evaluation, progress_bar)
        profiles = {Path(folders[task]): engines[task].profile for task in TASKS}
    result = scene_result(evaluation)
    pictures = draw_pictures(evaluation.parts, evaluation.names, options.out)
    wrote = [*write_result(result, options.out, list(pictures.values())), *pictures]
    print_result(Console(highlight=False), result)
    for found in calibrated:
        folder = Path(folders[found.task])
        profiles[folder] = replace(profiles[folder], **found.changes)
        write_profile(folder, profiles[folder])
        check = f"; {found.check}" if found.check else ""
        print(f"stored {found.what} in {folder / PROFILE_FILE}{check}")
    print(f"wrote {', '.join(wrote)} to {options.out}")
    if options.rerun is not None:
        print(f"wrote {options.rerun}: look at it with `rerun {options.rerun}`")
    return 0
