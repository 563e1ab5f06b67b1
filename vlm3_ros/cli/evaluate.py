"""`vlm3 evaluate`: how good a checkpoint is."""

from __future__ import annotations

import argparse
from pathlib import Path

from vlm3_ros.cli.arguments import natural_number, positive_integer
from vlm3_ros.cli.errors import CommandError
from vlm3_ros.cli.evaluate_bag import add_bag_options, evaluate_on_bag
from vlm3_ros.cli.evaluate_jsonl import add_jsonl_options, evaluate_on_jsonl
from vlm3_ros.cli.model_options import add_focal_option, add_model_options


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "evaluate",
        help="score a checkpoint",
        description="Score a checkpoint's depth, and where it learned them its relative poses and "
        "correspondences, beside guesses that do not look at the image and classical vision. On a "
        "bag: every frame as the nodes would answer it, with the trajectory; needs no ROS; writes "
        "metrics.json, report.html and trajectories (TUM). On a data set in DepthLM's format: by "
        "its protocol. On procedural scenes that no training "
        "draws (--synthetic): writes metrics.json, views.png and pairs.png (the best, the median "
        "and the worst) and reliability.png (how often the truth lies in the intervals that "
        "standard deviations promise).",
        epilog="examples: vlm3 evaluate drive.mcap --out out/drive; "
        "vlm3 evaluate --synthetic 500 --seed 1 --out out/evaluation",
    )
    parser.add_argument(
        "data",
        nargs="?",
        type=Path,
        metavar="DATA",
        help="a rosbag2 folder, an .mcap, .db3 or ROS 1 .bag file, or a data set in DepthLM's "
        "format (.jsonl)",
    )
    parser.add_argument(
        "--synthetic",
        type=positive_integer,
        metavar="N",
        help="number of procedural views, and of pairs of views",
    )
    parser.add_argument(
        "--seed",
        type=natural_number,
        default=0,
        metavar="S",
        help="which views and pairs (default: 0)",
    )
    parser.add_argument(
        "--pixels",
        type=positive_integer,
        default=10,
        metavar="N",
        help="pixels asked in each view (default: 10)",
    )
    parser.add_argument(
        "--matches",
        type=positive_integer,
        default=8,
        metavar="N",
        help="pixels of each pair that are asked for their match (default: 8)",
    )
    parser.add_argument(
        "--calibrate",
        action="store_true",
        help="fit a factor on the standard deviations to these views, check it on as many of seed "
        "S + 1, and if it does them good, store it in the checkpoint (std_scale in vlm3.json)",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of results")
    add_bag_options(parser)
    add_jsonl_options(parser)
    add_focal_option(parser)
    add_model_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from vlm3_ros.cli.evaluate_synthetic import evaluate_on_scenes

    if (options.data is None) == (options.synthetic is None):
        raise CommandError("evaluate takes a bag or a data set, or --synthetic N")
    if options.data is None:
        return evaluate_on_scenes(options)
    if options.data.suffix == ".jsonl":
        return evaluate_on_jsonl(options)
    return evaluate_on_bag(options)
