# SPDX-License-Identifier: Apache-2.0
"""How good a depth image becomes from a few answers: ways to fill it, and ways to choose pixels.

    python benchmarks/dense_depth.py [--views 200] [--asked 50] [--seed 41] [--model FOLDER]
        [--bag BAG ...] [--picture PNG]

Sparse depths, true ones or a model's answers, at 16 x 12 pixels of procedural views that no
training has seen, and of frames of bags with registered depth. All ways see the same views in one
process. Printed as Markdown tables: delta1, AbsRel and RMSE (metres) over all pixels for which all
ways have a depth, AbsRel of those within 5 px of a true edge of depth, each in brackets as a share
of the first way's, coverage of the pixels whose truth is known, and the median of CPU milliseconds.
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

from vlm3_lab.studies.synthetic import evaluation_view
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
"""Neighbouring true depths that differ by this ratio make an edge; pixels that are at it."""

NOISE = 0.07
"""Standard deviation of errors as a share of the depth: of a model that is good."""

MOST_FRAMES = 20
"""Of a bag, evenly over its length."""

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
    """One way from an image to its depth image, and what came of it."""

    words: str
    choose: Choose
    fill: Fill
    scores: list[tuple[float, ...]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def grid(shot: Shot) -> Pixels:
    """Pixels nearest to the middles of the cells."""
    return np.rint(uniform_grid(shot.camera, COLUMNS, ROWS))


def patches(shot: Shot) -> Pixels:
    """As many as the grid has."""
    return adaptive_pixels(shot.image, COLUMNS * ROWS)


def fill_nearest(image: NDArray[np.uint8], pixels: Pixels, depth: Depths) -> Depths:
    """The answer that is nearest in the image."""
    known = np.isfinite(depth)
    v, u = np.indices(image.shape[:2])
    return np.asarray(NearestNDInterpolator(pixels[known], depth[known])(u, v))


def fill_linear(image: NDArray[np.uint8], pixels: Pixels, depth: Depths) -> Depths:
    """Inverse depth, interpolated in the triangles between the answers."""
    known = np.isfinite(depth)
    v, u = np.indices(image.shape[:2])
    return 1 / np.asarray(LinearNDInterpolator(pixels[known], 1 / depth[known])(u, v))


def true_depth(shot: Shot, pixels: Pixels) -> Depths:
    """NaN where the truth is unknown, or sky."""
    u, v = pixels.astype(int).T
    depth = shot.truth[v, u]
    return np.where(np.isfinite(depth) & (depth > 0), depth, np.nan)


def erring_depth(seed: int) -> Sparse:
    """True depths with errors of one normal distribution, each pixel's its own."""
    rng = np.random.default_rng(seed)
    return lambda shot, pixels: true_depth(shot, pixels) * np.exp(rng.normal(0, NOISE, len(pixels)))


