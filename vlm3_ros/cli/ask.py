# SPDX-License-Identifier: Apache-2.0
"""`vlm3 ask`: metric depth of pixels in a photo.

For objects see `vlm3_ros.cli.ask_objects`, for two photos `vlm3_ros.cli.ask_pair`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vlm3_ros.cli.arguments import grid_size
from vlm3_ros.cli.camera_options import add_camera_options, given_cameras
from vlm3_ros.cli.model_options import add_focal_option, add_model_options, loaded_engine
from vlm3_ros.cli.photos import read_shot
from vlm3_ros.errors import CommandError, NoAnswersError
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.language.wordings.objects import RELATIONS

if TYPE_CHECKING:
    from vlm3_ros.tasks.depth import DepthAnswers

_PICTURE_WIDTH = 640
"""Maximum width in pixels of the picture and the dense cloud."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "ask",
        help="measure depth and objects in a photo, or the motion between two",
        description="Ask a model for the depth of pixels in a photo. Prints the depth along the "
        "camera's axis, the point in the camera's optical frame (x right, y down, z forward, in "
        "metres) and the model's own words. Or ask about objects, given by their boxes: their "
        "sizes, distances, directions and relations (12 o'clock is away from the camera, 3 o'clock "
        "to its right). Or ask how the camera moved from one photo to a second one (positive yaw "
        "turns right, positive pitch looks up, positive roll banks right), and where the second "
        "photo shows a pixel of the first.",
        epilog="examples: vlm3 ask photo.jpg --hfov 60 --pixel 320 240 --pixel 400 80; "
        "vlm3 ask photo.jpg --hfov 60 --box 10 20 100 200 --box 120 30 180 220 --relation left; "
        "vlm3 ask first.jpg second.jpg --hfov 60 --pose --match 320 240 --out pair.png",
    )
    parser.add_argument(
        "photo", type=Path, help="JPEG, PNG, ...; rotated according to its EXIF data"
    )
    parser.add_argument(
        "second",
        type=Path,
        nargs="?",
        help="a second photo, for --pose and --match",
    )
    add_camera_options(parser, "the photo's EXIF focal length")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--pixel",
        type=float,
        nargs=2,
        action="append",
        metavar=("U", "V"),
        help="column and row of a pixel in the photo, from 0; may be repeated",
    )
    where.add_argument(
        "--grid",
        type=grid_size,
        metavar="CxR",
        help="a grid of C columns and R rows, such as 16x12",
    )
    parser.add_argument(
        "--box",
        type=float,
        nargs=4,
        action="append",
        metavar=("LEFT", "TOP", "RIGHT", "BOTTOM"),
        help="box of an object in the photo, by its outermost pixels; may be repeated",
    )
    parser.add_argument(
        "--relation",
        choices=RELATIONS,
        action="append",
        metavar="NAME",
        help="relation to ask about for every two boxes: one of "
        f"{', '.join(RELATIONS)}; may be repeated (default: one of each pair of opposites)",
    )
    parser.add_argument(
        "--pose",
        action="store_true",
        help="ask how the camera moved from the photo to the second one",
    )
    parser.add_argument(
        "--match",
        type=float,
        nargs=2,
        action="append",
        metavar=("U", "V"),
        help="ask where the second photo shows this pixel of the first; may be repeated",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="PATH",
        help="where to write results. For depth a folder, for depth.png, points.ply and, with a "
        "grid, the dense cloud.ply; for objects or two photos a .png file, for a picture of the "
        "boxes, or of the matches and the motion",
    )
    add_focal_option(parser)
    add_model_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    asks_depth = bool(options.pixel or options.grid)
    asks_pair = bool(options.pose or options.match)
    asks_objects = bool(options.box)
    if [asks_depth, asks_pair, asks_objects].count(True) != 1:
        raise CommandError(
            "ask for depth with --pixel or --grid, about objects with --box, or about two photos "
            "with --pose, --match or both"
        )
    if options.relation and not asks_objects:
        raise CommandError("--relation is about objects: give them with --box")
    if asks_pair:
        from vlm3_ros.cli.ask_pair import ask_about_pair

        return ask_about_pair(options)
    if asks_objects:
        from vlm3_ros.cli.ask_objects import ask_about_objects

        return ask_about_objects(options)
    return _ask_depth(options)


