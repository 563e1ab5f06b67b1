# SPDX-License-Identifier: Apache-2.0
"""`vlm3 demo`: play a bag through the real nodes and show the result as pictures and numbers."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from vlm3_ros.cli.arguments import positive_number
from vlm3_ros.cli.model_options import add_model_options
from vlm3_ros.cli.rerun_option import add_rerun_option, check_rerun
from vlm3_ros.paths import sample_bag

if TYPE_CHECKING:
    from vlm3_ros.evaluation.bag.evaluate import BagEvaluation

_SHOWN = 4


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
    parser.add_argument(
        "--bag",
        type=Path,
        metavar="BAG",
        help="a bag with images, their CameraInfo, and optionally registered depth and poses "
        "(default: the sample bag)",
    )
    parser.add_argument(
        "--rate", type=positive_number, default=1.0, help="speed of playing (default: 1, real time)"
    )
    for name in ("image", "camera-info", "depth"):
        parser.add_argument(
            f"--{name}-topic",
            metavar="TOPIC",
            help="of the bag, if it has several (default: found by type and content)",
        )
    add_rerun_option(parser)
    add_model_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from rich.console import Console

    from vlm3_ros.cli.evaluate_bag import write_rerun
    from vlm3_ros.cli.replayed import evaluate_replay
    from vlm3_ros.evaluation.bag.evaluate import bag_result, bag_source
    from vlm3_ros.evaluation.bag.output import write_evaluation
    from vlm3_ros.evaluation.output import print_result

    check_rerun(options)
    out = options.out
    out.mkdir(parents=True, exist_ok=True)
    with bag_source(
        options.bag or sample_bag(),
        options.image_topic,
        options.camera_info_topic,
        options.depth_topic,
    ) as source:
        evaluation = evaluate_replay(source, options, out, options.rate)
        wrote = [*_write_pictures(evaluation, out), *write_evaluation(evaluation, out)]
        write_rerun(evaluation, options)
    print_result(Console(highlight=False), bag_result(evaluation))
    print(f"wrote {', '.join(wrote)} to {out}")
    return 0


def _write_pictures(evaluation: BagEvaluation, out: Path) -> list[str]:
    """Write the pictures that users open first; return the names of the files."""
    from vlm3_ros.evaluation.bag.output import depth_frames, evenly, trajectory_figure
    from vlm3_ros.evaluation.metrics.declared import headline_text
    from vlm3_ros.evaluation.pictures.depth import draw_depth_frames
    from vlm3_ros.evaluation.pictures.figures import save_png

    wrote = []
    shown = evenly(sorted(evaluation.answers.depths), _SHOWN)
    if frames := depth_frames(evaluation, shown):
        title = f"{evaluation.model} on {evaluation.source.path.name}"
        if depth := evaluation.scores.depth:
            title += f": {headline_text(depth.model)}"
        draw_depth_frames(frames, out / "overview.png", title)
        _write_cloud(evaluation, list(shown)[len(shown) // 2], out / "cloud.ply")
        wrote += ["overview.png", "cloud.ply"]
    if figure := trajectory_figure(evaluation):
        save_png(figure, out / "trajectory.png")
        wrote.append("trajectory.png")
    return wrote


def _write_cloud(evaluation: BagEvaluation, stamp_ns: int, path: Path) -> None:
    from vlm3_ros.evaluation.bag.answers import GRID
    from vlm3_ros.evaluation.ply import write_ply
    from vlm3_ros.tasks.depth import uniform_grid
    from vlm3_ros.tasks.frame_depth import dense_depth

    frame = next(evaluation.source.frames.at([stamp_ns]))
    camera, depth = frame.camera, evaluation.answers.depths[stamp_ns]
    dense = dense_depth(frame, uniform_grid(camera, *GRID), depth)
    points = camera.unproject(camera.pixel_grid(), dense)
    write_ply(path, points.reshape(-1, 3), frame.image.reshape(-1, 3))
