# SPDX-License-Identifier: Apache-2.0
"""Depth of pixels of views, and its standard deviations."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from vlm3_ros.datasets.views import View
from vlm3_ros.engines.base import Engine
from vlm3_ros.evaluation.answer_counts import AnswerCounts, check_answered, total
from vlm3_ros.evaluation.metrics.calibration import draw_reliability
from vlm3_ros.evaluation.metrics.declared import headline_text
from vlm3_ros.evaluation.parts.base import Part, Picture
from vlm3_ros.evaluation.pictures.depth import DepthFrame, draw_depth_frames
from vlm3_ros.evaluation.scores.base import (
    Progress,
    Scores,
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
)
from vlm3_ros.evaluation.scores.uncertainty import DepthUncertainty, view_calibration
from vlm3_ros.tasks.dense import densify
from vlm3_ros.tasks.depth import DEPTH, ask_depth, uniform_grid


@dataclass(frozen=True)
class DepthPart(Part):
    """Depth of pixels.

    `frames`: see `depth_frames`. `uncertainty`: None if the model states no standard deviations.
    """

    tasks = (DEPTH,)

    depth: TaskScores[DepthScores]
    frames: list[DepthFrame]
    uncertainty: DepthUncertainty | None

    @override
    def scores(self) -> dict[str, TaskScores[Scores]]:
        scores: dict[str, TaskScores[Scores]] = {DEPTH.name: self.depth}
        if self.uncertainty:
            scores["calibration"] = TaskScores(self.uncertainty)
        return scores

    @override
    def answers(self) -> dict[str, AnswerCounts]:
        return {DEPTH.name: self.depth.overall.answers}

    @override
    def pictures(self, model: str) -> list[Picture]:
        metrics, uncertainty = self.depth.overall.model, self.uncertainty
        title = f"{model}: {headline_text(metrics)} on {metrics.images} views"
        pictures = [
            Picture(
                "views.png",
                "Depth: the best, the median and the worst view",
                lambda path: draw_depth_frames(self.frames, path, title),
            )
        ]
        if uncertainty:
            curves = uncertainty.curves
            of_curves = f"{model}: {metrics.pixels} depths"
            pictures.append(
                Picture(
                    "reliability.png",
                    "Standard deviations of depth",
                    lambda path: draw_reliability(curves, path, of_curves),
                )
            )
        return pictures


def depth_uncertainty(name: str, scores: DepthScores) -> DepthUncertainty | None:
    """Compare errors with the stated standard deviations; None if there are none.

    `name`: of the data.
    """
    calibration = view_calibration(scores.views)
    return DepthUncertainty(name, calibration) if calibration else None


def random_pixels(
    view: View, count: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draw pixels (u, v) with a depth that are not sky, at most `count`, shape (n, 2).

    Returns:
        The pixels and their depths, shape (n,), metres.
    """
    known = np.argwhere(np.isfinite(view.depth) & (view.depth > 0))
    chosen = known[rng.permutation(len(known))[:count]]
    depth = view.depth[chosen[:, 0], chosen[:, 1]].astype(float)
    return chosen[:, ::-1].astype(float), depth


def score_depth_samples(
    engine: Engine,
    samples: Iterable[DepthSample],
    count: int,
    progress: Progress = no_progress,
    view_focal: float | None = None,
) -> TaskScores[DepthScores]:
    """Ask for the depth of all pixels of samples, and score the answers.

    Args:
        engine: answers.
        samples: may be made while they are scored.
        count: number of samples.
        progress: takes the number of samples done, and of all.
        view_focal: focal length at which images enter the model, px; None for the checkpoint's.

    Raises:
        EngineError: if the engine cannot answer at all.
        NoAnswersError: if it is tolerant and has answered nothing.
        ValueError: if there is nothing to score.
    """
    views = score_samples(
        samples, count, lambda sample: score_depth(engine, sample, view_focal), progress
    )
    return scores_of_views(views)


def scores_of_views(views: list[ScoredView]) -> TaskScores[DepthScores]:
    """Score answers; see `score_depth_samples` for errors."""
    answers = total(view.answers for view in views)
    # A view of nothing but sky has no pixel to ask about.
    scored = [view for view in views if view.truth.size]
    if not scored:
        check_answered({DEPTH.name: answers})
    scores = score_by_group(scored, depth_scores)
    return replace(scores, overall=replace(scores.overall, answers=answers))


def depth_frames(
    engine: Engine,
    scores: DepthScores,
    view_of: Callable[[int], View],
    title: Callable[[ScoredView], str],
    columns: int = 16,
    rows: int = 12,
    view_focal: float | None = None,
) -> list[DepthFrame]:
    """Ask about the best, the median and the worst view again, on a grid, to draw them.

    Args:
        engine: answers.
        scores: of the views.
        view_of: returns a view by its index.
        title: what a view is called.
        columns, rows: of the grid.
        view_focal: see `score_depth_samples`.
    """
    frames = []
    for name, scored in best_median_worst(scores.views, lambda view: view.error).items():
        view = view_of(scored.index)
        pixels = uniform_grid(view.camera, columns, rows)
        answers = ask_depth(engine, view.image, view.camera, pixels, view_focal)
        called = f"{name}: {title(scored)}"
        frames.append(depth_frame(called, scored, view, answers.pixels, answers.depth))
    return frames


def depth_frame(
    title: str,
    scored: ScoredView,
    view: View,
    pixels: NDArray[np.float64],
    depth: NDArray[np.float32],
) -> DepthFrame:
    """Return a view with its scores as a picture.

    Args:
        title: what it is called.
        scored: its scores.
        view: with its true depth.
        pixels, depth: that are drawn: (u, v), shape (n, 2), and metres, shape (n,).
    """
    return DepthFrame(
        title=f"{title}\n{headline_text(scored.metrics)}",
        image=view.image,
        pixels=pixels,
        depth=depth,
        dense=densify(view.image, pixels, depth),
        truth=view.depth,
    )
