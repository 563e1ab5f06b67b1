# SPDX-License-Identifier: Apache-2.0
"""What `max_uncertainty` keeps of a model's answers about a bag, and where its floor comes out.

    python benchmarks/uncertainty.py BAG [--rate 1.5] [--model FOLDER]

Printed as a Markdown table: the share of the answers whose standard deviation is at most that share
of their depth, their AbsRel, and how many of them are off by more than 25 and 50 % of the truth.
The last line says how high over the base the answers about the floor come out, where the bag tells
the camera's place.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from vlm3_ros.engines.load import load_engine
from vlm3_ros.engines.settings import EngineSettings
from vlm3_ros.evaluation.bag.answers import GRID, at_rate
from vlm3_ros.evaluation.bag.evaluate import bag_source
from vlm3_ros.paths import default_model
from vlm3_ros.tasks.depth import DepthLimits, ask_depth, uniform_grid

LIMITS = (0.0, 0.25, 0.2, 0.15, 0.1)
"""Values of `max_uncertainty`; 0 keeps all."""

FLOOR = 0.02
"""Metres from the base's plane within which a true point is held to be of the floor."""


def main() -> None:
    """Ask about the frames that have a true depth, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bag", type=Path)
    parser.add_argument("--rate", type=float, default=1.5, help="frames asked a second of the bag")
    parser.add_argument("--model", default=str(default_model()))
    options = parser.parse_args()
    engine = load_engine(EngineSettings(model=options.model))
    outcomes, heights = [], []
    with bag_source(options.bag) as source:
        T_base_camera = source.T_base_camera
        for frame in at_rate(source.frames, options.rate):
            if frame.depth is None:
                continue
            pixels = uniform_grid(frame.camera, *GRID)
            u, v = np.rint(pixels).astype(int).T
            answers, truth = ask_depth(engine, frame.image, frame.camera, pixels), frame.depth[v, u]
            outcomes.append(np.stack([answers.depth, answers.std, truth]))
            if T_base_camera is not None:
                points = (frame.camera.unproject(pixels, d) for d in (answers.depth, truth))
                heights.append([p @ T_base_camera[2, :3] + T_base_camera[2, 3] for p in points])
    depth, std, truth = np.concatenate(outcomes, axis=1)
    error = np.abs(depth - truth) / truth
    known = np.isfinite(error) & np.isfinite(std)
    print(f"{known.sum()} answers about {len(outcomes)} frames\n")
    print("| max_uncertainty | kept | AbsRel | off by more than 25 % | by more than 50 % |")
    print("|---|---|---|---|---|")
    for limit in LIMITS:
        kept = known & ~DepthLimits(max_uncertainty=limit).too_uncertain(depth, std)
        cells = [f"{limit:g}", f"{kept.sum() / known.sum():.0%}"]
        if kept.any():
            far_off = [f"{(error[kept] > share).mean():.1%}" for share in (0.25, 0.5)]
            cells += [f"{error[kept].mean():.3f}", *far_off]
        print(f"| {' | '.join(cells)} |")
    if heights:
        told, true = np.concatenate(heights, axis=1)
        told = told[(np.abs(true) < FLOOR) & np.isfinite(told)]
        if told.size:
            print(
                f"\n{told.size} answers about the floor: median height {np.median(told):.2f} m "
                f"over the base, 99 % below {np.percentile(told, 99):.2f} m"
            )


if __name__ == "__main__":
    main()
