"""The command `vlm3`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from vlm3_ros.bags.errors import BagError
from vlm3_ros.cli import (
    ablate,
    ask,
    bag_from_rgbd,
    bench,
    dataset,
    demo,
    evaluate,
    figure,
    sample_bag,
    train,
)
from vlm3_ros.cli.errors import CommandError
from vlm3_ros.engines.base import EngineError
from vlm3_ros.geometry.camera import GeometryError
from vlm3_ros.language.prompts import PromptError
from vlm3_ros.training.config import ConfigError
from vlm3_ros.training.errors import TrainingError

_COMMANDS = (demo, ask, evaluate, figure, bench, dataset, train, ablate, bag_from_rgbd, sample_bag)

_USER_ERRORS = (
    BagError,
    CommandError,
    ConfigError,
    EngineError,
    GeometryError,
    OSError,
    PromptError,
    TrainingError,
)
"""What a user can mend: told in one line. Anything else is a fault of ours, with its traceback."""


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
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0, 2 for what the user can mend, 130 on Ctrl-C."""
    options = build_parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except KeyboardInterrupt:
        print("vlm3: interrupted", file=sys.stderr)
        return 130
    except _USER_ERRORS as error:
        print(f"vlm3: {error}", file=sys.stderr)
        return 2
