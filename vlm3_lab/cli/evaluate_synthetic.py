# SPDX-License-Identifier: Apache-2.0
"""`vlm3 evaluate --synthetic`: score a checkpoint on procedural scenes."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from vlm3_ros.cli.model_options import loaded_engines, model_name
from vlm3_ros.engines.base import Engine
from vlm3_ros.engines.profiles import PROFILE_FILE, write_profile
from vlm3_ros.errors import CommandError
from vlm3_ros.paths import Task, default_model

if TYPE_CHECKING:
    from vlm3_lab.studies.task_evaluation import Calibrated


def evaluate_on_scenes(options: argparse.Namespace) -> int:
    """Score depth, and the other tasks that the checkpoint learned; return the exit status."""
    from rich.console import Console

    from vlm3_lab.studies.rerun_views import log_views
    from vlm3_lab.studies.scene_evaluation import (
        calibrate_on_scenes,
        draw_pictures,
        evaluate_scenes,
        scene_result,
    )
    from vlm3_lab.studies.task_evaluation import SceneSettings
    from vlm3_lab.studies.tasks.depth import Evaluation as DepthEvaluation
    from vlm3_ros.cli.progress import progress_bar
    from vlm3_ros.evaluation.output import print_result, write_result
    from vlm3_ros.evaluation.pictures.figures import png_source

    folders = {task: Path(options.model or default_model(task)) for task in get_args(Task)}
    if options.calibrate and not folders["depth"].is_dir():
        raise CommandError(
            f"--calibrate stores its result in a checkpoint folder, not {folders['depth']}"
        )
    options.out.mkdir(parents=True, exist_ok=True)
    settings = SceneSettings(
        options.synthetic, options.seed, options.pixels, options.matches, options.focal
    )
    calibrated: list[tuple[Task, Calibrated]] = []
    with loaded_engines(options) as (engine, pair_engine):
        engines: dict[Task, Engine] = {"depth": engine, "pairs": pair_engine}
        names: dict[Task, str] = {task: model_name(one.name) for task, one in engines.items()}
        evaluation = evaluate_scenes(engines, names, settings, progress_bar)
        if options.rerun is not None:
            depth = next(part for part in evaluation.parts if isinstance(part, DepthEvaluation))
            views = depth.depth.overall.views
            log_views(engine, options.seed, views, options.rerun, options.focal)
        if options.calibrate:
            evaluation, calibrated = calibrate_on_scenes(engines, evaluation, progress_bar)
        profiles = {folders[task]: one.profile for task, one in engines.items()}
    result = scene_result(evaluation)
    pictures = draw_pictures(evaluation, options.out)
    sources = [(t, png_source((options.out / name).read_bytes())) for name, t in pictures.items()]
    wrote = [*write_result(result, options.out, sources), *pictures]
    print_result(Console(highlight=False), result)
    for task, found in calibrated:
        folder = folders[task]
        profiles[folder] = replace(profiles[folder], **found.changes)
        write_profile(folder, profiles[folder])
        check = f"; {found.check}" if found.check else ""
        print(f"stored {found.what} in {folder / PROFILE_FILE}{check}")
    print(f"wrote {', '.join(wrote)} to {options.out}")
    if options.rerun is not None:
        print(f"wrote {options.rerun}: look at it with `rerun {options.rerun}`")
    return 0
