"""`vlm3 evaluate`: how good a checkpoint is."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from vlm3_ros.cli.arguments import natural_number, positive_integer
from vlm3_ros.cli.model_options import add_model_options, loaded_engine, model_name

if TYPE_CHECKING:
    from rich.table import Table

    from vlm3_ros.evaluation.synthetic import SyntheticReport


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "evaluate",
        help="score a checkpoint",
        description="Score a checkpoint's depth on procedural scenes that no training draws, "
        "beside the best guesses that do not look at the image. Writes metrics.json and "
        "views.png, the best, the median and the worst view.",
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
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of results")
    add_model_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from rich.console import Console

    from vlm3_ros.cli.progress import progress_bar
    from vlm3_ros.evaluation.pictures import draw_depth_frames
    from vlm3_ros.evaluation.report import write_json
    from vlm3_ros.evaluation.synthetic import best_median_worst, evaluate_synthetic, report_json

    options.out.mkdir(parents=True, exist_ok=True)
    with loaded_engine(options) as engine:
        with progress_bar("views") as progress:
            report = evaluate_synthetic(
                engine, options.synthetic, options.seed, options.pixels, progress
            )
        frames = best_median_worst(engine, report)
        name = model_name(engine.name)
    write_json(options.out / "metrics.json", {"model": name, **report_json(report)})
    score = report.overall.model
    title = f"{name}: δ1 {score.delta1:.3f}, AbsRel {score.abs_rel:.3f} on {score.images} views"
    draw_depth_frames(frames, options.out / "views.png", title)
    console = Console()
    console.print(_table(name, report))
    console.print(f"wrote metrics.json and views.png to {options.out}", highlight=False)
    return 0


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
