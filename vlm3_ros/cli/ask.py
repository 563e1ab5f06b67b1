"""`vlm3 ask`: metric depth of pixels of a photo."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vlm3_ros.cli.arguments import grid_size
from vlm3_ros.cli.errors import CommandError
from vlm3_ros.cli.model_options import add_focal_option, add_model_options, loaded_engine
from vlm3_ros.geometry.camera import PinholeCamera

if TYPE_CHECKING:
    from vlm3_ros.tasks.depth import DepthAnswers

_PICTURE_WIDTH = 640
"""Larger photos are shrunk to this width for the picture and the interpolated cloud."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "ask",
        help="measure depth in a photo",
        description="Ask a model how far away pixels of a photo are. Prints the depth along the "
        "camera's axis, the point in the camera's optical frame (x right, y down, z forward, "
        "metres) and the model's own words.",
        epilog="example: vlm3 ask photo.jpg --hfov 60 --pixel 320 240 --pixel 400 80",
    )
    parser.add_argument("photo", type=Path, help="JPEG, PNG, ...; turned as its EXIF data say")
    camera = parser.add_mutually_exclusive_group(required=True)
    camera.add_argument(
        "--hfov", type=float, metavar="DEG", help="horizontal field of view of the photo, degrees"
    )
    camera.add_argument(
        "--camera-info",
        type=Path,
        metavar="FILE",
        help="calibration in the YAML format of camera_calibration; the photo is rectified",
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "--pixel",
        type=float,
        nargs=2,
        action="append",
        metavar=("U", "V"),
        help="column and row of a pixel of the photo, from 0; may be repeated",
    )
    where.add_argument(
        "--grid", type=grid_size, metavar="CxR", help="a grid of C columns and R rows: 16x12"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="write depth.png, points.ply and, for a grid, the interpolated cloud.ply there",
    )
    add_focal_option(parser)
    add_model_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from vlm3_ros.cli.photos import read_photo
    from vlm3_ros.tasks.depth import ask_depth, uniform_grid

    photo = read_photo(options.photo)
    if options.camera_info:
        image, camera, pixels = _rectified(photo, options.camera_info, options.pixel)
    else:
        image = photo
        camera = PinholeCamera.from_hfov(photo.shape[1], photo.shape[0], options.hfov)
        pixels = None if options.pixel is None else np.array(options.pixel)
    if pixels is None:
        pixels = uniform_grid(camera, *options.grid)
    else:
        _check_inside(pixels, camera, options)
    with loaded_engine(options) as engine:
        answers = ask_depth(engine, image, camera, pixels, options.focal)
    if options.grid:
        print(_summary(answers))
    else:
        for (u, v), line in zip(options.pixel, answer_lines(answers, camera), strict=True):
            print(f"pixel ({u:g}, {v:g}): {line}")
    if options.out:
        _write(options.out, options.photo.name, image, camera, answers)
    return 0


def _rectified(
    photo: NDArray[np.uint8], calibration: Path, pixels: list[list[float]] | None
) -> tuple[NDArray[np.uint8], PinholeCamera, NDArray[np.float64] | None]:
    from vlm3_ros.geometry.lens import load_camera_yaml

    lens = load_camera_yaml(calibration)
    height, width = photo.shape[:2]
    if (lens.width, lens.height) != (width, height):
        raise CommandError(
            f"{calibration}: calibrates images of {lens.width}x{lens.height}, "
            f"but the photo is {width}x{height}"
        )
    rectified = None if pixels is None else lens.rectify_pixels(np.array(pixels))
    return lens.rectify(photo), lens.rectified, rectified


def _check_inside(
    pixels: NDArray[np.float64], camera: PinholeCamera, options: argparse.Namespace
) -> None:
    for (u, v), pixel in zip(options.pixel, pixels, strict=True):
        if not (-0.5 <= pixel[0] < camera.width - 0.5 and -0.5 <= pixel[1] < camera.height - 0.5):
            size = f"{camera.width}x{camera.height} image"
            where = f"rectified {size}" if options.camera_info else size
            raise CommandError(f"pixel ({u:g}, {v:g}) lies outside of the {where}")


def answer_lines(answers: DepthAnswers, camera: PinholeCamera) -> list[str]:
    """For each pixel its depth, its point in the optical frame and the raw answer, in words."""
    points = camera.unproject(answers.pixels, answers.depth)
    lines = []
    for depth, std, (x, y, z), text in zip(
        answers.depth, answers.std, points, answers.texts, strict=True
    ):
        if np.isnan(depth):
            lines.append(f"no depth in the answer {text!r}")
            continue
        spread = "" if np.isnan(std) else f" ± {std:.2f}"
        lines.append(f"{depth:.2f}{spread} m, point ({x:.2f}, {y:.2f}, {z:.2f}) m, answer {text!r}")
    return lines


def _summary(answers: DepthAnswers) -> str:
    known = answers.depth[np.isfinite(answers.depth)]
    asked = len(answers.depth)
    if not known.size:
        return f"{asked} pixels, none answered; the first answer is {answers.texts[0]!r}"
    near, middle, far = np.percentile(known, [0, 50, 100])
    return (
        f"{asked} pixels, {answers.failures} unanswered: "
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

    from vlm3_ros.evaluation.pictures import DepthFrame, draw_depth_frames
    from vlm3_ros.evaluation.ply import write_ply
    from vlm3_ros.tasks.dense import densify

    folder.mkdir(parents=True, exist_ok=True)
    scale = min(1.0, _PICTURE_WIDTH / camera.width)
    small = camera.resized(round(camera.width * scale), max(1, round(camera.height * scale)))
    shown = np.asarray(
        cv2.resize(image, (small.width, small.height), interpolation=cv2.INTER_AREA), np.uint8
    )
    pixels = (answers.pixels + 0.5) * scale - 0.5
    dense = densify(pixels, answers.depth, small.width, small.height)
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
