# SPDX-License-Identifier: Apache-2.0
"""`vlm3 evaluate data.jsonl`: how good a checkpoint is by DepthLM's protocol."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from vlm3_ros.cli.model_options import loaded_engine, model_name
from vlm3_ros.errors import CommandError

if TYPE_CHECKING:
    from rich.table import Table

    from vlm3_ros.evaluation.depthlm import DatasetScores


def add_jsonl_options(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Add the options of data sets in DepthLM's format."""
    group = parser.add_argument_group("data sets in DepthLM's format (.jsonl)")
    images = group.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="folder that the paths of images start from (default: that of the file)",
    )
    return [images]


def evaluate_on_jsonl(options: argparse.Namespace) -> int:
    """Score depth on a data set; returns the exit status."""
    from rich.console import Console

    from vlm3_ros.cli.progress import progress_bar
    from vlm3_ros.evaluation.depthlm import DatasetError, evaluate_dataset, read_dataset
    from vlm3_ros.evaluation.report import guess_json, metrics_json, write_json

    # The protocol wants greedy answers, not medians of distributions.
    options.force_answers = False
    try:
        dataset = read_dataset(options.data, options.images)
        with loaded_engine(options) as engine, progress_bar("images") as progress:
            scores = evaluate_dataset(engine, dataset, progress, options.focal)
            name = model_name(engine.name)
    except DatasetError as error:
        raise CommandError(str(error)) from error
    options.out.mkdir(parents=True, exist_ok=True)
    content = {
        "model": name,
        "data": options.data.name,
        "protocol": "DepthLM",
        "images": scores.model.images,
        "depth": metrics_json(scores.model),
        "baselines": {"constant": {"depth": guess_json(scores.constant)}},
    }
    write_json(options.out / "metrics.json", content)
    console = Console(highlight=False)
    console.print(_table(name, options.data.name, scores))
    console.print(f"wrote metrics.json to {options.out}")
    return 0


def _table(name: str, data: str, scores: DatasetScores) -> Table:
    from rich.table import Table

    table = Table(
        title=f"{data} by DepthLM's protocol: {scores.model.images} images, "
        f"{scores.model.pixels} pixels",
        caption="the best constant is chosen on these very pixels",
    )
    table.add_column("who")
    for column in ("δ1", "AbsRel", "RMSE m", "unanswered"):
        table.add_column(column, justify="right")
    constant = f"constant {scores.constant.depths[0]:.2f} m"
    for who, metrics in ((name, scores.model), (constant, scores.constant.metrics)):
        table.add_row(
            who,
            f"{metrics.delta1:.3f}",
            f"{metrics.abs_rel:.3f}",
            f"{metrics.rmse:.2f}",
            str(metrics.unanswered),
        )
    return table
