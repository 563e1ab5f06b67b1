# SPDX-License-Identifier: Apache-2.0
"""`vlm3 evaluate spatialrgpt:FILE`: score a checkpoint by the categories of SpatialRGPT-Bench."""

from __future__ import annotations

import argparse
from pathlib import Path

from vlm3_ros.cli.camera_options import given_camera
from vlm3_ros.cli.model_options import loaded_engine
from vlm3_ros.engines import anycalib
from vlm3_ros.engines.settings import model_name
from vlm3_ros.errors import CommandError

PREFIX = "spatialrgpt:"
"""What precedes the file on the command line."""


def evaluate_on_spatialrgpt(options: argparse.Namespace) -> int:
    """Score answers about objects on a data set; return the exit status."""
    from rich.console import Console

    from vlm3_ros.cli.progress import progress_bar
    from vlm3_ros.datasets.photo_cameras import PhotoCameras
    from vlm3_ros.datasets.spatialrgpt import read_spatialrgpt
    from vlm3_ros.evaluation.conversations import conversations_result, evaluate_conversations
    from vlm3_ros.evaluation.output import print_result, write_result

    if options.focal is not None:
        raise CommandError(
            "--focal is for depth only: objects are asked at the model's own focal length"
        )
    given = given_camera(options)
    estimates = given is None and anycalib.is_installed()
    cameras = PhotoCameras(given, anycalib.load_anycalib if estimates else None)
    path = Path(str(options.data).removeprefix(PREFIX))
    source = read_spatialrgpt(path, options.images, cameras)
    options.out.mkdir(parents=True, exist_ok=True)
    with loaded_engine(options, "objects") as engine, progress_bar("images") as progress:
        evaluated = evaluate_conversations(engine, source, progress)
        name = model_name(engine.name)
    result = conversations_result(name, path.name, evaluated)
    wrote = write_result(result, options.out)
    print_result(Console(highlight=False), result)
    print(f"wrote {', '.join(wrote)} to {options.out}")
    return 0
