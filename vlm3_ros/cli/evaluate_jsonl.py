# SPDX-License-Identifier: Apache-2.0
"""`vlm3 evaluate data.jsonl`: score a checkpoint by DepthLM's protocol."""

from __future__ import annotations

import argparse
from pathlib import Path

from vlm3_ros.cli.model_options import loaded_engine
from vlm3_ros.engines.settings import model_name


def add_jsonl_options(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Add the options of data sets in DepthLM's format."""
    group = parser.add_argument_group("data sets in DepthLM's format (.jsonl)")
    images = group.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="folder that image paths start from (default: the folder of the file)",
    )
    return [images]


def evaluate_on_jsonl(options: argparse.Namespace) -> int:
    """Score depth on a data set; return the exit status."""
    from rich.console import Console

    from vlm3_ros.cli.progress import progress_bar
    from vlm3_ros.datasets.depthlm import read_depthlm
    from vlm3_ros.evaluation.depthlm import dataset_result, evaluate_dataset
    from vlm3_ros.evaluation.output import print_result, write_result

    # The protocol wants greedy answers, not medians of distributions.
    options.force_answers = False
    dataset = read_depthlm(options.data, options.images)
    options.out.mkdir(parents=True, exist_ok=True)
    with loaded_engine(options, "depth") as engine, progress_bar("images") as progress:
        scores = evaluate_dataset(engine, dataset, progress, options.focal)
        name = model_name(engine.name)
    result = dataset_result(name, options.data.name, scores)
    wrote = write_result(result, options.out)
    print_result(Console(highlight=False), result)
    print(f"wrote {', '.join(wrote)} to {options.out}")
    return 0