def _ask_depth(options: argparse.Namespace) -> int:
    from vlm3_ros.evaluation.answer_counts import answer_notes, count_answers
    from vlm3_ros.evaluation.tolerance import TolerantEngine
    from vlm3_ros.tasks.depth import ask_depth, uniform_grid

    if options.second is not None:
        raise CommandError(f"depth is asked about one photo: remove {options.second}")
    shot = read_shot(options.photo, *given_cameras(options, 1))
    image, camera = shot.image, shot.camera
    if options.grid:
        pixels = uniform_grid(camera, *options.grid)
    else:
        pixels = shot.rectified_pixels(options.pixel)
    with loaded_engine(options, "depth") as engine:
        answers = ask_depth(TolerantEngine(engine), image, camera, pixels, options.focal)
    counts = count_answers(len(pixels), answers.missing)
    if not options.grid:
        for (u, v), line in zip(options.pixel, answer_lines(answers, camera), strict=True):
            print(f"pixel ({u:g}, {v:g}): {line}")
    if not counts.answered:
        raise NoAnswersError(counts.complaint())
    if options.grid:
        print(_summary(answers))
        for title, reasons in answer_notes({"depth": counts}).items():
            print(f"{title}: {reasons}")
    if options.out:
        _write(options.out, options.photo.name, image, camera, answers)
    return 0


def answer_lines(answers: DepthAnswers, camera: PinholeCamera) -> list[str]:
    """Format the depth, the point in the optical frame and the raw answer of each pixel.

    For a pixel without a depth: the reason.
    """
    points = camera.unproject(answers.pixels, answers.depth)
    lines = []
    for depth, std, (x, y, z), text, missing in zip(
        answers.depth, answers.std, points, answers.texts, answers.missing, strict=True
    ):
        if missing is not None:
            lines.append(f"no depth: {missing}")
            continue
        spread = "" if np.isnan(std) else f" ± {std:.2f}"
        lines.append(f"{depth:.2f}{spread} m, point ({x:.2f}, {y:.2f}, {z:.2f}) m, answer {text!r}")
    return lines


def _summary(answers: DepthAnswers) -> str:
    known = answers.depth[np.isfinite(answers.depth)]
    near, middle, far = np.percentile(known, [0, 50, 100])
    return (
        f"{len(answers.depth)} pixels, {answers.failures} without a depth: "
        f"nearest {near:.2f} m, median {middle:.2f} m, farthest {far:.2f} m"
    )


def _write(
    folder: Path,
    name: str,
    image: NDArray[np.uint8],
    camera: PinholeCamera,
    answers: DepthAnswers,
) -> None:
    import cv2

    from vlm3_ros.evaluation.pictures.depth import DepthFrame, draw_depth_frames
    from vlm3_ros.evaluation.ply import write_ply
    from vlm3_ros.tasks.dense import densify

    folder.mkdir(parents=True, exist_ok=True)
    scale = min(1.0, _PICTURE_WIDTH / camera.width)
    small = camera.resized(round(camera.width * scale), max(1, round(camera.height * scale)))
    shown = np.asarray(
        cv2.resize(image, (small.width, small.height), interpolation=cv2.INTER_AREA), np.uint8
    )
    pixels = (answers.pixels + 0.5) * scale - 0.5
    dense = densify(shown, pixels, answers.depth)
    has_dense = bool(np.isfinite(dense).any())
    frame = DepthFrame("", shown, pixels, answers.depth, dense if has_dense else None, None)
    draw_depth_frames([frame], folder / "depth.png", name)

    u, v = np.clip(np.rint(answers.pixels), 0, (camera.width - 1, camera.height - 1)).astype(int).T
    written = ["depth.png", "points.ply"]
    points = camera.unproject(answers.pixels, answers.depth)
    write_ply(folder / "points.ply", points, image[v, u])
    if has_dense:
        cloud = small.unproject(small.pixel_grid(), dense).reshape(-1, 3)
        write_ply(folder / "cloud.ply", cloud, shown.reshape(-1, 3))
        written.append("cloud.ply")
    print(f"wrote {', '.join(written)} to {folder}")
