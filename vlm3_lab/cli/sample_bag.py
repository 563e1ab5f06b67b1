# SPDX-License-Identifier: Apache-2.0
"""`vlm3 sample-bag`: render the sample bag."""

from __future__ import annotations

import argparse
from pathlib import Path

from vlm3_ros.cli.arguments import natural_number, positive_number
from vlm3_ros.errors import CommandError


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "sample-bag",
        help="render a drive through a procedural scene into a rosbag2",
        description="Render a robot's drive through a procedural scene into a rosbag2 (mcap) with "
        "images, CameraInfo, exact depth, TF and odometry. Without options, render the sample bag "
        "that ships with the package; its scene is never used in training.",
    )
    parser.add_argument("bag", type=Path, help="folder of the new bag")
    parser.add_argument(
        "--seed", type=natural_number, metavar="S", help="seed of the scene and the drive"
    )
    parser.add_argument("--kind", help="kind of scene: room, corridor, yard or street")
    parser.add_argument(
        "--duration", type=positive_number, metavar="SECONDS", help="length of the drive"
    )
    parser.add_argument(
        "--frame-rate", type=positive_number, metavar="HZ", help="frame rate of the camera"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from vlm3_lab.scenes import KINDS
    from vlm3_lab.scenes.sample_bag import write_sample_bag
    from vlm3_ros.cli.progress import progress_bar

    if options.kind not in (None, *KINDS):
        raise CommandError(f"unknown kind of scene '{options.kind}': use {', '.join(KINDS)}")
    given = {
        "seed": options.seed,
        "kind": options.kind,
        "duration": options.duration,
        "rate": options.frame_rate,
    }
    chosen = {name: value for name, value in given.items() if value is not None}
    with progress_bar("frames") as progress:
        frames = write_sample_bag(options.bag, progress=progress, **chosen)
    print(f"wrote {frames} frames to {options.bag}")
    return 0
