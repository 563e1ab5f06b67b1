# SPDX-License-Identifier: Apache-2.0
"""Depth in procedural scenes that no training draws, and its standard deviations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from vlm3_lab.scenes import KINDS, sample_view
from vlm3_lab.studies.task_evaluation import Calibrated, SceneSettings, TaskEvaluation
from vlm3_ros.datasets.views import View
from vlm3_ros.engines.base import Engine
from vlm3_ros.evaluation.metrics.calibration import ScaleCheck, calibration_json
from vlm3_ros.evaluation.parts.base import ProgressBar
from vlm3_ros.evaluation.parts.depth import (
    DepthPart,
    depth_frames,
    depth_uncertainty,
    random_pixels,
    score_depth_samples,
)
from vlm3_ros.evaluation.pictures.depth import DepthFrame
from vlm3_ros.evaluation.scores.base import Progress, TaskScores, no_progress
from vlm3_ros.evaluation.scores.depth import DepthSample, DepthScores, ScoredView, scored_view
from vlm3_ros.evaluation.scores.uncertainty import view_calibration
from vlm3_ros.tasks.depth import DEPTH, DepthAnswers

STREAM = 0xE7A1
"""First word of the seeds of evaluation: training has other streams, so no scene is in both."""

AskView = Callable[[View, NDArray[np.float64]], DepthAnswers]
"""Asks for the depth of pixels (u, v) of a view, shape (n, 2)."""


@dataclass(frozen=True)
class Evaluation(DepthPart, TaskEvaluation):
    """Depth of random pixels."""

    @override
    @classmethod
    def evaluate(
        cls, engines: Mapping[str, Engine], settings: SceneSettings, bar: ProgressBar
    ) -> Evaluation:
        engine = engines[DEPTH.name]
        depth = _evaluate(engine, settings, bar)
        frames = depth_pictures(
            engine, settings.seed, depth.overall, view_focal=settings.view_focal
        )
        return cls(depth, frames, depth_uncertainty(f"seed {settings.seed}", depth.overall))

    @override
    def calibrated(
        self, engines: Mapping[str, Engine], settings: SceneSettings, bar: ProgressBar
    ) -> tuple[Evaluation, list[Calibrated]]:
        engine = engines[DEPTH.name]
        check = check_std_scale(self.depth.overall, _evaluate(engine, settings, bar).overall)
        if self.uncertainty is None or check is None:
            return self, []
        name = f"seed {settings.seed}"
        uncertainty = replace(
            self.uncertainty,
            checks={name: check.before, f"{name}, std x {check.scale:.3g}": check.after},
            check_json={
                "seed": settings.seed,
                "before": calibration_json(check.before),
                "after": calibration_json(check.after),
                "stored": check.helps,
            },
        )
        std_scale = engine.profile.std_scale * check.scale
        stored = Calibrated("depth", {"std_scale": std_scale}, f"std_scale {std_scale:.3g}")
        return replace(self, uncertainty=uncertainty), [stored] if check.helps else []


def evaluation_view(seed: int, index: int) -> tuple[View, np.random.Generator]:
    """Return view `index` of the evaluation `seed`, and the generator that draws its pixels.

    The generator is seeded with `np.random.SeedSequence([0xE7A1, seed, index])`; kinds take turns.
    """
    rng = np.random.default_rng(np.random.SeedSequence([STREAM, seed, index]))
    return sample_view(rng, KINDS[index % len(KINDS)]), rng


def depth_sample(seed: int, index: int, pixels_per_view: int) -> tuple[View, DepthSample]:
    """Draw random pixels of a view that are not sky, at most `pixels_per_view`."""
    view, rng = evaluation_view(seed, index)
    pixels, depth = random_pixels(view, pixels_per_view, rng)
    return view, DepthSample(index, view.kind, view.image, view.camera, pixels, depth)


def score_view(ask: AskView, seed: int, index: int, pixels_per_view: int) -> ScoredView:
    """Ask for random pixels of a view; see `depth_sample`."""
    view, sample = depth_sample(seed, index, pixels_per_view)
    return scored_view(sample, ask(view, sample.pixels))


def evaluate_depth(
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
        NoAnswersError: if it is tolerant and has answered nothing.
        ValueError: if there is nothing to score.
    """
    samples = (depth_sample(seed, index, pixels_per_view)[1] for index in range(count))
    return score_depth_samples(engine, samples, count, progress, view_focal)


def depth_pictures(
    engine: Engine,
    seed: int,
    scores: DepthScores,
    columns: int = 16,
    rows: int = 12,
    view_focal: float | None = None,
) -> list[DepthFrame]:
    """Ask about the best, the median and the worst view again, on a grid, to draw them."""
    return depth_frames(
        engine,
        scores,
        lambda index: evaluation_view(seed, index)[0],
        lambda view: f"{view.group} {view.index}",
        columns,
        rows,
        view_focal,
    )


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


def _evaluate(engine: Engine, settings: SceneSettings, bar: ProgressBar) -> TaskScores[DepthScores]:
    with bar(f"views of seed {settings.seed}") as progress:
        return evaluate_depth(
            engine,
            settings.count,
            settings.seed,
            settings.pixels,
            progress,
            settings.view_focal,
        )
