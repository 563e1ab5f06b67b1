# SPDX-License-Identifier: Apache-2.0
"""`vlm3 figure`: draw all tasks in one picture, as figure 3 of the paper."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from vlm3_ros.cli.arguments import natural_number, positive_integer
from vlm3_ros.cli.camera_options import add_camera_options, given_cameras
from vlm3_ros.cli.model_options import add_focal_option, add_model_options, loaded_engines
from vlm3_ros.errors import CommandError
from vlm3_ros.paths import Task

if TYPE_CHECKING:
    from vlm3_ros.engines.base import Engine
    from vlm3_ros.evaluation.pictures.cloud import CloudFrame
    from vlm3_ros.evaluation.pictures.object import ObjectFrame
    from vlm3_ros.evaluation.pictures.pair import PairFrame

    Sections = tuple[list[CloudFrame], list[PairFrame], list[ObjectFrame]]

_PHOTOS = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "figure",
        help="draw all tasks in one picture",
        description="Draw the answers of a checkpoint, as in figure 3 of the paper: depth as point "
        "clouds seen from the side, lines between matching pixels, the motion of the camera, and "
        "answers about boxed objects, each next to the truth if it is known. DATA are photos by "
        "one camera (consecutive photos are a pair) or a bag; without DATA, procedural views of "
        "each kind of scene are drawn.",
        epilog="examples: vlm3 figure --seed 3 --out figure.png; vlm3 figure drive.mcap --out "
        "figure.png; vlm3 figure first.jpg second.jpg --hfov 60 --box 40 80 120 200 --out "
        "figure.png",
    )
    parser.add_argument(
        "data", nargs="*", type=Path, metavar="DATA", help="photos, or a bag as for evaluate"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="PNG", help="file to write")
    parser.add_argument(
        "--rows",
        type=positive_integer,
        default=2,
        metavar="N",
        help="examples per task, from a bag or from procedural views (default: 2)",
    )
    parser.add_argument(
        "--seed",
        type=natural_number,
        default=0,
        metavar="S",
        help="seed of the procedural views (default: 0)",
    )
    add_camera_options(parser, "the photo's EXIF focal length")
    parser.add_argument(
        "--box",
        type=float,
        nargs=4,
        action="append",
        metavar=("LEFT", "TOP", "RIGHT", "BOTTOM"),
        help="outermost pixels of an object in the first photo; repeatable",
    )
    add_focal_option(parser)
    add_model_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from vlm3_lab.studies.figure import draw_figure

    if options.out.suffix.lower() != ".png":
        raise CommandError(f"--out {options.out}: the output is a PNG, name a .png file")
    is_photos = bool(options.data) and all(p.suffix.lower() in _PHOTOS for p in options.data)
    if len(options.data) > 1 and not is_photos:
        raise CommandError("figure takes photos, or one bag")
    if options.cameras and not is_photos:
        raise CommandError("--hfov and --camera-info are for photos")
    if options.box and not is_photos:
        raise CommandError("--box is for photos")
    options.out.absolute().parent.mkdir(parents=True, exist_ok=True)
    with loaded_engines(options, *get_args(Task)) as engines:
        if is_photos:
            sections = _of_photos(engines, options)
        elif options.data:
            sections = _of_bag(engines, options)
        else:
            sections = _of_views(engines, options)
    draw_figure(options.out, *sections)
    for name, frames in zip(("correspondence and pose", "objects"), sections[1:], strict=True):
        if not frames:
            print(f"without {name}: not asked, or not learned by the model")
    print(f"wrote {options.out}")
    return 0


def _of_views(engines: Mapping[str, Engine], options: argparse.Namespace) -> Sections:
    from vlm3_lab.studies.figure import synthetic_figure

    return synthetic_figure(engines, options.seed, options.rows, options.focal)


def _of_bag(engines: Mapping[str, Engine], options: argparse.Namespace) -> Sections:
    from vlm3_lab.studies.figure import bag_figure
    from vlm3_ros.evaluation.bag.evaluate import bag_source

    with bag_source(options.data[0]) as source:
        clouds, pairs = bag_figure(engines, source, options.rows, options.focal)
    return clouds, pairs, []


def _of_photos(engines: Mapping[str, Engine], options: argparse.Namespace) -> Sections:
    from vlm3_lab.studies.figure import asked_pair, cloud_frame, has_learned_pairs
    from vlm3_ros.cli.ask_objects import questions_about, rectified_box
    from vlm3_ros.cli.photos import read_shot
    from vlm3_ros.evaluation.metrics.objects import Asked
    from vlm3_ros.evaluation.pictures.object import ObjectFrame
    from vlm3_ros.language.wordings.objects import RELATIONS
    from vlm3_ros.tasks.objects import ask_objects

    given = given_cameras(options, len(options.data))
    shots = [read_shot(path, camera) for path, camera in zip(options.data, given, strict=True)]
    names = [path.name for path in options.data]
    clouds = [
        cloud_frame(engines["depth"], name, shot.image, shot.camera, view_focal=options.focal)
        for name, shot in zip(names, shots, strict=True)
    ]
    pairs, objects = [], []
    asks_pairs = has_learned_pairs(engines)
    for one, other in itertools.pairwise(range(len(shots))) if asks_pairs else ():
        first, second = shots[one], shots[other]
        images, cameras = (first.image, second.image), (first.camera, second.camera)
        title = f"{names[one]}, {names[other]}"
        pairs.append(asked_pair(engines, title, images, cameras))
    if options.box:
        shot = shots[0]
        boxes = [rectified_box(shot, box) for box in options.box]
        answers = ask_objects(
            engines["objects"], shot.image, shot.camera, questions_about(boxes, RELATIONS[::2])
        )
        answered = zip(answers.questions, answers.values, strict=True)
        asked = tuple(Asked(question, float("nan"), value) for question, value in answered)
        objects.append(ObjectFrame(names[0], shot.image, asked))
    return clouds, pairs, objects
