# SPDX-License-Identifier: Apache-2.0
"""`vlm3 evaluate --synthetic`: score a checkpoint on procedural scenes."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np

from vlm3_ros.cli.model_options import loaded_engines, model_name
from vlm3_ros.engines.base import PROFILE_FILE, Profile, write_profile
from vlm3_ros.errors import CommandError
from vlm3_ros.paths import Task, default_model

if TYPE_CHECKING:
    from rich.console import Console

    from vlm3_lab.studies.scene_evaluation import Calibrated


def evaluate_on_scenes(options: argparse.Namespace) -> int:
    """Score depth, and pairs and objects if the checkpoint learned them; return the exit status."""
    from rich.console import Console

    from vlm3_lab.studies.rerun_views import log_views
    from vlm3_lab.studies.scene_evaluation import (
        SceneSettings,
        calibrate_on_scenes,
        draw_pictures,
        evaluate_scenes,
        scene_result,
    )
    from vlm3_ros.cli.progress import progress_bar
    from vlm3_ros.evaluation.output import print_result, write_result
    from vlm3_ros.evaluation.pictures.figures import png_source

    folders = tuple(Path(options.model or default_model(task)) for task in get_args(Task))
    if options.calibrate and not folders[0].is_dir():
        raise CommandError(
            f"--calibrate stores its result in a checkpoint folder, not {folders[0]}"
        )
    options.out.mkdir(parents=True, exist_ok=True)
    settings = SceneSettings(
        options.synthetic, options.seed, options.pixels, options.matches, options.focal
    )
    console, calibrated = Console(highlight=False), None
    with loaded_engines(options) as engines:
        names = (model_name(engines[0].name), model_name(engines[1].name))
        evaluation = evaluate_scenes(*engines, names, settings, progress_bar)
        if options.rerun is not None:
            views = evaluation.depth.overall.views
            log_views(engines[0], options.seed, views, options.rerun, options.focal)
        if options.calibrate:
            evaluation, calibrated = calibrate_on_scenes(*engines, evaluation, progress_bar)
        profiles = [engine.profile for engine in engines]
    result = scene_result(evaluation)
    pictures = draw_pictures(evaluation, options.out)
    sources = [(t, png_source((options.out / name).read_bytes())) for name, t in pictures.items()]
    wrote = [*write_result(result, options.out, sources), *pictures]
    print_result(console, result)
    if calibrated is not None:
        _store(console, calibrated, folders, profiles)
    console.print(f"wrote {', '.join(wrote)} to {options.out}")
    if options.rerun is not None:
        console.print(f"wrote {options.rerun}: look at it with `rerun {options.rerun}`")
    return 0


def _store(
    console: Console, calibrated: Calibrated, folders: tuple[Path, ...], profiles: list[Profile]
) -> None:
    """Store what calibration found in the checkpoints of depth and of pairs."""
    (folder, pair_folder), (profile, pair_profile) = folders, profiles
    if calibrated.std_scale is not None:
        profile = replace(profile, std_scale=profile.std_scale * calibrated.std_scale)
        write_profile(folder, profile)
        if pair_folder == folder:
            pair_profile = profile
        console.print(f"stored std_scale {profile.std_scale:.3g} in {folder / PROFILE_FILE}")
    if calibrated.uncertainty is not None and calibrated.nees is not None:
        write_profile(pair_folder, replace(pair_profile, uncertainty=calibrated.uncertainty))
        console.print(
            f"stored the uncertainty of motions in {pair_folder / PROFILE_FILE}; with it the NEES "
            f"of the pairs of the next seed is {np.nanmean(calibrated.nees):.2f} (right: 1), "
            f"median {np.nanmedian(calibrated.nees):.2f}"
        )
