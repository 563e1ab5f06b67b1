# SPDX-License-Identifier: Apache-2.0
"""Measure which answers about a bag `max_uncertainty` keeps, and at what height its floor appears.

    python benchmarks/uncertainty.py BAG [--rate 1.5] [--model FOLDER]

The benchmark prints a Markdown table: for each limit the share of answers that it keeps, their
AbsRel, and the shares of them that differ from the truth by more than 25 and 50 %. If the bag holds
the camera's mounting pose, the last line gives the height of answered floor points above the base.
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
"""Values of `max_uncertainty`; 0 keeps all answers."""

FLOOR = 0.02
"""A true point within this distance of the base's xy plane is a floor point; metres."""


def main() -> None:
    """Ask about the frames that have a true depth and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bag", type=Path, help="bag with registered depth images")
    parser.add_argument("--rate", type=float, default=1.5, help="frames per second of the bag")
    parser.add_argument("--model", default=str(default_model()), help="checkpoint folder or id")
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
            outliers = [f"{(error[kept] > share).mean():.1%}" for share in (0.25, 0.5)]
            cells += [f"{error[kept].mean():.3f}", *outliers]
        print(f"| {' | '.join(cells)} |")
    if heights:
        answered, true = np.concatenate(heights, axis=1)
        floor = answered[(np.abs(true) < FLOOR) & np.isfinite(answered)]
        if floor.size:
            print(
                f"\n{floor.size} answers about the floor: median height {np.median(floor):.2f} m "
                f"above the base, 99 % below {np.percentile(floor, 99):.2f} m"
            )


if __name__ == "__main__":
    main()
