# SPDX-License-Identifier: Apache-2.0
"""The option --rerun of commands that evaluate."""

from __future__ import annotations

import argparse
from pathlib import Path

from vlm3_ros.errors import CommandError


def add_rerun_option(parser: argparse.ArgumentParser) -> None:
    """Add --rerun."""
    parser.add_argument(
        "--rerun",
        type=Path,
        metavar="FILE",
        help="write images, answers, truth and trajectories to an .rrd file for the viewer of "
        "rerun.io: `rerun FILE` (needs rerun-sdk)",
    )


def check_rerun(options: argparse.Namespace) -> None:
    """Check --rerun before the work begins.

    Raises:
        CommandError: if rerun-sdk or the folder of the file is missing.
    """
    if options.rerun is None:
        return
    from vlm3_ros.evaluation.rerun_log import import_rerun

    try:
        import_rerun()
    except ImportError as error:
        raise CommandError(f"--rerun: {error}") from error
    if not options.rerun.absolute().parent.is_dir():
        raise CommandError(f"--rerun {options.rerun}: there is no such folder")
