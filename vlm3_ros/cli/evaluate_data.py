# SPDX-License-Identifier: Apache-2.0
"""`vlm3 evaluate FORMAT:PATH`: score a checkpoint on a data set."""

from __future__ import annotations

import argparse
from pathlib import Path

from vlm3_ros.cli.arguments import number_between, positive_integer
from vlm3_ros.cli.camera_options import given_camera
from vlm3_ros.cli.model_options import check_chosen, loaded_engines
from vlm3_ros.engines import anycalib
from vlm3_ros.engines.settings import model_name
from vlm3_ros.errors import CommandError
from vlm3_ros.paths import Task

TASK_OF: dict[str, Task] = {
    "depth": "depth",
    "pose": "pose",
    "match": "correspondence",
    "objects": "objects",
}
"""Tasks by their name on the command line."""

SCENE_LIST = "names of the scenes to use, of a wai data set: a text file or .npy (default: all)"

_PROTOCOLS = {"depthlm": "DepthLM", "authors": "VLM3"}
"""Formats whose protocol wants greedy answers, not medians of distributions, and its name."""


def add_data_options(parser: argparse.ArgumentParser, title: str) -> list[argparse.Action]:
    """Add the options of data sets."""
    group = parser.add_argument_group(title)
    images = group.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="folder that image paths start from (default: the folder of the file)",
    )
    scene_list = group.add_argument("--scene-list", type=Path, metavar="FILE", help=SCENE_LIST)
    task = group.add_argument(
        "--task",
        nargs="+",
        choices=list(TASK_OF),
        metavar="TASK",
        help=f"what is scored: {', '.join(TASK_OF)} (default: all that the data set serves)",
    )
    pairs = group.add_argument(
        "--pairs",
        type=Path,
        metavar="FILE",
        help='pairs of frames for pose and match: a JSON list, [["a.png", "b.png"], [0, 12]], of '
        "names or numbers of frames",
    )
    covisibility = group.add_argument(
        "--covisibility",
        type=number_between(float, 0, 1),
        metavar="SHARE",
        help="least share of each frame that the other one shows, without --pairs (default: 0.25, "
        "or the pairs that the data set lists)",
    )
    frames = group.add_argument(
        "--frames",
        type=positive_integer,
        metavar="N",
        help="frames that are asked about, and pairs, drawn at random (default: all)",
    )
    published = group.add_argument(
        "--published",
        action="store_true",
        help="also show what the paper reports about these tasks, in tables of their own",
    )
    return [images, scene_list, task, pairs, covisibility, frames, published]


def evaluate_on_data(text: str, options: argparse.Namespace) -> int:
    """Score a checkpoint on a data set, given as FORMAT:PATH; return the exit status."""
    from rich.console import Console

    from vlm3_ros.cli.progress import progress_bar
    from vlm3_ros.datasets.opening import SourceOptions, open_source
    from vlm3_ros.evaluation.dataset.evaluate import data_result, data_tasks, evaluate_data
    from vlm3_ros.evaluation.dataset.settings import DataSettings
    from vlm3_ros.evaluation.output import print_result, write_result
    from vlm3_ros.evaluation.parts.base import draw_pictures

    if options.pairs and options.covisibility is not None:
        raise CommandError("--pairs and --covisibility both choose pairs: give one of them")
    form, _, path = text.partition(":")
    if form in _PROTOCOLS:
        options.force_answers = False
    camera = given_camera(options)
    is_estimated = camera is None and _takes_calibrator(form) and anycalib.is_installed()
    calibrator = anycalib.load_anycalib if is_estimated else None
    source = open_source(
        text,
        SourceOptions(
            images=options.images,
            camera=camera,
            scene_list=options.scene_list,
            calibrator=calibrator,
        ),
    )
    wanted = tuple(dict.fromkeys(TASK_OF[name] for name in options.task or ()))
    data = data_tasks(source, wanted, options.pairs, options.covisibility)
    if options.focal is not None and data.tasks == ("objects",):
        raise CommandError(
            "--focal is for depth only: objects are asked at the model's own focal length"
        )
    settings = DataSettings(
        options.frames,
        options.pixels,
        options.matches,
        options.seed,
        options.focal,
    )
    options.out.mkdir(parents=True, exist_ok=True)
    with loaded_engines(options, *data.tasks) as engines:
        check_chosen(options, engines, wanted)
        names = {task: model_name(engine.name) for task, engine in engines.items()}
        evaluation = evaluate_data(engines, names, data, settings, progress_bar)
    kind = "jsonl" if form == "depthlm" else form
    result = data_result(
        evaluation, kind, Path(path).absolute().name, _PROTOCOLS.get(form, ""), options.published
    )
    pictures = draw_pictures(evaluation.parts, evaluation.names, options.out)
    wrote = [*write_result(result, options.out, list(pictures.values())), *pictures]
    print_result(Console(highlight=False), result)
    print(f"wrote {', '.join(wrote)} to {options.out}")
    return 0


def _takes_calibrator(form: str) -> bool:
    """Return whether a format has images without intrinsics."""
    from vlm3_ros.datasets.opening import FORMATS

    return form in FORMATS and "calibrator" in FORMATS[form].options
