# SPDX-License-Identifier: Apache-2.0
"""`vlm3 demo`: play a bag through the real nodes and show the result as pictures and numbers."""

from __future__ import annotations

import argparse
from pathlib import Path

from vlm3_ros.cli.arguments import positive_number
from vlm3_ros.cli.camera_options import add_camera_options, add_depth_options
from vlm3_ros.cli.model_options import add_model_options
from vlm3_ros.cli.rerun_option import add_rerun_option, check_rerun
from vlm3_ros.paths import sample_bag


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "demo",
        help="play a bag through the nodes and look at the result",
        description="Start the nodes with their models, play a bag into them over DDS "
        "in a ROS domain of its own, and compare what they publish with the truth in the bag. "
        "Writes report.html, overview.png, trajectory.png, occupancy.png, cloud.ply, metrics.json, "
        "trajectories (TUM) and the logs of the processes. Needs ROS 2.",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of results")
    recording = parser.add_mutually_exclusive_group()
    recording.add_argument(
        "--bag",
        type=Path,
        metavar="BAG",
        help="a bag with images, their CameraInfo, and optionally registered depth and poses "
        "(default: the sample bag)",
    )
    recording.add_argument(
        "--video",
        type=Path,
        metavar="VIDEO",
        help="a video instead of a bag; needs --hfov or --camera-info",
    )
    add_camera_options(parser, "the bag's CameraInfo", "recording")
    parser.add_argument(
        "--rate", type=positive_number, default=1.0, help="speed of playing (default: 1, real time)"
    )
    for name in ("image", "camera-info", "depth"):
        parser.add_argument(
            f"--{name}-topic",
            metavar="TOPIC",
            help="of the bag, if it has several (default: found by type and content)",
        )
    add_depth_options(parser.add_argument_group("true depth"))
    add_rerun_option(parser)
    add_model_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from rich.console import Console

    from vlm3_ros.cli.evaluate_bag import write_rerun
    from vlm3_ros.cli.recordings import recording_source
    from vlm3_ros.cli.replayed import evaluate_replay
    from vlm3_ros.evaluation.bag.evaluate import bag_result
    from vlm3_ros.evaluation.bag.output import write_evaluation, write_pictures
    from vlm3_ros.evaluation.output import print_result

    check_rerun(options)
    out = options.out
    out.mkdir(parents=True, exist_ok=True)
    recording = options.video or options.bag or sample_bag()
    is_video = options.video is not None
    with recording_source(recording, options, is_video=is_video) as source:
        evaluation = evaluate_replay(source, options, out, options.rate)
        wrote = [*write_pictures(evaluation, out), *write_evaluation(evaluation, out)]
        write_rerun(evaluation, options)
    print_result(Console(highlight=False), bag_result(evaluation))
    print(f"wrote {', '.join(wrote)} to {out}")
    return 0
