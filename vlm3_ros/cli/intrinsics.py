# SPDX-License-Identifier: Apache-2.0
"""`vlm3 intrinsics`: estimate the intrinsics of a folder of images."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

_SHOWN_FAULTS = 5


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "intrinsics",
        help="estimate the intrinsics of a folder of images, once",
        description="Estimate the intrinsics of every image in a folder and below it with AnyCalib "
        "(if installed), and write them as JSON lines: {image, intrinsics: [fx, fy, cx, cy, width, "
        "height]}. `vlm3 evaluate spatialrgpt:FILE --camera-info` and the key `camera` of a "
        "source in training read this file. A run that was interrupted goes on.",
    )
    parser.add_argument("images", type=Path, help="folder of images (.jpg, .png)")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="file of JSON lines (.jsonl)"
    )
    parser.add_argument(
        "--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from vlm3_ros.cli.progress import progress_bar
    from vlm3_ros.datasets.estimated_intrinsics import estimate_intrinsics
    from vlm3_ros.datasets.photo_cameras import LINES
    from vlm3_ros.engines.anycalib import load_anycalib
    from vlm3_ros.errors import CommandError

    if options.out.suffix != LINES:
        raise CommandError(f"--out {options.out}: name a {LINES} file")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    calibrate = load_anycalib(options.device)
    with progress_bar("images") as progress:
        count, faults = estimate_intrinsics(options.images, options.out, calibrate, progress)
    for fault in faults[:_SHOWN_FAULTS]:
        print(f"left out: {fault}", file=sys.stderr)
    if len(faults) > _SHOWN_FAULTS:
        print(f"left out: {len(faults) - _SHOWN_FAULTS} more images", file=sys.stderr)
    print(f"{options.out} has the intrinsics of {count} images")
    return 0
