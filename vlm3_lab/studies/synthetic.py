# SPDX-License-Identifier: Apache-2.0
"""How well a model measures depth in procedural scenes that it has not seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlm3_lab.scenes import KINDS, View, sample_view
from vlm3_lab.studies.by_kind import of_kinds
from vlm3_ros.engines.base import Engine
from vlm3_ros.evaluation.metrics.calibration import (
    Calibration,
    ScaleCheck,
    calibrate,
    calibration_json,
)
from vlm3_ros.evaluation.metrics.depth import (
    DepthMetrics,
    Guess,
    abs_rel,
    constant_baseline,
    depth_metrics,
    row_baseline,
    within_delta,
)
from vlm3_ros.evaluation.pictures.depth import DepthFrame
from vlm3_ros.evaluation.report import guess_json, metrics_json, of_ranks
from vlm3_ros.tasks.dense import densify
from vlm3_ros.tasks.depth import DepthAnswers, ask_depth, uniform_grid

STREAM = 0xE7A1
"""First word of the seeds of evaluation: training has other streams, so no scene is in both."""

AskView = Callable[[View, NDArray[np.float64]], DepthAnswers]
"""Asks for the depth of pixels (u, v) of a view, shape (n, 2)."""


@dataclass(frozen=True)
class ScoredView:
    """What was asked about one view: depths in metres and heights in the image, shape (n,).

    `std`: what the engine expects `predicted` to err by, metres, NaN where it does not know.
    """

    index: int
    kind: str
    predicted: NDArray[np.float64]
    std: NDArray[np.float64]
    truth: NDArray[np.float64]
    rows: NDArray[np.float64]

    @property
    def error(self) -> float:
        """AbsRel, infinite where nothing was answered."""
        error = abs_rel(self.predicted, self.truth)
        return error if np.isfinite(error) else np.inf


@dataclass(frozen=True)
class Scores:
    """A model's metrics, and the guesses that do not look at the image, on the same pixels."""

    model: DepthMetrics
    constant: Guess
    row: Guess


@dataclass(frozen=True)
class SyntheticReport:
    """Scores over all views and over those of each kind."""

    seed: int
    views: tuple[ScoredView, ...]
    overall: Scores
    kinds: dict[str, Scores]


def evaluation_view(seed: int, index: int) -> tuple[View, np.random.Generator]:
    """View `index` of the evaluation `seed`, and the generator that draws its pixels.

    The generator is seeded with `np.random.SeedSequence([0xE7A1, seed, index])`; kinds take turns.
    """
    rng = np.random.default_rng(np.random.SeedSequence([STREAM, seed, index]))
    return sample_view(rng, KINDS[index % len(KINDS)]), rng


def score_view(ask: AskView, seed: int, index: int, pixels_per_view: int) -> ScoredView:
    """Ask for random pixels of a view that are not sky, at most so many."""
    view, rng = evaluation_view(seed, index)
    known = np.argwhere(np.isfinite(view.depth) & (view.depth > 0))
    chosen = known[rng.permutation(len(known))[:pixels_per_view]]
    pixels = chosen[:, ::-1].astype(float)
    answers = ask(view, pixels)
    return ScoredView(
        index=index,
        kind=view.kind,
        predicted=answers.depth.astype(float),
        std=answers.std.astype(float),
        truth=view.depth[chosen[:, 0], chosen[:, 1]].astype(float),
        rows=(pixels[:, 1] + 0.5) / view.camera.height,
    )


