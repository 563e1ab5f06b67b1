# SPDX-License-Identifier: Apache-2.0
"""Compare ways to make a dense depth image from a few depths: fill methods and pixel choices.

    python benchmarks/dense_depth.py [--views 200] [--asked 50] [--seed 41] [--model FOLDER]
        [--bag BAG ...] [--picture PNG]

The sparse depths are true depths or a model's answers at 192 pixels per image. The images are
held-out procedural views and frames of bags with registered depth. All methods get the same images
in one process. The benchmark prints Markdown tables. Over the pixels for which all methods have a
depth: delta1, AbsRel, RMSE (metres) and AbsRel within 5 px of a true depth edge; the errors also as
a ratio to the first method's, in brackets. Then the share of pixels with known truth that got a
depth, and the median CPU time in milliseconds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.interpolate import LinearNDInterpolator, NearestNDInterpolator

from vlm3_lab.studies.tasks.depth import evaluation_view
from vlm3_ros.engines.base import Engine
from vlm3_ros.engines.load import load_engine
from vlm3_ros.engines.settings import EngineSettings
from vlm3_ros.evaluation.bag.evaluate import bag_source
from vlm3_ros.evaluation.metrics.depth import abs_rel, within_delta
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.paths import default_model
from vlm3_ros.tasks.dense import densify
from vlm3_ros.tasks.depth import ask_depth, uniform_grid
from vlm3_ros.tasks.sampling import adaptive_pixels

COLUMNS, ROWS = 16, 12
EDGE_RATIO, EDGE_REACH = 1.15, 5
"""Ratio of neighbouring true depths that makes an edge; distance in px that counts as near it."""

NOISE = 0.07
"""Relative standard deviation of the errors added to true depths, as of a good model."""

MAX_FRAMES = 20
"""Frames per bag, evenly spaced."""

Pixels = NDArray[np.float64]
Depths = NDArray[np.floating]


@dataclass(frozen=True)
class Shot:
    """An image with its true depth: shapes (height, width, 3) and (height, width), metres."""

    image: NDArray[np.uint8]
    truth: NDArray[np.float32]
    camera: PinholeCamera


Sparse = Callable[[Shot, Pixels], Depths]
Fill = Callable[[NDArray[np.uint8], Pixels, Depths], Depths]
Choose = Callable[[Shot], Pixels]


@dataclass(frozen=True)
class Way:
    """A pixel choice and a fill method, with their scores and CPU seconds per image."""

    name: str
    choose: Choose
    fill: Fill
    scores: list[tuple[float, ...]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def grid(shot: Shot) -> Pixels:
    """Return the pixels nearest to the centres of the grid's cells."""
    return np.rint(uniform_grid(shot.camera, COLUMNS, ROWS))


def patches(shot: Shot) -> Pixels:
    """Return as many adaptive pixels as the grid has."""
    return adaptive_pixels(shot.image, COLUMNS * ROWS)


def fill_nearest(image: NDArray[np.uint8], pixels: Pixels, depth: Depths) -> Depths:
    """Fill with the depth of the nearest pixel."""
    known = np.isfinite(depth)
    v, u = np.indices(image.shape[:2])
    return np.asarray(NearestNDInterpolator(pixels[known], depth[known])(u, v))


def fill_linear(image: NDArray[np.uint8], pixels: Pixels, depth: Depths) -> Depths:
    """Interpolate inverse depth linearly in the triangles between the pixels."""
    known = np.isfinite(depth)
    v, u = np.indices(image.shape[:2])
    return 1 / np.asarray(LinearNDInterpolator(pixels[known], 1 / depth[known])(u, v))


def true_depth(shot: Shot, pixels: Pixels) -> Depths:
    """Return the true depths; NaN for unknown depth and for sky."""
    u, v = pixels.astype(int).T
    depth = shot.truth[v, u]
    return np.where(np.isfinite(depth) & (depth > 0), depth, np.nan)


def noisy_depth(seed: int) -> Sparse:
    """True depths with independent log-normal errors."""
    rng = np.random.default_rng(seed)
    return lambda shot, pixels: true_depth(shot, pixels) * np.exp(rng.normal(0, NOISE, len(pixels)))


