# SPDX-License-Identifier: Apache-2.0
"""`vlm3 evaluate`: score a checkpoint."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path

from vlm3_ros.cli.arguments import natural_number, positive_integer
from vlm3_ros.cli.camera_options import add_camera_options
from vlm3_ros.cli.evaluate_bag import add_bag_options, evaluate_on_bag
from vlm3_ros.cli.evaluate_data import add_data_options, evaluate_on_data
from vlm3_ros.cli.laboratory import load_from_lab, missing_lab
from vlm3_ros.cli.model_options import add_focal_option, add_model_options
from vlm3_ros.cli.rerun_option import add_rerun_option, check_rerun
from vlm3_ros.engines.settings import ModelSettings
from vlm3_ros.errors import CommandError

_LIMITS = {"request_timeout": 600.0, "frame_timeout": 3600.0}
"""Seconds to wait for a server: a slow answer is not a wrong one. Those of a robot are shorter;
--online keeps them, since it measures a robot."""

_SCENES, _BAGS, _DATA = "procedural scenes (--synthetic)", "bags", "data sets"

_FORMAT = re.compile(r"[A-Za-z]\w+:(?!//)")
"""How a data set begins whose format is named; one letter is a drive."""

_PIXELS, _MATCHES = 10, 8
"""Asked in each procedural view, and in each pair."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "evaluate",
        help="score a checkpoint",
        description="Score a checkpoint's depth and, if it learned them, its relative poses, "
        "correspondences and answers about objects, next to guesses that do not look at the image "
        "and to classical vision. Writes metrics.json and report.html. On a bag: every frame as "
        "the nodes would answer it, with the trajectory; needs no ROS; also writes occupancy.png "
        "and trajectories (TUM). On a data set (docs/datasets.md): depth, motions, matches and "
        "objects, as far as their truth is known; DepthLM's format by DepthLM's protocol. On "
        "procedural scenes that no training draws (--synthetic). These two also write views.png, "
        "pairs.png and objects.png (the best, the median and the worst) and reliability.png (how "
        "often the truth lies in the intervals that standard deviations promise).",
        epilog="examples: vlm3 evaluate drive.mcap --out out/drive; "
        "vlm3 evaluate tum:rgbd_dataset_freiburg1_desk --frames 100 --out out/desk; "
        "vlm3 evaluate --synthetic 500 --seed 1 --out out/evaluation",
    )
    parser.add_argument(
        "data",
        nargs="?",
        metavar="DATA",
        help="a rosbag2 folder, an .mcap, .db3 or ROS 1 .bag file, a video (with --hfov or "
        "--camera-info; no truth), or a data set as FORMAT:PATH, such as tum:DIR (formats: "
        "docs/datasets.md; FILE.jsonl and folders of `vlm3 dataset` need no FORMAT)",
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
        (_SCENES, _DATA): _add_drawing_options(parser),
        (_SCENES,): _add_scene_options(parser),
        (_BAGS, _DATA): add_camera_options(
            parser.add_argument_group("bags and data sets"),
            "the bag's CameraInfo, or what the data set says",
            "recording",
        ),
        (_BAGS,): add_bag_options(parser),
        (_DATA,): add_data_options(parser, _DATA),
    }
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
    data_set = None if options.data is None else _data_set(options.data)
    evaluated = _SCENES if options.data is None else _DATA if data_set else _BAGS
    for kinds, actions in options.options_of.items():
        for action in actions:
            if evaluated not in kinds and getattr(options, action.dest) != action.default:
                raise CommandError(
                    f"{action.option_strings[0]} is for {' and '.join(kinds)}, not for {evaluated}"
                )
    if evaluated == _DATA and options.rerun is not None:
        raise CommandError(f"--rerun is for {_SCENES} and {_BAGS}, not for {_DATA}")
    check_rerun(options)
    for name, seconds in _LIMITS.items():
        if getattr(options, name) is None:
            of_robots = getattr(ModelSettings, name)
            setattr(options, name, of_robots if options.online else seconds)
    if data_set:
        return evaluate_on_data(data_set, options)
    if options.data is not None:
        options.data = Path(options.data)
        return evaluate_on_bag(options)
    options.pixels, options.matches = options.pixels or _PIXELS, options.matches or _MATCHES
    return _scene_evaluation()(options)


def _data_set(data: str) -> str | None:
    """Return a data set as FORMAT:PATH; None for a bag or a video."""
    from vlm3_ros.datasets.opening import FORMATS
    from vlm3_ros.datasets.own import DESCRIPTION

    path = Path(data)
    if data.partition(":")[0] in FORMATS or (_FORMAT.match(data) and not path.exists()):
        return data
    if path.suffix == ".jsonl":
        return f"depthlm:{data}"
    return f"dataset:{data}" if (path / DESCRIPTION).is_file() else None


def _scene_evaluation() -> Callable[[argparse.Namespace], int]:
    evaluate: Callable[[argparse.Namespace], int] | None
    evaluate = load_from_lab("vlm3.evaluations", "synthetic")
    if evaluate is None:
        raise missing_lab("--synthetic")
    return evaluate


def _add_drawing_options(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Add the options on what is drawn at random."""
    group = parser.add_argument_group("procedural scenes and data sets")
    return [
        group.add_argument(
            "--seed",
            type=natural_number,
            default=0,
            metavar="S",
            help="which views, pairs and pixels (default: 0)",
        ),
        group.add_argument(
            "--pixels",
            type=positive_integer,
            metavar="N",
            help=f"pixels asked in each view (default: {_PIXELS}; all that a data set labels)",
        ),
        group.add_argument(
            "--matches",
            type=positive_integer,
            metavar="N",
            help=f"pixels of each pair whose match is asked (default: {_MATCHES}; all that a data "
            "set labels)",
        ),
    ]


def _add_scene_options(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Add the options of procedural scenes."""
    return [
        parser.add_argument_group(_SCENES).add_argument(
            "--calibrate",
            action="store_true",
            help="measure the errors of the answers, check them on as many views and pairs of seed "
            "S + 1, and store them in the checkpoint's vlm3.json: a factor on the standard "
            "deviations of depth, if it helps (std_scale), and the errors of motions and matches "
            "(uncertainty)",
        ),
    ]
