"""`vlm3 evaluate`: how good a checkpoint is."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vlm3_ros.cli.arguments import natural_number, positive_integer
from vlm3_ros.cli.errors import CommandError
from vlm3_ros.cli.model_options import (
    add_focal_option,
    add_model_options,
    loaded_engine,
    model_name,
)
from vlm3_ros.engines.base import PROFILE_FILE, Engine, write_profile
from vlm3_ros.paths import default_model

if TYPE_CHECKING:
    from rich.table import Table

    from vlm3_ros.evaluation.synthetic import SyntheticReport


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "evaluate",
        help="score a checkpoint",
        description="Score a checkpoint's depth on procedural scenes that no training draws, "
        "beside the best guesses that do not look at the image. Writes metrics.json, views.png "
        "(the best, the median and the worst view) and reliability.png (how often the truth lies "
        "in the intervals that standard deviations promise).",
        epilog="example: vlm3 evaluate --synthetic 500 --seed 1 --out out/evaluation",
    )
    parser.add_argument(
        "--synthetic", type=positive_integer, required=True, metavar="N", help="number of views"
    )
    parser.add_argument(
        "--seed", type=natural_number, default=0, metavar="S", help="which views (default: 0)"
    )
    parser.add_argument(
        "--pixels",
        type=positive_integer,
        default=10,
        metavar="N",
        help="pixels asked in each view (default: 10)",
    )
    parser.add_argument(
        "--calibrate",
        action="store_true",
        help="fit a factor on the standard deviations to these views, check it on as many of seed "
        "S + 1, and if it does them good, store it in the checkpoint (std_scale in vlm3.json)",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of results")
    add_focal_option(parser)
    add_model_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from rich.console import Console

    from vlm3_ros.evaluation.calibration import WITHIN_STD, calibration_json, draw_reliability
    from vlm3_ros.evaluation.pictures import draw_depth_frames
    from vlm3_ros.evaluation.report import write_json
    from vlm3_ros.evaluation.synthetic import (
        best_median_worst,
        calibration,
        check_std_scale,
        report_json,
    )

    folder = Path(options.model or default_model())
    if options.calibrate and not folder.is_dir():
        raise CommandError(f"--calibrate stores its result in a checkpoint folder, not {folder}")
    options.out.mkdir(parents=True, exist_ok=True)
    with loaded_engine(options) as engine:
        report = _evaluate(engine, options, options.seed)
        frames = best_median_worst(engine, report, view_focal=options.focal)
        other = _evaluate(engine, options, options.seed + 1) if options.calibrate else None
        profile, name = engine.profile, model_name(engine.name)
    content = {"model": name, **report_json(report)}
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
            std_scale = profile.std_scale * check.scale
            write_profile(folder, replace(profile, std_scale=std_scale))
            console.print(f"stored std_scale {std_scale:.3g} in {folder / PROFILE_FILE}")
    wrote = "metrics.json and views.png"
    if curves:
        title = f"{name}: {score.pixels} depths of procedural views"
        draw_reliability(curves, options.out / "reliability.png", title)
        wrote = "metrics.json, views.png and reliability.png"
    write_json(options.out / "metrics.json", content)
    console.print(_table(name, report))
    for curve, some in curves.items():
        console.print(
            f"{curve}: {some.within_std:.1%} of errors are below their standard deviation "
            f"(right: {WITHIN_STD:.1%}); coverage of intervals is off by {some.deviation:.3f}"
        )
    console.print(f"wrote {wrote} to {options.out}")
    return 0


def _evaluate(engine: Engine, options: argparse.Namespace, seed: int) -> SyntheticReport:
    from vlm3_ros.cli.progress import progress_bar
    from vlm3_ros.evaluation.synthetic import evaluate_synthetic

    with progress_bar(f"views of seed {seed}") as progress:
        return evaluate_synthetic(
            engine, options.synthetic, seed, options.pixels, progress, options.focal
        )


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