def is_near_edge(truth: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Mask of pixels within `EDGE_REACH` of a jump of the true depth."""
    is_known = np.isfinite(truth) & (truth > 0) | np.isposinf(truth)
    far = np.where(is_known, np.minimum(truth, 1e4), 0).astype(np.float32)
    near = np.where(is_known, np.minimum(truth, 1e4), 1e5).astype(np.float32)
    around = np.ones((3, 3), np.uint8)
    edges = cv2.dilate(far, around) > EDGE_RATIO * cv2.erode(near, around)
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * EDGE_REACH + 1,) * 2)
    return cv2.dilate(edges.astype(np.uint8), disk) > 0


def compare(ways: list[Way], shots: Iterator[Shot], sparse: Sparse) -> None:
    """Score all ways on the shots; skip shots with too few known depths."""
    for shot in shots:
        known, edges = np.isfinite(shot.truth) & (shot.truth > 0), is_near_edge(shot.truth)
        filled, depths = [], {}
        for way in ways:
            start = time.process_time()
            pixels = way.choose(shot)
            seconds = time.process_time() - start
            if way.choose not in depths:
                depths[way.choose] = sparse(shot, pixels)
            depth = depths[way.choose]
            if np.isfinite(depth).sum() < len(depth) / 10:
                break
            start = time.process_time()
            filled.append(way.fill(shot.image, pixels, depth))
            way.seconds.append(seconds + time.process_time() - start)
        if len(filled) < len(ways):
            continue
        scored = known & np.isfinite(filled).all(0)
        truth = shot.truth[scored].astype(float)
        for way, dense in zip(ways, filled, strict=True):
            way.scores.append(
                (
                    float(within_delta(dense[scored], truth).mean()),
                    abs_rel(dense[scored], truth),
                    float(np.sqrt(np.mean((dense[scored] - truth) ** 2))),
                    abs_rel(dense[scored & edges], shot.truth[scored & edges])
                    if (scored & edges).any()
                    else np.nan,
                    float(np.isfinite(dense)[known].mean()),
                )
            )


def print_table(title: str, ways: list[Way]) -> None:
    """Print the mean scores as a Markdown table."""
    means = [np.nanmean(way.scores, 0) for way in ways]
    print(f"\n{title}, {len(ways[0].scores)} images\n")
    print("| way | δ1 | AbsRel | RMSE m | AbsRel at edges | coverage | CPU ms |")
    print("|---|---|---|---|---|---|---|")
    for way, (delta1, error, rmse, edge, coverage) in zip(ways, means, strict=True):
        errors = zip((error, rmse, edge), means[0][1:4], strict=True)
        ratios = [f"({value / first:.2f})" for value, first in errors]
        print(
            f"| {way.name} | {delta1:.4f} | {error:.4f} {ratios[0]} | {rmse:.3f} {ratios[1]} "
            f"| {edge:.4f} {ratios[2]} | {coverage:.3f} "
            f"| {1000 * statistics.median(way.seconds):.0f} |",
            flush=True,
        )


def new_ways() -> list[Way]:
    """Return two baselines, and the package's fill from grid and from adaptive pixels."""
    return [
        Way("linear", grid, fill_linear),
        Way("nearest", grid, fill_nearest),
        Way("guided", grid, densify),
        Way("guided, adaptive pixels", patches, densify),
    ]


def views(count: int, seed: int) -> Iterator[Shot]:
    """Generate held-out procedural views of all kinds."""
    for index in range(count):
        view, _ = evaluation_view(seed, index)
        yield Shot(view.image, view.depth, view.camera)


def frames(bag: Path) -> list[Shot]:
    """Return up to `MAX_FRAMES` frames of a bag that have a depth image."""
    with bag_source(bag, None, None, None) as source:
        shots = [
            Shot(frame.image, frame.depth, frame.camera)
            for frame in source.frames
            if frame.depth is not None and frame.visible.all()
        ]
    return shots[:: -(-len(shots) // MAX_FRAMES)]


def answered_depth(engine: Engine) -> Sparse:
    """Sparse depths as a model answers them."""
    return lambda shot, pixels: ask_depth(engine, shot.image, shot.camera, pixels).depth


def print_times(engine: Engine, seed: int) -> None:
    """Print CPU times of fill, pixel choice and model at sizes of real cameras."""
    (shot,) = views(1, seed)
    print("\n| size | densify ms | adaptive pixels ms | model ms |")
    print("|---|---|---|---|")
    for size in ((640, 480), (1280, 720), (1920, 1080)):
        image = np.asarray(cv2.resize(shot.image, size), np.uint8)
        camera = PinholeCamera.from_hfov(*size, 70)
        pixels = np.rint(uniform_grid(camera, COLUMNS, ROWS))
        depth = ask_depth(engine, image, camera, pixels).depth
        steps: list[Callable[[], object]] = [
            lambda i=image, p=pixels, d=depth: densify(i, p, d),
            lambda i=image: adaptive_pixels(i, COLUMNS * ROWS),
            lambda i=image, c=camera, p=pixels: ask_depth(engine, i, c, p),
        ]
        medians = [statistics.median(_cpu_seconds(step) for _ in range(5)) for step in steps]
        print(f"| {size[0]}x{size[1]} | " + " | ".join(f"{1000 * s:.0f}" for s in medians) + " |")


def _cpu_seconds(step: Callable[[], object]) -> float:
    start = time.process_time()
    step()
    return time.process_time() - start


def draw(shots: list[Shot], path: Path) -> None:
    """Draw a row per shot: chosen pixels, dense depths from true ones, the truth, the errors."""
    ways = [
        Way("linear", grid, fill_linear),
        Way("guided", grid, densify),
        Way("guided, adaptive pixels", patches, densify),
    ]
    height = sum(shot.camera.height / shot.camera.width for shot in shots)
    figure = Figure(figsize=(16, 2 * height + 0.3), dpi=75, layout="constrained")
    FigureCanvasAgg(figure)
    ratios = [shot.camera.height / shot.camera.width for shot in shots]
    panels = figure.subplots(len(shots), 8, height_ratios=ratios, squeeze=False)
    for row, shot in zip(panels, shots, strict=True):
        known = np.where(np.isfinite(shot.truth), shot.truth, np.nan)
        near, far = np.nanpercentile(known, [1, 99])
        scale = {"vmin": np.log(near), "vmax": np.log(far), "cmap": "turbo_r"}
        row[0].imshow(shot.image)
        row[0].scatter(*grid(shot).T, s=1, color="white")
        row[1].imshow(shot.image)
        row[1].scatter(*patches(shot).T, s=1, color="white")
        row[4].imshow(np.log(known), **scale)
        for way, depth_axes, error_axes in zip(ways, [row[2], row[3], None], row[5:], strict=True):
            pixels = way.choose(shot)
            dense = way.fill(shot.image, pixels, true_depth(shot, pixels))
            if depth_axes:
                depth_axes.imshow(np.log(dense), **scale)
            error_axes.imshow((dense - known) / known, vmin=-0.5, vmax=0.5, cmap="RdBu")
        _remove_axes(row)
    names = ["grid", "adaptive pixels", "linear", "guided", "truth"]
    names += [f"error, {way.name}" for way in ways]
    for axes, name in zip(panels[0], names, strict=True):
        axes.set_title(name, fontsize=9)
    figure.savefig(path)


def _remove_axes(row: NDArray[np.object_]) -> None:
    axes: Axes
    for axes in row:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_facecolor("#d9d9d9")
        axes.spines[:].set_visible(False)


def main() -> None:
    """Print all tables and draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--views", type=int, default=200, help="number of procedural views")
    parser.add_argument("--asked", type=int, default=50, help="number of them for the model")
    parser.add_argument("--seed", type=int, default=41, help="seed of the views")
    parser.add_argument("--model", default=str(default_model()), help="checkpoint folder or id")
    parser.add_argument("--bag", type=Path, nargs="*", default=[], help="bags with depth images")
    parser.add_argument("--picture", type=Path, help="PNG file to draw four views into")
    options = parser.parse_args()
    engine = load_engine(EngineSettings(options.model, offline=True))
    tables = [
        ("Procedural views, true depths", lambda: views(options.views, options.seed), true_depth),
        (
            f"Procedural views, true depths with errors of {NOISE:.0%}",
            lambda: views(options.views, options.seed),
            noisy_depth(options.seed),
        ),
        (
            "Procedural views, answers",
            lambda: views(options.asked, options.seed),
            answered_depth(engine),
        ),
    ]
    for bag in options.bag:
        shots = frames(bag)
        tables.append((f"{bag.name}, true depths", lambda s=shots: iter(s), true_depth))
        tables.append((f"{bag.name}, answers", lambda s=shots: iter(s), answered_depth(engine)))
    for title, shots_of, sparse in tables:
        ways = new_ways()
        compare(ways, shots_of(), sparse)
        print_table(title, ways)
    print_times(engine, options.seed)
    if options.picture:
        draw(list(islice(views(4, options.seed), 4)), options.picture)


if __name__ == "__main__":
    main()
