# SPDX-License-Identifier: Apache-2.0
"""`vlm3 dataset`: make a training set from recordings."""

from __future__ import annotations

import argparse
import re
from argparse import ArgumentTypeError
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vlm3_ros.cli.arguments import number_from_zero, positive_integer, positive_number
from vlm3_ros.cli.camera_options import add_camera_options, add_depth_options, given_camera
from vlm3_ros.cli.evaluate_data import SCENE_LIST
from vlm3_ros.errors import CommandError

if TYPE_CHECKING:
    from vlm3_lab.datasets.making import MakingOptions
    from vlm3_ros.evaluation.tables import TextTable

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "dataset",
        help="make a training set from recordings, or look at one of any format",
        description="Make a training set from bags (rosbag2 as mcap or sqlite3, or ROS 1) with "
        "images, depth (images, or point clouds of a LiDAR that TF relates to the camera) and "
        "poses. The set holds ten pixels with depth per frame, pairs of frames with a covisibility "
        "of at least 25 %, and boxes of objects if the bag has them. Writes rectified frames as "
        "JPEG, depth as PNG, frames.jsonl (in DepthLM's format: `vlm3 evaluate "
        "DIR/held_out.jsonl` scores on it), pairs.jsonl, dataset.json, report.html and pictures. "
        "Needs no ROS. To continue a run that was cut off, give the same command again; to add a "
        "bag, name it. With --look, nothing is made: it shows what would be learned from a data "
        "set.",
        epilog="examples: vlm3 dataset drive1.mcap drive2.mcap --out out/drives --held-out 0.2; "
        "vlm3 dataset --look tum:rgbd_dataset_freiburg1_desk --out out/desk",
    )
    parser.add_argument(
        "bags",
        nargs="*",
        type=Path,
        metavar="BAG",
        help="a rosbag2 folder, an .mcap, .db3 or ROS 1 .bag file",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder of the training set"
    )
    parser.add_argument(
        "--look",
        metavar="FORMAT:PATH",
        help="draw frames, pairs and distributions of a data set, such as tum:DIR (formats: "
        "docs/datasets.md; --hfov or --camera-info describe the camera of those that lack it)",
    )
    parser.add_argument(
        "--frames",
        type=positive_integer,
        default=200,
        metavar="N",
        help="frames, and pairs, that --look reads (default: 200)",
    )
    parser.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="folder of the images that --look needs, where they do not lie beside the data set",
    )
    parser.add_argument("--scene-list", type=Path, metavar="FILE", help=SCENE_LIST)
    _add_topic_options(parser)
    _add_selection_options(parser)
    parser.add_argument(
        "--depth-scale",
        type=positive_number,
        metavar="FACTOR",
        help="factor on depth whose unit is not that of REP-118 (16UC1: millimetres, 32FC1: "
        "metres); for example 0.001 for millimetres in 32FC1",
    )
    parser.add_argument(
        "--jpeg-quality",
        type=positive_integer,
        default=90,
        metavar="Q",
        help="JPEG quality of the stored images, 1 to 100 (default: 90)",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    if bool(options.bags) == bool(options.look):
        raise CommandError("dataset takes bags to make a training set from, or --look FORMAT:PATH")
    return _look(options) if options.look else _make(options)


def _look(options: argparse.Namespace) -> int:
    from vlm3_lab.datasets.look import look_at, look_facts, look_tables, write_look
    from vlm3_ros.cli.progress import progress_bar
    from vlm3_ros.datasets.opening import SourceOptions, open_source

    source = open_source(
        options.look,
        SourceOptions(
            images=options.images, camera=given_camera(options), scene_list=options.scene_list
        ),
    )
    with progress_bar("frames and pairs") as progress:
        look = look_at(source, options.frames, progress)
    options.out.mkdir(parents=True, exist_ok=True)
    wrote = write_look(look, options.out)
    _print(look_tables(look), look_facts(look))
    print(f"wrote {', '.join(wrote)} to {options.out}")
    return 0


def _make(options: argparse.Namespace) -> int:
    from vlm3_lab.datasets.making import make_dataset
    from vlm3_lab.datasets.report import dataset_tables, left_out_facts, write_report
    from vlm3_ros.cli.progress import progress_bar
    from vlm3_ros.datasets.own import load_dataset

    with progress_bar("frames and pairs") as progress:
        make_dataset(options.out, options.bags, _making(options), progress)
    dataset = load_dataset(options.out)
    wrote = write_report(dataset)
    _print(dataset_tables(dataset), left_out_facts(dataset))
    print(f"wrote frames.jsonl, held_out.jsonl, pairs.jsonl, {', '.join(wrote)} to {options.out}")
    return 0


def _print(tables: Sequence[TextTable], facts: Mapping[str, str]) -> None:
    from rich.console import Console
    from rich.markup import escape

    from vlm3_ros.evaluation.tables import rich_table

    console = Console(highlight=False)
    for table in tables:
        console.print(rich_table(table))
    for name, text in facts.items():
        console.print(f"[bold]{escape(name)}[/bold]: {escape(text)}", soft_wrap=True)


def byte_count(text: str) -> int:
    """Parse a number of bytes, such as 500M or 4G."""
    found = re.fullmatch(r"([1-9]\d*)([KMG]?)B?", text, re.IGNORECASE)
    if not found:
        raise ArgumentTypeError(f"'{text}' is not a number of bytes such as 500M or 4G")
    return int(found[1]) * _UNITS[found[2].upper()]


def share(text: str) -> float:
    """Parse a share, 0 or more and below 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise ArgumentTypeError(f"'{text}' is not a share: use 0 or more, below 1")
    return value


def _add_topic_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("recording (topics: default: found by type and content)")
    for name, what in (
        ("image", "images"),
        ("camera-info", "their calibration"),
        ("depth", "depth images"),
        ("lidar", "point clouds of a LiDAR, used instead of depth images"),
    ):
        group.add_argument(f"--{name}-topic", metavar="TOPIC", help=what)
    group.add_argument(
        "--gt",
        metavar="TOPIC|FRAME",
        help="poses: a topic of Odometry or PoseStamped, or a TF frame in which the robot moves",
    )
    add_camera_options(group, "the bag's CameraInfo", "recording")
    add_depth_options(group)
    group.add_argument("--rectified", action="store_true", help="the images are already rectified")


def _add_selection_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("choice of frames, per bag")
    group.add_argument(
        "--held-out",
        type=share,
        default=0.2,
        metavar="SHARE",
        help="hold out the frames of this last share of the duration (default: 0.2)",
    )
    group.add_argument(
        "--held-out-gap",
        type=number_from_zero,
        default=1.0,
        metavar="SECONDS",
        help="drop frames this long before the held-out ones (default: 1)",
    )
    group.add_argument(
        "--min-gap",
        type=number_from_zero,
        default=0.1,
        metavar="SECONDS",
        help="least time between two frames (default: 0.1)",
    )
    group.add_argument(
        "--min-motion",
        type=number_from_zero,
        default=0.05,
        metavar="METRES",
        help="least motion of the camera between two frames, unless it turns by 2 degrees; 0 keeps "
        "the frames of a camera at rest (default: 0.05)",
    )
    group.add_argument(
        "--max-images",
        type=positive_integer,
        default=1000,
        metavar="N",
        help="largest number of frames, taken evenly (default: 1000)",
    )
    group.add_argument(
        "--max-bytes",
        type=byte_count,
        default=4 * 10**9,
        metavar="N",
        help="limit on images and depth of the whole folder, for example 500M (default: 4G)",
    )


def _making(options: argparse.Namespace) -> MakingOptions:
    from vlm3_lab.datasets.making import MakingOptions
    from vlm3_lab.datasets.recordings import TopicOptions
    from vlm3_lab.datasets.selection import Selection

    if options.jpeg_quality > 100:
        raise CommandError(f"--jpeg-quality is {options.jpeg_quality}: use 1 to 100")
    return MakingOptions(
        topics=TopicOptions(
            image=options.image_topic,
            camera_info=options.camera_info_topic,
            depth=options.depth_topic,
            lidar=options.lidar_topic,
            ground_truth=options.gt,
            is_rectified=options.rectified,
            camera=given_camera(options),
            depth_camera=options.depth_camera,
            max_offset=options.max_offset,
        ),
        selection=Selection(
            held_out=options.held_out,
            held_out_gap=options.held_out_gap,
            min_gap=options.min_gap,
            min_motion=options.min_motion,
            max_images=options.max_images,
        ),
        depth_scale=options.depth_scale,
        jpeg_quality=options.jpeg_quality,
        max_bytes=options.max_bytes,
    )
