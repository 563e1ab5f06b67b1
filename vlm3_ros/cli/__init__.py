# SPDX-License-Identifier: Apache-2.0
"""The command `vlm3`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from importlib.metadata import entry_points

from vlm3_ros.cli import ask, bag_from_rgbd, demo, evaluate
from vlm3_ros.errors import CommandError, Vlm3Error

_COMMANDS = (demo, ask, evaluate, bag_from_rgbd)

_LAB_COMMANDS = {
    "figure": "draw all tasks in one picture",
    "dataset": "make a training set of recordings",
    "train": "train a checkpoint",
    "ablate": "repeat the paper's findings in miniature",
    "bench": "measure what questions cost",
    "sample-bag": "render the sample bag",
}
"""Commands of the laboratory (`vlm3_lab`), which entry points of the group `vlm3.commands` name."""


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
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
    """Run a command; returns the exit status: 0, 2 for what the user can mend, 130 on Ctrl-C."""
    options = build_parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except KeyboardInterrupt:
        print("vlm3: interrupted", file=sys.stderr)
        return 130
    except (Vlm3Error, OSError) as error:
        print(f"vlm3: {error}", file=sys.stderr)
        return 2


def _add_lab_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, purpose: str
) -> None:
    """Add a command of the laboratory, or one that says that the laboratory is missing."""
    for found in entry_points(group="vlm3.commands", name=name):
        try:
            found.load().add_parser(commands)
            return
        except ModuleNotFoundError as error:
            if error.name is None or error.name.split(".")[0] != "vlm3_lab":
                raise
    parser = commands.add_parser(name, help=f"{purpose} (not installed: needs vlm3_lab)")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    parser.set_defaults(run=partial(_refuse, name))


def _refuse(name: str, options: argparse.Namespace) -> int:
    raise CommandError(
        f"{name} is a command of the laboratory, and the package vlm3_lab is not installed: "
        "install vlm3_ros whole (pip install of its folder)"
    )
