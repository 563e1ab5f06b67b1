# SPDX-License-Identifier: Apache-2.0
"""Compare ways to make 3D boxes of objects from a model's answers.

    python benchmarks/object_boxes.py [--objects 250] [--model FOLDER] [--seed 0]

Asks about objects of held-out procedural scenes, whose true boxes are known, as query_node does.
Prints the mean and median of relative errors, once with the model's depths and once with the true
depths:

    depth          depth of the object's front, by how the 3 x 3 depths in its box are reduced
    width, height  as the model answers them, and from the box's angles at that depth
    centre         distance from the true centre as a share of its range, by the assumed extent of
                   the object along the ray
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlm3_lab.scenes.seen_objects import SeenObject, seen_objects
from vlm3_lab.studies.tasks.objects import evaluation_objects
from vlm3_ros.datasets.views import View
from vlm3_ros.engines.base import Engine
from vlm3_ros.engines.load import load_engine
from vlm3_ros.engines.settings import EngineSettings
from vlm3_ros.paths import default_model
from vlm3_ros.tasks.depth import ask_depth
from vlm3_ros.tasks.objects import Box, Quantity, ask_objects

SHARES = (0.25, 0.5, 0.75)
"""Positions of the asked pixels along each side of a box, as in `vlm3_ros.tasks.located`."""

Numbers = NDArray[np.float64]

DEPTHS: dict[str, Callable[[Numbers], Numbers]] = {
    "middle pixel": lambda depths: depths[:, 4],
    "median": lambda depths: np.nanmedian(depths, axis=1),
    "lower quartile": lambda depths: np.nanquantile(depths, 0.25, axis=1),
    "nearest": lambda depths: np.nanmin(depths, axis=1),
}
EXTENTS: dict[str, Callable[[Numbers], Numbers]] = {
    "flat": lambda size: np.zeros(len(size)),
    "its width": lambda size: size[:, 0],
    "the smaller of width and height": lambda size: size.min(axis=1),
}


@dataclass(frozen=True)
class Measured:
    """Answers and truth, one row per object, in metres.

    Attributes:
        sides: width and height of the image box at a depth of 1 m, shape (n, 2).
        rays: through the middle of the box, with z = 1, shape (n, 3).
        depths, true_depths: at the asked pixels, shape (n, 9).
        sizes: answered width and height, shape (n, 2).
        extents: true width, height and depth, shape (n, 3).
        centres: true, in the optical frame, shape (n, 3).
    """

    sides: Numbers
    rays: Numbers
    depths: Numbers
    true_depths: Numbers
    sizes: Numbers
    extents: Numbers
    centres: Numbers


def measure(engine: Engine, count: int, seed: int) -> Measured:
    """Ask about views until there are at least `count` objects."""
    rows: list[tuple[Numbers, ...]] = []
    index = 0
    while len(rows) < count:
        view, _ = evaluation_objects(seed, index)
        index += 1
        rows += rows_of(engine, view)
    return Measured(*(np.array(column) for column in zip(*rows, strict=True)))


def rows_of(engine: Engine, view: View) -> list[tuple[Numbers, ...]]:
    """Return a row per object of a view, in the order of the fields of `Measured`."""
    things, camera = seen_objects(view), view.camera
    boxes: list[Box] = [tuple(thing.box.tolist()) for thing in things]
    grid = np.stack(np.meshgrid(SHARES, SHARES), axis=-1).reshape(1, -1, 2)
    corners = np.array(boxes).reshape(-1, 2, 2)
    pixels = corners[:, :1] + grid * (corners[:, 1:] - corners[:, :1])
    depths = ask_depth(engine, view.image, camera, pixels).depth.reshape(len(things), -1)
    u, v = np.rint(pixels).astype(int).T
    true_depths = view.depth.astype(float)[v, u].T
    questions = [Quantity(size, box) for box in boxes for size in ("width", "height")]
    values = ask_objects(engine, view.image, camera, questions).values
    sizes = np.array(values, dtype=float).reshape(-1, 2)
    sides = (corners[:, 1] - corners[:, 0] + 1) / (camera.fx, camera.fy)
    rays = camera.rays(corners.mean(axis=1))
    return [
        (sides[i], rays[i], depths[i].astype(float), true_depths[i], sizes[i], *true_box(view, t))
        for i, t in enumerate(things)
    ]


def true_box(view: View, thing: SeenObject) -> tuple[Numbers, Numbers]:
    """Return extent (width, height, depth) and centre in the optical frame, metres, shapes (3,)."""
    R_world_camera = view.T_world_camera[:3, :3]
    up = np.array([0.0, 0.0, 1.0])
    ahead = R_world_camera[:, 2] * (1, 1, 0)
    ahead /= np.linalg.norm(ahead)
    R_world_upright = np.stack([np.cross(ahead, up), up, ahead]).T
    return thing.extent, R_world_camera.T @ R_world_upright @ thing.centre


def report(measured: Measured) -> None:
    """Print all errors."""
    front = measured.centres[:, 2] - measured.extents[:, 2] / 2
    print(f"{len(front)} objects; mean and median of relative errors")
    for source, depths in (("model", measured.depths), ("true", measured.true_depths)):
        print(f"\nwith {source} depths")
        known = np.where(np.isfinite(depths), depths, np.nan)
        for name, reduced in DEPTHS.items():
            print(line("depth", name, (reduced(known) - front) / front))
        depth = DEPTHS["lower quartile"](known)
        for name, size in (("box", measured.sides * depth[:, None]), ("model", measured.sizes)):
            errors = (size - measured.extents[:, :2]) / measured.extents[:, :2]
            print(line("width", f"by {name}", errors[:, 0]))
            print(line("height", f"by {name}", errors[:, 1]))
        ranges = np.linalg.norm(measured.centres, axis=1)
        for name, extent in EXTENTS.items():
            centres = measured.rays * (depth + extent(measured.sizes) / 2)[:, None]
            offsets = np.linalg.norm(centres - measured.centres, axis=1) / ranges
            print(line("centre", f"deep as {name}" if name != "flat" else name, offsets))


def line(what: str, how: str, errors: Numbers) -> str:
    """Format a row of the table."""
    size = np.abs(errors)
    return f"  {what:8}{how:40}{np.nanmean(size):7.3f}{np.nanmedian(size):7.3f}"


def main() -> None:
    """Ask and print the errors."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--objects", type=int, default=250, help="minimum number of objects")
    parser.add_argument(
        "--model", type=Path, default=default_model(), help="checkpoint folder or id"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the scenes")
    options = parser.parse_args()
    engine = load_engine(EngineSettings(str(options.model)))
    report(measure(engine, options.objects, options.seed))
    engine.close()


if __name__ == "__main__":
    main()
