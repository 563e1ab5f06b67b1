# SPDX-License-Identifier: Apache-2.0
"""`vlm3 evaluate`: score a checkpoint."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from vlm3_ros.cli.arguments import natural_number, positive_integer
from vlm3_ros.cli.evaluate_bag import add_bag_options, evaluate_on_bag
from vlm3_ros.cli.evaluate_jsonl import add_jsonl_options, evaluate_on_jsonl
from vlm3_ros.cli.evaluate_spatialrgpt import PREFIX as SPATIALRGPT
from vlm3_ros.cli.evaluate_spatialrgpt import evaluate_on_spatialrgpt
from vlm3_ros.cli.laboratory import load_from_lab, missing_lab
from vlm3_ros.cli.model_options import add_focal_option, add_model_options
from vlm3_ros.cli.rerun_option import add_rerun_option, check_rerun
from vlm3_ros.engines.settings import ModelSettings
from vlm3_ros.errors import CommandError

_LIMITS = {"request_timeout": 600.0, "frame_timeout": 3600.0}
"""Seconds to wait for a server: a slow answer is not a wrong one. Those of a robot are shorter;
--online keeps them, since it measures a robot."""

_SCENES, _BAGS, _JSONL = "procedural scenes (--synthetic)", "bags", "data sets (.jsonl)"
_QUESTIONS = "questions about objects (spatialrgpt:FILE)"


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "evaluate",
        help="score a checkpoint",
        description="Score a checkpoint's depth and, if it learned them, its relative poses, "
        "correspondences and answers about objects, next to guesses that do not look at the image "
        "and to classical vision. Writes metrics.json and report.html. On a bag: every frame as "
        "the nodes would answer it, with the trajectory; needs no ROS; also writes occupancy.png "
        "and trajectories (TUM). On a data set in DepthLM's format: by its protocol. On procedural "
        "scenes that no training draws (--synthetic): also writes views.png, pairs.png and "
        "objects.png (the best, the median and the worst) and reliability.png (how often the truth "
        "lies in the intervals that standard deviations promise).",
        epilog="examples: vlm3 evaluate drive.mcap --out out/drive; "
        "vlm3 evaluate --synthetic 500 --seed 1 --out out/evaluation",
    )
    parser.add_argument(
        "data",
        nargs="?",
        type=Path,
        metavar="DATA",
        help="a rosbag2 folder, an .mcap, .db3 or ROS 1 .bag file, a video (with --hfov or "
        "--camera-info; no truth), a data set in DepthLM's format (.jsonl), or questions about "
        "objects in SpatialRGPT's format (spatialrgpt:FILE, with --images and --hfov or "
        "--camera-info)",
    )
    parser.add_argument(
        "--synthetic",
        type=positive_integer,
        metavar="N",
        help="number of procedural views, of pairs of views, and of views with objects",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of results")
    add_rerun_option(parser)
    options_of = {
        _SCENES: _add_scene_options(parser),
        _BAGS: add_bag_options(parser),
        _JSONL: add_jsonl_options(parser),
    }
    shared = ("images", "cameras")
    options_of[_QUESTIONS] = [
        action for kind in (_BAGS, _JSONL) for action in options_of[kind] if action.dest in shared
    ]
    add_focal_option(parser)
    add_model_options(
        parser,
        own_defaults={
            name: f"{seconds:g}; {getattr(ModelSettings, name):g} with --online"
            for name, seconds in _LIMITS.items()
        },
    )
    parser.set_defaults(run=run, options_of=options_of)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    if (options.data is None) == (options.synthetic is None):
        raise CommandError("evaluate takes a bag or a data set, or --synthetic N")
    if options.data is None:
        evaluated, evaluate = _SCENES, _scene_evaluation()
    elif str(options.data).startswith(SPATIALRGPT):
        evaluated, evaluate = _QUESTIONS, evaluate_on_spatialrgpt
    elif options.data.suffix == ".jsonl":
        evaluated, evaluate = _JSONL, evaluate_on_jsonl
    else:
        evaluated, evaluate = _BAGS, evaluate_on_bag
    known = {action.dest for action in options.options_of[evaluated]}
    for kind, actions in options.options_of.items():
        for action in actions:
            if action.dest not in known and getattr(options, action.dest) != action.default:
                raise CommandError(f"{action.option_strings[0]} is for {kind}, not for {evaluated}")
    if evaluated in (_JSONL, _QUESTIONS) and options.rerun is not None:
        raise CommandError(f"--rerun is for {_SCENES} and {_BAGS}, not for {evaluated}")
    check_rerun(options)
    for name, seconds in _LIMITS.items():
        if getattr(options, name) is None:
            of_robots = getattr(ModelSettings, name)
            setattr(options, name, of_robots if options.online else seconds)
    return evaluate(options)


def _scene_evaluation() -> Callable[[argparse.Namespace], int]:
    evaluate: Callable[[argparse.Namespace], int] | None
    evaluate = load_from_lab("vlm3.evaluations", "synthetic")
    if evaluate is None:
        raise missing_lab("--synthetic")
    return evaluate


def _add_scene_options(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Add the options of procedural scenes."""
    group = parser.add_argument_group(_SCENES)
    return [
        group.add_argument(
            "--seed",
            type=natural_number,
            default=0,
            metavar="S",
            help="which views and pairs (default: 0)",
        ),
        group.add_argument(
            "--pixels",
            type=positive_integer,
            default=10,
            metavar="N",
            help="pixels asked in each view (default: 10)",
        ),
        group.add_argument(
            "--matches",
            type=positive_integer,
            default=8,
            metavar="N",
            help="pixels of each pair whose match is asked (default: 8)",
        ),
        group.add_argument(
            "--calibrate",
            action="store_true",
            help="measure the errors of the answers, check them on as many views and pairs of seed "
            "S + 1, and store them in the checkpoint's vlm3.json: a factor on the standard "
            "deviations of depth, if it helps (std_scale), and the errors of motions and matches "
            "(uncertainty)",
        ),
    ]