def is_near_edge(truth: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Pixels within `EDGE_REACH` of a place where the true depth jumps."""
    is_known = np.isfinite(truth) & (truth > 0) | np.isposinf(truth)
    far = np.where(is_known, np.minimum(truth, 1e4), 0).astype(np.float32)
    near = np.where(is_known, np.minimum(truth, 1e4), 1e5).astype(np.float32)
    around = np.ones((3, 3), np.uint8)
    edges = cv2.dilate(far, around) > EDGE_RATIO * cv2.erode(near, around)
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * EDGE_REACH + 1,) * 2)
    return cv2.dilate(edges.astype(np.uint8), disk) > 0


def compare(ways: list[Way], shots: Iterator[Shot], sparse: Sparse) -> None:
    """Fill the scores of the ways; a shot without enough known depths is left out."""
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
    """As Markdown."""
    means = [np.nanmean(way.scores, 0) for way in ways]
    print(f"\n{title}, {len(ways[0].scores)} images\n")
    print("| way | δ1 | AbsRel | RMSE m | AbsRel at edges | coverage | CPU ms |")
    print("|---|---|---|---|---|---|---|")
    for way, (delta1, error, rmse, edge, coverage) in zip(ways, means, strict=True):
        errors = zip((error, rmse, edge), means[0][1:4], strict=True)
        shares = [f"({now / then:.2f})" for now, then in errors]
        print(
            f"| {way.words} | {delta1:.4f} | {error:.4f} {shares[0]} | {rmse:.3f} {shares[1]} "
            f"| {edge:.4f} {shares[2]} | {coverage:.3f} "
            f"| {1000 * statistics.median(way.seconds):.0f} |",
            flush=True,
        )


def new_ways() -> list[Way]:
    """Ways to fill the image from the grid, the package's own, and that with other pixels."""
    return [
        Way("linear", grid, fill_linear),
        Way("nearest", grid, fill_nearest),
        Way("guided", grid, densify),
        Way("guided, adaptive pixels", patches, densify),
    ]


def views(count: int, seed: int) -> Iterator[Shot]:
    """Procedural views of all kinds."""
    for index in range(count):
        view, _ = evaluation_view(seed, index)
        yield Shot(view.image, view.depth, view.camera)


def frames(bag: Path) -> list[Shot]:
    """Frames of a bag that have a depth image."""
    with bag_source(bag, None, None, None) as source:
        shots = [
            Shot(frame.image, frame.depth, frame.camera)
            for frame in source.frames
            if frame.depth is not None and frame.visible.all()
        ]
    return shots[:: -(-len(shots) // MOST_FRAMES)]


def asked(engine: Engine) -> Sparse:
    """A model's answers as sparse depths."""
    return lambda shot, pixels: ask_depth(engine, shot.image, shot.camera, pixels).depth


def print_times(engine: Engine, seed: int) -> None:
    """CPU time at sizes of real cameras, and the model's beside it."""
    (shot,) = views(1, seed)
    print("\n| size | densify ms | adaptive pixels ms | model ms |")
    print("|---|---|---|---|")
    for size in ((640, 480), (1280, 720), (1920, 1080)):
        image = np.asarray(cv2.resize(shot.image, size), np.uint8)
        camera = PinholeCamera.from_hfov(*size, 70)
        pixels = np.rint(uniform_grid(camera, COLUMNS, ROWS))
        depth = ask_depth(engine, image, camera, pixels).depth
        done: list[Callable[[], object]] = [
            lambda i=image, p=pixels, d=depth: densify(i, p, d),
            lambda i=image: adaptive_pixels(i, COLUMNS * ROWS),
            lambda i=image, c=camera, p=pixels: ask_depth(engine, i, c, p),
        ]
        medians = [statistics.median(_seconds(some) for _ in range(5)) for some in done]
        print(f"| {size[0]}x{size[1]} | " + " | ".join(f"{1000 * s:.0f}" for s in medians) + " |")


def _seconds(some: Callable[[], object]) -> float:
    start = time.process_time()
    some()
    return time.process_time() - start


def draw(shots: list[Shot], path: Path) -> None:
    """One row a shot: what is asked, three ways from true depths, the truth, their errors."""
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
        _bare(row)
    names = ["grid", "adaptive pixels", "linear", "guided", "truth"]
    names += [f"error, {way.words}" for way in ways]
    for axes, name in zip(panels[0], names, strict=True):
        axes.set_title(name, fontsize=9)
    figure.savefig(path)


def _bare(row: NDArray[np.object_]) -> None:
    axes: Axes
    for axes in row:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_facecolor("#d9d9d9")
        axes.spines[:].set_visible(False)


def main() -> None:
    """Print all tables, and draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--views", type=int, default=200)
    parser.add_argument("--asked", type=int, default=50, help="views that the model is asked about")
    parser.add_argument("--seed", type=int, default=41)
    parser.add_argument("--model", default=str(default_model()))
    parser.add_argument("--bag", type=Path, nargs="*", default=[])
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    engine = load_engine(EngineSettings(options.model, offline=True))
    tables = [
        ("Procedural views, true depths", lambda: views(options.views, options.seed), true_depth),
        (
            f"Procedural views, true depths with errors of {NOISE:.0%}",
            lambda: views(options.views, options.seed),
            erring_depth(options.seed),
        ),
        ("Procedural views, answers", lambda: views(options.asked, options.seed), asked(engine)),
    ]
    for bag in options.bag:
        shots = frames(bag)
        tables.append((f"{bag.name}, true depths", lambda s=shots: iter(s), true_depth))
        tables.append((f"{bag.name}, answers", lambda s=shots: iter(s), asked(engine)))
    for title, shots_of, sparse in tables:
        ways = new_ways()
        compare(ways, shots_of(), sparse)
        print_table(title, ways)
    print_times(engine, options.seed)
    if options.picture:
        draw(list(islice(views(4, options.seed), 4)), options.picture)


if __name__ == "__main__":
    main()
