# SPDX-License-Identifier: Apache-2.0
"""`vlm3 evaluate --synthetic`: how good a checkpoint is on procedural scenes."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np

from vlm3_ros.cli.model_options import loaded_engines, model_name
from vlm3_ros.engines.base import PROFILE_FILE, Engine, write_profile
from vlm3_ros.errors import CommandError
from vlm3_ros.paths import Task, default_model

if TYPE_CHECKING:
    from rich.table import Table

    from vlm3_lab.studies.synthetic import SyntheticReport
    from vlm3_lab.studies.synthetic_objects import ObjectReport
    from vlm3_lab.studies.synthetic_pairs import PairReport


def evaluate_on_scenes(options: argparse.Namespace) -> int:
    """Score depth, and pairs and objects where they were learned; returns the exit status."""
    from rich.console import Console

    from vlm3_lab.cli.object_tables import add_objects, draw_objects, print_objects
    from vlm3_lab.cli.pair_tables import add_pairs, draw_pairs, print_pairs
    from vlm3_lab.studies.synthetic import (
        best_median_worst,
        calibration,
        check_std_scale,
        report_json,
    )
    from vlm3_lab.studies.synthetic_pairs import consistency_under, spread_json
    from vlm3_ros.evaluation.metrics.calibration import (
        WITHIN_STD,
        calibration_json,
        draw_reliability,
    )
    from vlm3_ros.evaluation.pictures.depth import draw_depth_frames
    from vlm3_ros.evaluation.report import write_json

    folder, pair_folder = (Path(options.model or default_model(task)) for task in get_args(Task))
    if options.calibrate and not folder.is_dir():
        raise CommandError(f"--calibrate stores its result in a checkpoint folder, not {folder}")
    options.out.mkdir(parents=True, exist_ok=True)
    with loaded_engines(options) as (engine, pair_engine):
        report = _evaluate(engine, options, options.seed)
        frames = best_median_worst(engine, report, view_focal=options.focal)
        if options.rerun is not None:
            from vlm3_lab.studies.rerun_views import log_views

            log_views(engine, report, options.rerun, options.focal)
        other = _evaluate(engine, options, options.seed + 1) if options.calibrate else None
        pairs = _evaluate_pairs(pair_engine, options, options.seed)
        others = None
        if options.calibrate:
            others = _evaluate_pairs(pair_engine, options, options.seed + 1)
        objects = _evaluate_objects(engine, options)
        profile, name = engine.profile, model_name(engine.name)
        pair_profile, pair_name = pair_engine.profile, model_name(pair_engine.name)
    content = {"model": name, "pair_model": pair_name, **report_json(report)}
    score = report.overall.model
    title = f"{name}: δ1 {score.delta1:.3f}, AbsRel {score.abs_rel:.3f} on {score.images} views"
    draw_depth_frames(frames, options.out / "views.png", title)
    curves = {}
    if spread := calibration(report):
        curves[f"seed {report.seed}"] = spread
    console = Console(highlight=False)
    if other is not None and (check := check_std_scale(report, other)):
        curves[f"seed {other.seed}"] = check.before
        curves[f"seed {other.seed}, std times {check.scale:.3g}"] = check.after
        content["calibration"]["check"] = {
            "seed": other.seed,
            "before": calibration_json(check.before),
            "after": calibration_json(check.after),
            "stored": check.helps,
        }
        if check.helps:
            profile = replace(profile, std_scale=profile.std_scale * check.scale)
            write_profile(folder, profile)
            if pair_folder == folder:
                pair_profile = profile
            console.print(f"stored std_scale {profile.std_scale:.3g} in {folder / PROFILE_FILE}")
    wrote = ["metrics.json", "views.png"]
    if curves:
        title = f"{name}: {score.pixels} depths of procedural views"
        draw_reliability(curves, options.out / "reliability.png", title)
        wrote.append("reliability.png")
    if pairs is not None:
        add_pairs(content, pairs)
        if others is not None and pairs.consistency is not None:
            measured = pairs.consistency.measured
            nees = consistency_under(others.pairs, measured)
            content["uncertainty"]["check"] = {"seed": others.seed, **spread_json(nees)}
            write_profile(pair_folder, replace(pair_profile, uncertainty=measured))
            console.print(
                f"stored the uncertainty of motions in {pair_folder / PROFILE_FILE}; under it the "
                f"NEES of the pairs of seed {others.seed} is {np.nanmean(nees):.2f} (right: 1), "
                f"median {np.nanmedian(nees):.2f}"
            )
        draw_pairs(pairs, pair_name, options.out / "pairs.png")
        wrote.append("pairs.png")
    if objects is not None:
        add_objects(content, objects)
        draw_objects(objects, name, options.out / "objects.png")
        wrote.append("objects.png")
    write_json(options.out / "metrics.json", content)
    console.print(_table(name, report))
    for curve, some in curves.items():
        console.print(
            f"{curve}: {some.within_std:.1%} of errors are below their standard deviation "
            f"(right: {WITHIN_STD:.1%}); coverage of intervals is off by {some.deviation:.3f}"
        )
    if pairs is None:
        console.print(
            f"{pair_name} did not learn relative pose and correspondence: no pairs were asked"
        )
    else:
        print_pairs(console, pair_name, pairs)
    if objects is None:
        console.print(f"{name} did not learn about objects: none were asked")
    else:
        print_objects(console, name, objects)
    console.print(f"wrote {', '.join(wrote)} to {options.out}")
    if options.rerun is not None:
        console.print(f"wrote {options.rerun}: look at it with `rerun {options.rerun}`")
    return 0


def _evaluate(engine: Engine, options: argparse.Namespace, seed: int) -> SyntheticReport:
    from vlm3_lab.studies.synthetic import evaluate_synthetic
    from vlm3_ros.cli.progress import progress_bar

    with progress_bar(f"views of seed {seed}") as progress:
        return evaluate_synthetic(
            engine, options.synthetic, seed, options.pixels, progress, options.focal
        )


def _evaluate_pairs(engine: Engine, options: argparse.Namespace, seed: int) -> PairReport | None:
    """None where the checkpoint did not learn pairs."""
    from vlm3_lab.studies.synthetic_pairs import evaluate_pairs, knows_pairs
    from vlm3_ros.cli.progress import progress_bar

    if not knows_pairs(engine):
        return None
    with progress_bar(f"pairs of seed {seed}") as progress:
        return evaluate_pairs(engine, options.synthetic, seed, options.matches, progress)


def _evaluate_objects(engine: Engine, options: argparse.Namespace) -> ObjectReport | None:
    """None where the checkpoint did not learn about objects."""
    from vlm3_lab.studies.synthetic_objects import evaluate_objects, knows_objects
    from vlm3_ros.cli.progress import progress_bar

    if not knows_objects(engine):
        return None
    with progress_bar(f"objects of seed {options.seed}") as progress:
        return evaluate_objects(engine, options.synthetic, options.seed, progress=progress)


def _table(name: str, report: SyntheticReport) -> Table:
    from rich.table import Table

    overall = report.overall.model
    table = Table(
        title=f"{name} on {overall.images} procedural views, {overall.pixels} pixels, "
        f"seed {report.seed}",
        caption="best guesses are chosen on these very pixels",
    )
    table.add_column("views")
    for column in ("δ1", "AbsRel", "RMSE m", "unanswered", "best constant δ1", "best per row δ1"):
        table.add_column(column, justify="right")
    rows = {**report.kinds, "all": report.overall}
    for kind, scores in rows.items():
        model = scores.model
        table.add_row(
            kind,
            f"{model.delta1:.3f}",
            f"{model.abs_rel:.3f}",
            f"{model.rmse:.2f}",
            str(model.unanswered),
            f"{scores.constant.metrics.delta1:.3f}",
            f"{scores.row.metrics.delta1:.3f}",
            style="bold" if kind == "all" else "",
        )
    return table
