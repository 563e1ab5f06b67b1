# SPDX-License-Identifier: Apache-2.0
"""Measure how a wrong focal length changes depths and clouds.

    python benchmarks/intrinsics.py [--views 60] [--seed 21] [--model FOLDER]

The model is asked about the same pixels of held-out procedural views with the right focal length
and with focal lengths that are too long or too short, alternating in one process. The benchmark
prints a Markdown table: delta1 and AbsRel of depth, the median ratio of depth to the truth and to
the depth with the right focal length, and the median error of points, across the optical axis and
in all, in percent of their true depth. The last line is the fitted exponent e of `depth ~ f ** e`:
it is 1 if the model judges distance by size in the image alone.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from vlm3_lab.studies.tasks.depth import evaluation_view
from vlm3_ros.cli.progress import progress_bar
from vlm3_ros.datasets.views import View
from vlm3_ros.engines.base import Engine
from vlm3_ros.engines.load import load_engine
from vlm3_ros.engines.settings import EngineSettings
from vlm3_ros.evaluation.metrics.depth import depth_metrics
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.paths import default_model
from vlm3_ros.tasks.depth import ask_depth, uniform_grid

FACTORS = (1.0, 0.8, 0.9, 0.95, 1.05, 1.1, 1.2)
"""Factors on the true focal length; 1 comes first."""

GRID = (16, 12)


@dataclass
class Guess:
    """A factor on the true focal length, with the results for each pixel with known depth.

    `predicted`: depths, metres. `across`, `apart`: errors of points across the optical axis and in
    all, as shares of the true depth.
    """

    factor: float
    predicted: list[NDArray[np.float32]] = field(default_factory=list)
    across: list[NDArray[np.float64]] = field(default_factory=list)
    apart: list[NDArray[np.float64]] = field(default_factory=list)

    def ask(
        self, engine: Engine, view: View, pixels: NDArray[np.float64], truth: NDArray[np.float32]
    ) -> None:
        """Ask about pixels, shape (n, 2), with true depths `truth`, metres, shape (n,)."""
        camera = scaled_focal(view.camera, self.factor)
        depth = ask_depth(engine, view.image, camera, pixels).depth
        errors = camera.unproject(pixels, depth) - view.camera.unproject(pixels, truth)
        self.predicted.append(depth)
        self.across.append(np.linalg.norm(errors[:, :2], axis=1) / truth)
        self.apart.append(np.linalg.norm(errors, axis=1) / truth)


def scaled_focal(camera: PinholeCamera, factor: float) -> PinholeCamera:
    """Scale the focal length of both axes; keep the principal point."""
    return replace(camera, fx=camera.fx * factor, fy=camera.fy * factor)


def main() -> None:
    """Ask about all views with all focal lengths and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--views", type=int, default=60, help="number of procedural views")
    parser.add_argument("--seed", type=int, default=21, help="seed of the views")
    parser.add_argument("--model", default=str(default_model()), help="checkpoint folder or id")
    options = parser.parse_args()
    engine = load_engine(EngineSettings(options.model, offline=True))
    guesses = [Guess(factor) for factor in FACTORS]
    truths = []
    with progress_bar("views") as progress:
        for index in range(options.views):
            view, _ = evaluation_view(options.seed, index)
            pixels = uniform_grid(view.camera, *GRID)
            u, v = np.rint(pixels).astype(int).T
            truth = view.depth[v, u]
            known = np.isfinite(truth) & (truth > 0)
            truths.append(truth[known])
            for guess in guesses:
                guess.ask(engine, view, pixels[known], truth[known])
            progress(index + 1, options.views)
    print_table(guesses, truths)


def print_table(guesses: list[Guess], truths: list[NDArray[np.float32]]) -> None:
    """Print a row per focal length, the shortest first."""
    truth = np.concatenate(truths)
    right = np.concatenate(guesses[0].predicted)
    print(
        "| focal length | δ1 | AbsRel | depth / truth | depth / depth with the right f "
        "| off across the axis | off in all |"
    )
    print("|---|---|---|---|---|---|---|")
    ratios = {}
    for guess in sorted(guesses, key=lambda guess: guess.factor):
        scores = depth_metrics(guess.predicted, truths)
        predicted = np.concatenate(guess.predicted)
        ratios[guess.factor] = float(np.nanmedian(predicted / right))
        across, apart = (np.nanmedian(np.concatenate(x)) for x in (guess.across, guess.apart))
        name = "right" if guess.factor == 1 else f"{guess.factor - 1:+.0%}"
        print(
            f"| {name} | {scores.delta1:.3f} | {scores.abs_rel:.3f} "
            f"| {np.nanmedian(predicted / truth):.3f} | {ratios[guess.factor]:.3f} "
            f"| {across:.1%} | {apart:.1%} |"
        )
    logs = np.log([(factor, ratio) for factor, ratio in ratios.items() if factor != 1])
    exponent = float(logs[:, 0] @ logs[:, 1] / (logs[:, 0] @ logs[:, 0]))
    print(f"\n{len(truth)} pixels of {len(truths)} views; fitted: depth ~ f ** {exponent:.2f}")


if __name__ == "__main__":
    main()