def evaluate_synthetic(
    engine: Engine,
    count: int,
    seed: int,
    pixels_per_view: int = 10,
    progress: Callable[[int, int], None] = lambda done, total: None,
    view_focal: float | None = None,
) -> SyntheticReport:
    """Ask for the depth of random pixels in new views of all kinds, and score the answers.

    Views are those of `evaluation_view(seed, 0 .. count - 1)`. Pixels of the sky are not asked.

    Args:
        engine: who answers.
        count: number of views.
        seed: any integer from 0 up.
        pixels_per_view: how many pixels of a view are asked.
        progress: told the number of views done, and of all.
        view_focal: at which views enter the model, px; None for the checkpoint's own.

    Raises:
        EngineError: when the engine cannot answer at all.
        ValueError: when there is nothing to score.
    """

    def ask(view: View, pixels: NDArray[np.float64]) -> DepthAnswers:
        return ask_depth(engine, view.image, view.camera, pixels, view_focal)

    views = []
    for index in range(count):
        views.append(score_view(ask, seed, index, pixels_per_view))
        progress(index + 1, count)
    # A view of nothing but sky has nothing to ask.
    asked = [view for view in views if view.truth.size]
    return SyntheticReport(
        seed=seed,
        views=tuple(asked),
        overall=_scores(asked),
        kinds={kind: _scores(some) for kind, some in of_kinds(asked).items()},
    )


def best_median_worst(
    engine: Engine,
    report: SyntheticReport,
    columns: int = 16,
    rows: int = 12,
    view_focal: float | None = None,
) -> list[DepthFrame]:
    """The views of smallest, middle and largest AbsRel, asked again on a grid, as pictures."""
    ranked = sorted(report.views, key=lambda v: v.error)
    return [
        _grid_frame(engine, report, name, view, columns, rows, view_focal)
        for name, view in of_ranks(ranked).items()
    ]


def calibration(report: SyntheticReport, std_scale: float = 1.0) -> Calibration | None:
    """Errors of all views against their standard deviations, these scaled by a factor.

    None where the engine knows no standard deviations.
    """
    return calibrate(
        np.concatenate([view.predicted for view in report.views]),
        np.concatenate([view.truth for view in report.views]),
        np.concatenate([view.std for view in report.views]) * std_scale,
    )


def check_std_scale(fitted: SyntheticReport, other: SyntheticReport) -> ScaleCheck | None:
    """Fit a factor on standard deviations to one set of views, and try it on another.

    None where the engine knows no standard deviations, or they are zero.
    """
    fit, before = calibration(fitted), calibration(other)
    if fit is None or before is None or not 0 < fit.scale < np.inf:
        return None
    after = calibration(other, fit.scale)
    return None if after is None else ScaleCheck(fit.scale, before, after)


def report_json(report: SyntheticReport) -> dict[str, Any]:
    """The report as JSON: `depth`, `baselines.constant`, `baselines.row`, and these by kind.

    `calibration` compares errors with standard deviations, where the engine knows them.
    """
    spread = calibration(report)
    return {
        "seed": report.seed,
        "images": report.overall.model.images,
        "pixels": report.overall.model.pixels,
        **_scores_json(report.overall),
        "kinds": {kind: _scores_json(scores) for kind, scores in report.kinds.items()},
        "calibration": None if spread is None else calibration_json(spread),
    }


def _scores(views: Sequence[ScoredView]) -> Scores:
    truth = [view.truth for view in views]
    return Scores(
        model=depth_metrics([view.predicted for view in views], truth),
        constant=constant_baseline(truth),
        row=row_baseline(truth, [view.rows for view in views]),
    )


def _grid_frame(
    engine: Engine,
    report: SyntheticReport,
    name: str,
    scored: ScoredView,
    columns: int,
    rows: int,
    view_focal: float | None,
) -> DepthFrame:
    view, _ = evaluation_view(report.seed, scored.index)
    camera = view.camera
    pixels = uniform_grid(camera, columns, rows)
    answers = ask_depth(engine, view.image, camera, pixels, view_focal)
    delta1 = float(within_delta(scored.predicted, scored.truth).mean())
    return DepthFrame(
        title=f"{name}: {scored.kind} {scored.index}\nδ1 {delta1:.2f}, AbsRel {scored.error:.2f}",
        image=view.image,
        pixels=answers.pixels,
        depth=answers.depth,
        dense=densify(view.image, answers.pixels, answers.depth),
        truth=view.depth,
    )


def _scores_json(scores: Scores) -> dict[str, Any]:
    return {
        "depth": metrics_json(scores.model),
        "baselines": {
            "constant": {"depth": guess_json(scores.constant)},
            "row": {"depth": guess_json(scores.row)},
        },
    }
