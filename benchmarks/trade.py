# SPDX-License-Identifier: Apache-2.0
"""Measure time per frame and accuracy of several settings.

    python benchmarks/trade.py [--views 100] [--seed 21] [--model FOLDER]

The settings are the checkpoint's unified focal length and smaller ones, coarser and finer grids,
and answers in free text. All settings get the same procedural views, alternating in one process.
The benchmark prints a Markdown table: visual tokens and questions per frame, median milliseconds
per frame (image to depths, without ROS), their ratio to the default, and delta1 and AbsRel on the
grid's pixels.
"""

from __future__ import annotations

import argparse
import statistics
import time
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
from vlm3_ros.geometry.camera import unify_focal
from vlm3_ros.paths import default_model
from vlm3_ros.tasks.depth import ask_depth, uniform_grid

SHARES = (1.0, 0.707, 0.5)
"""Factors on the checkpoint's unified focal length."""

GRIDS = ((16, 12), (8, 6), (32, 24))


@dataclass
class Setting:
    """A setting with its results for each view."""

    engine: Engine
    name: str
    share: float = SHARES[0]
    grid: tuple[int, int] = GRIDS[0]
    seconds: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    predicted: list[NDArray[np.float32]] = field(default_factory=list)
    truth: list[NDArray[np.float32]] = field(default_factory=list)

    def ask(self, view: View) -> None:
        """Ask about a view and record time and answers."""
        engine = self.engine
        profile, focal = engine.profile, engine.profile.focal * self.share
        pixels = uniform_grid(view.camera, *self.grid)
        start = time.perf_counter()
        answers = ask_depth(engine, view.image, view.camera, pixels, focal)
        self.seconds.append(time.perf_counter() - start)
        seen = unify_focal(view.camera, profile.focal, engine.limits, profile.fit, focal).view
        self.tokens.append(seen.width * seen.height // engine.limits.multiple**2)
        u, v = np.rint(pixels).astype(int).T
        truth = view.depth[v, u]
        known = np.isfinite(truth)
        self.predicted.append(answers.depth[known])
        self.truth.append(truth[known])


def main() -> None:
    """Run all settings on all views and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--views", type=int, default=100, help="number of procedural views")
    parser.add_argument("--seed", type=int, default=21, help="seed of the views")
    parser.add_argument("--model", default=str(default_model()), help="checkpoint folder or id")
    options = parser.parse_args()
    forced = load_engine(EngineSettings(options.model, offline=True))
    free = load_engine(EngineSettings(options.model, offline=True, force_answers=False))
    focal = forced.profile.focal
    settings = [Setting(forced, f"unified focal length {focal:g} px (default)")]
    settings += [
        Setting(forced, f"unified focal length {focal * share:.4g} px", share=share)
        for share in SHARES[1:]
    ]
    settings += [Setting(forced, f"grid {c}x{r}", grid=(c, r)) for c, r in GRIDS[1:]]
    settings.append(Setting(free, "answers in free text"))
    for setting in settings:
        warm_up = replace(setting, seconds=[], tokens=[], predicted=[], truth=[])
        warm_up.ask(evaluation_view(options.seed, 0)[0])
    with progress_bar("views") as progress:
        for index in range(options.views):
            view, _ = evaluation_view(options.seed, index)
            for setting in settings:
                setting.ask(view)
            progress(index + 1, options.views)
    default = statistics.median(settings[0].seconds)
    print("| setting | visual tokens | questions | ms per frame | of the default | δ1 | AbsRel |")
    print("|---|---|---|---|---|---|---|")
    for setting in settings:
        scores = depth_metrics(setting.predicted, setting.truth)
        seconds = statistics.median(setting.seconds)
        print(
            f"| {setting.name} | {statistics.mean(setting.tokens):.0f} "
            f"| {setting.grid[0] * setting.grid[1]} | {seconds * 1000:.0f} "
            f"| {seconds / default:.2f} | {scores.delta1:.3f} | {scores.abs_rel:.3f} |"
        )


if __name__ == "__main__":
    main()
