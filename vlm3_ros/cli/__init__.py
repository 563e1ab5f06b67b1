# SPDX-License-Identifier: Apache-2.0
"""The command `vlm3`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial

from vlm3_ros.cli import ask, bag_from_rgbd, demo, evaluate, intrinsics
from vlm3_ros.cli.laboratory import load_from_lab, missing_lab
from vlm3_ros.errors import NoAnswersError, Vlm3Error

_COMMANDS = (demo, ask, evaluate, bag_from_rgbd, intrinsics)

_LAB_COMMANDS = {
    "figure": "draw all tasks in one picture",
    "dataset": "make a training set of recordings",
    "train": "train a checkpoint",
    "ablate": "repeat the paper's findings in miniature",
    "bench": "measure what questions cost",
    "sample-bag": "render the sample bag",
}
"""Commands of vlm3_lab and their help when it is missing. Entry points of `vlm3.commands`."""


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="vlm3",
        description="Metric depth from a vision language model: try it on a photo, measure how "
        "good it is, train it. The ROS nodes start with `ros2 launch` and `ros2 run`.",
        epilog="`vlm3 COMMAND --help` explains a command.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add_parser(commands)
    for name, purpose in _LAB_COMMANDS.items():
        _add_lab_command(commands, name, purpose)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        The exit status: 0; 1 if a model answered too few questions; 2 on another error that the
        user can mend; 130 on Ctrl-C.
    """
    options = build_parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except KeyboardInterrupt:
        print("vlm3: interrupted", file=sys.stderr)
        return 130
    except (Vlm3Error, OSError) as error:
        print(f"vlm3: {error}", file=sys.stderr)
        return 1 if isinstance(error, NoAnswersError) else 2


def _add_lab_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, purpose: str
) -> None:
    """Add a command of vlm3_lab, or a stub that says what to install."""
    if command := load_from_lab("vlm3.commands", name):
        command.add_parser(commands)
        return
    parser = commands.add_parser(name, help=f"{purpose} (not installed: needs vlm3_lab)")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    parser.set_defaults(run=partial(_refuse, name))


def _refuse(name: str, options: argparse.Namespace) -> int:
    raise missing_lab(f"`vlm3 {name}`")
