# SPDX-License-Identifier: Apache-2.0
"""`vlm3 evaluate BAG`: score a checkpoint on a recording."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from vlm3_ros.cli.arguments import positive_number
from vlm3_ros.cli.camera_options import add_depth_options
from vlm3_ros.cli.model_options import check_chosen, loaded_engines, model_label
from vlm3_ros.errors import CommandError, NoAnswersError
from vlm3_ros.paths import Task

if TYPE_CHECKING:
    from vlm3_ros.evaluation.bag.evaluate import BagEvaluation, BagSource

TASKS: tuple[Task, ...] = ("depth", "pose", "correspondence")
"""What is scored on a bag."""


def add_bag_options(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Add the options of bags: what is evaluated, and how."""
    group = parser.add_argument_group("bags")
    topics = [
        group.add_argument(
            f"--{name}-topic",
            metavar="TOPIC",
            help=f"{what} (default: found by type and content)",
        )
        for name, what in (
            ("image", "images"),
            ("camera-info", "their calibration"),
            ("depth", "true depth; none: work without"),
        )
    ]
    truth = group.add_argument(
        "--gt",
        metavar="TOPIC|FRAME",
        help="ground truth of poses: a topic of Odometry or PoseStamped, or a TF frame in which "
        "the robot moves (default: found by type, in this order)",
    )
    depth = add_depth_options(group)
    rectified = group.add_argument(
        "--rectified", action="store_true", help="the images are rectified already"
    )
    rate = group.add_argument(
        "--rate",
        type=positive_number,
        metavar="HZ",
        help="frames per second to evaluate (default: all)",
    )
    height = group.add_argument(
        "--camera-height",
        type=positive_number,
        metavar="METRES",
        help="of the camera above the ground, which then gives the scale of depth, as depth_node's "
        "scale_from: ground (default: the model's own scale)",
    )
    online = group.add_argument(
        "--online",
        action="store_true",
        help="play the bag in real time into the nodes, and evaluate what they publish (needs "
        "ROS 2)",
    )
    return [*topics, truth, *depth, rectified, rate, height, online]


def evaluate_on_bag(options: argparse.Namespace) -> int:
    """Score depth, and motion if the checkpoint learned it; return the exit status.

    Without any truth, as for a video, also write what the demo shows.
    """
    from rich.console import Console

    from vlm3_ros.cli.recordings import recording_source
    from vlm3_ros.evaluation.bag.evaluate import bag_result
    from vlm3_ros.evaluation.bag.output import write_evaluation, write_pictures
    from vlm3_ros.evaluation.output import print_result

    with recording_source(options.data, options, options.gt, options.rectified) as source:
        options.out.mkdir(parents=True, exist_ok=True)
        evaluation = (_online if options.online else _offline)(source, options)
        wrote = write_evaluation(evaluation, options.out)
        if not (evaluation.scores.depth or evaluation.scores.trajectory):
            wrote += write_pictures(evaluation, options.out)
        write_rerun(evaluation, options)
    print_result(Console(highlight=False), bag_result(evaluation))
    print(f"wrote {', '.join(wrote)} to {options.out}")
    return 0


def write_rerun(evaluation: BagEvaluation, options: argparse.Namespace) -> None:
    """Write the recording for --rerun, if given. The bag must still be open."""
    if options.rerun is None:
        return
    from vlm3_ros.evaluation.rerun_log import log_bag

    log_bag(evaluation, options.rerun)
    print(f"wrote {options.rerun}: look at it with `rerun {options.rerun}`")


def _offline(source: BagSource, options: argparse.Namespace) -> BagEvaluation:
    import numpy as np

    from vlm3_ros.cli.progress import progress_bar
    from vlm3_ros.evaluation.answer_counts import check_answered
    from vlm3_ros.evaluation.bag.answers import ask_about_frames, at_rate
    from vlm3_ros.evaluation.bag.evaluate import evaluate_answers
    from vlm3_ros.evaluation.bag.frames import counted

    if options.camera_height is not None and np.array_equal(source.T_base_camera, np.eye(4)):
        raise CommandError(
            f"{source.path}: --camera-height needs the camera's tilt, but the recording has no "
            "pose of the camera on a base (TF)"
        )
    with (
        loaded_engines(options, *TASKS) as engines,
        progress_bar("images asked about") as progress,
    ):
        check_chosen(options, engines)
        frames = counted(source.frames, lambda done: progress(done, source.images))
        answers = ask_about_frames(
            engines,
            at_rate(frames, options.rate),
            source.T_base_camera,
            view_focal=options.focal,
            camera_height=options.camera_height,
        )
    check_answered(answers.counts)
    if not answers.answered:
        reasons = [*answers.failed, *source.frames.failed, *source.frames.damage]
        # Without any frame that was asked about, it is the bag that is wrong.
        raise (NoAnswersError if answers.failed else CommandError)(
            f"{source.path}: no frame could be answered: {'; '.join(reasons) or 'it has no frames'}"
        )
    with progress_bar("images compared") as progress:
        return evaluate_answers(source, model_label(options, *TASKS), "offline", answers, progress)


def _online(source: BagSource, options: argparse.Namespace) -> BagEvaluation:
    from vlm3_ros.cli.replayed import evaluate_replay

    if options.camera_height is not None:
        raise CommandError("--camera-height is for evaluation without --online")
    if options.rate is not None:
        raise CommandError(
            "--online drops the frames that the nodes have no time for: use it without --rate"
        )
    return evaluate_replay(
        source,
        options,
        options.out,
        unified_focal=options.focal or 0.0,
    )
