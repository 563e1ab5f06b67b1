# SPDX-License-Identifier: Apache-2.0
"""Depth in procedural scenes that no training draws."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from vlm3_lab.scenes import KINDS, View, sample_view
from vlm3_ros.engines.base import Engine
from vlm3_ros.evaluation.metrics.calibration import ScaleCheck
from vlm3_ros.evaluation.metrics.declared import headline_text
from vlm3_ros.evaluation.pictures.depth import DepthFrame
from vlm3_ros.evaluation.scores.base import (
    Progress,
    TaskScores,
    best_median_worst,
    no_progress,
    score_by_group,
    score_samples,
)
from vlm3_ros.evaluation.scores.depth import (
    DepthSample,
    DepthScores,
    ScoredView,
    depth_scores,
    score_depth,
    scored_view,
)
from vlm3_ros.evaluation.scores.uncertainty import view_calibration
from vlm3_ros.tasks.dense import densify
from vlm3_ros.tasks.depth import DepthAnswers, ask_depth, uniform_grid

STREAM = 0xE7A1
"""First word of the seeds of evaluation: training has other streams, so no scene is in both."""

AskView = Callable[[View, NDArray[np.float64]], DepthAnswers]
"""Asks for the depth of pixels (u, v) of a view, shape (n, 2)."""


def evaluation_view(seed: int, index: int) -> tuple[View, np.random.Generator]:
    """Return view `index` of the evaluation `seed`, and the generator that draws its pixels.

    The generator is seeded with `np.random.SeedSequence([0xE7A1, seed, index])`; kinds take turns.
    """
    rng = np.random.default_rng(np.random.SeedSequence([STREAM, seed, index]))
    return sample_view(rng, KINDS[index % len(KINDS)]), rng


def depth_sample(seed: int, index: int, pixels_per_view: int) -> tuple[View, DepthSample]:
    """Draw random pixels of a view that are not sky, at most `pixels_per_view`."""
    view, rng = evaluation_view(seed, index)
    known = np.argwhere(np.isfinite(view.depth) & (view.depth > 0))
    chosen = known[rng.permutation(len(known))[:pixels_per_view]]
    depth = view.depth[chosen[:, 0], chosen[:, 1]].astype(float)
    pixels = chosen[:, ::-1].astype(float)
    return view, DepthSample(index, view.kind, view.image, view.camera, pixels, depth)


def score_view(ask: AskView, seed: int, index: int, pixels_per_view: int) -> ScoredView:
    """Ask for random pixels of a view; see `depth_sample`."""
    view, sample = depth_sample(seed, index, pixels_per_view)
    return scored_view(sample, ask(view, sample.pixels))


def evaluate_synthetic(
    engine: Engine,
    count: int,
    seed: int,
    pixels_per_view: int = 10,
    progress: Progress = no_progress,
    view_focal: float | None = None,
) -> TaskScores[DepthScores]:
    """Ask for the depth of random pixels in new views of all kinds, and score the answers.

    Views are those of `evaluation_view(seed, 0 .. count - 1)`. The sky is not asked about.

    Args:
        engine: answers.
        count: number of views.
        seed: any integer from 0 up.
        pixels_per_view: number of pixels asked in a view.
        progress: takes the number of views done, and of all.
        view_focal: focal length at which views enter the model, px; None for the checkpoint's.

    Raises:
        EngineError: if the engine cannot answer at all.
        ValueError: if there is nothing to score.
    """
    samples = (depth_sample(seed, index, pixels_per_view)[1] for index in range(count))
    views = score_samples(
        samples, count, lambda sample: score_depth(engine, sample, view_focal), progress
    )
    # A view of nothing but sky has no pixel to ask about.
    return score_by_group([view for view in views if view.truth.size], depth_scores)


def depth_pictures(
    engine: Engine,
    seed: int,
    scores: DepthScores,
    columns: int = 16,
    rows: int = 12,
    view_focal: float | None = None,
) -> list[DepthFrame]:
    """Ask about the best, the median and the worst view again, on a grid, to draw them."""
    frames = []
    for name, scored in best_median_worst(scores.views, lambda view: view.error).items():
        view, _ = evaluation_view(seed, scored.index)
        pixels = uniform_grid(view.camera, columns, rows)
        answers = ask_depth(engine, view.image, view.camera, pixels, view_focal)
        frames.append(
            DepthFrame(
                title=f"{name}: {scored.group} {scored.index}\n{headline_text(scored.metrics)}",
                image=view.image,
                pixels=answers.pixels,
                depth=answers.depth,
                dense=densify(view.image, answers.pixels, answers.depth),
                truth=view.depth,
            )
        )
    return frames


def check_std_scale(fitted: DepthScores, other: DepthScores) -> ScaleCheck | None:
    """Fit a factor on standard deviations to one set of views, and try it on another.

    Returns:
        None if the engine states no standard deviations, or they are zero.
    """
    fit, before = view_calibration(fitted.views), view_calibration(other.views)
    if fit is None or before is None or not 0 < fit.scale < np.inf:
        return None
    after = view_calibration(other.views, fit.scale)
    return None if after is None else ScaleCheck(fit.scale, before, after)
