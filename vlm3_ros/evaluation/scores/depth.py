# SPDX-License-Identifier: Apache-2.0
"""Scores of depth, next to the best guesses that do not look at the image."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from vlm3_ros.engines.base import Engine
from vlm3_ros.evaluation.answer_counts import AnswerCounts, count_answers, total
from vlm3_ros.evaluation.metrics.declared import metric_cells, metric_json, metric_titles
from vlm3_ros.evaluation.metrics.depth import (
    DepthMetrics,
    ErrorByDistance,
    Guess,
    constant_baseline,
    depth_metrics,
    errors_by_range,
    row_baseline,
)
from vlm3_ros.evaluation.scores.base import MODEL, Scores, group_tables
from vlm3_ros.evaluation.tables import TextTable
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.tasks.depth import DepthAnswers, ask_depth


@dataclass(frozen=True)
class DepthSample:
    """An image with pixels whose depth is known.

    Attributes:
        index: number of the image in its source.
        group: of the image, such as its kind of scene; "" for none.
        image: rectified RGB, shape (camera.height, camera.width, 3), uint8.
        camera: its intrinsics.
        pixels: (u, v), shape (n, 2).
        depth: metres along Z, shape (n,), finite and positive.
    """

    index: int
    group: str
    image: NDArray[np.uint8]
    camera: PinholeCamera
    pixels: NDArray[np.float64]
    depth: NDArray[np.float64]


@dataclass(frozen=True)
class ScoredView:
    """Depths that were answered about one image, and the true ones.

    Attributes:
        index: number of the image in its source, or its stamp in nanoseconds.
        group: of the image, such as its kind of scene; "" for none.
        predicted: metres, shape (n,), NaN where unanswered.
        std: standard deviation that the engine states for `predicted`, metres, shape (n,), NaN
            where unknown.
        truth: metres, shape (n,).
        rows: heights of the pixels in the image, (v + 0.5) / height, shape (n,).
        answers: about all asked pixels; those that the engine could not answer are not scored.
        pixels: (u, v), shape (n, 2); empty if they are not needed any more.
    """

    index: int
    group: str
    predicted: NDArray[np.float64]
    std: NDArray[np.float64]
    truth: NDArray[np.float64]
    rows: NDArray[np.float64]
    answers: AnswerCounts = field(default_factory=AnswerCounts)
    pixels: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 2)))

    @property
    def metrics(self) -> DepthMetrics:
        """Metrics of this image alone."""
        return depth_metrics([self.predicted], [self.truth])

    @property
    def error(self) -> float:
        """AbsRel; infinite if nothing was answered."""
        error = self.metrics.abs_rel
        return error if np.isfinite(error) else np.inf


@dataclass(frozen=True)
class DepthScores(Scores):
    """Depth over images.

    `constant`, `row`: see `constant_baseline` and `row_baseline`. `by_range`: errors by the true
    depth. `views`: the images with pixels to score; `by_view`: the metrics of each. `answers`:
    about all images.
    """

    model: DepthMetrics
    constant: Guess
    row: Guess
    by_range: list[ErrorByDistance]
    views: tuple[ScoredView, ...]
    by_view: tuple[DepthMetrics, ...] = field(repr=False)
    answers: AnswerCounts

    @property
    def stamps_ns(self) -> NDArray[np.int64]:
        """Stamps of the images of a recording, shape (n,)."""
        return np.array([view.index for view in self.views], dtype=np.int64)

    @property
    def abs_rel(self) -> NDArray[np.float64]:
        """AbsRel of each image, NaN if unanswered, shape (n,)."""
        return np.array([metrics.abs_rel for metrics in self.by_view])

    @override
    def to_json(self) -> dict[str, Any]:
        by_range = [metric_json(error) for error in self.by_range]
        return {**metric_json(self.model), "by_range": by_range}

    @override
    def baselines_json(self) -> dict[str, Any]:
        guesses = {"constant": self.constant, "row": self.row}
        return {
            name: {**metric_json(guess.metrics), "depths": guess.depths.tolist()}
            for name, guess in guesses.items()
        }

    @override
    def tables(self, groups: Mapping[str, DepthScores]) -> list[TextTable]:
        by_group = group_tables(
            "depth by group",
            (*metric_titles(self.model), "δ1 const.", "δ1 row"),
            self,
            groups,
            lambda scores: (
                *metric_cells(scores.model),
                f"{scores.constant.metrics.delta1:.3f}",
                f"{scores.row.metrics.delta1:.3f}",
            ),
            "const., row: the best guesses, chosen for each group.",
        )
        return [self._table(), *by_group, *self._range_tables()]

    @override
    def verdict(self) -> str:
        best = max(self.constant.metrics.delta1, self.row.metrics.delta1)
        return (
            f"Depth: δ1 {self.model.delta1:.2f} against {best:.2f} for the best guess that ignores "
            "the image."
        )

    def _table(self) -> TextTable:
        rows = {
            MODEL: self.model,
            "best constant": self.constant.metrics,
            "best per row": self.row.metrics,
        }
        return TextTable(
            f"depth: {self.model.pixels} pixels of {self.model.images} images",
            ("", *metric_titles(self.model)),
            tuple((name, *metric_cells(metrics)) for name, metrics in rows.items()),
            "The best guesses do not look at the images; they are chosen on these pixels.",
        )

    def _range_tables(self) -> list[TextTable]:
        """One table; none if nothing was answered."""
        if not self.by_range:
            return []
        table = TextTable(
            "depth by distance",
            ("true depth", *metric_titles(self.by_range[0])),
            tuple((_range_text(error), *metric_cells(error)) for error in self.by_range),
            "Bias: mean relative error, positive if answers are too far. Median, 90 %: half and "
            "nine tenths of the answers err by less.",
            has_baselines=False,
        )
        return [table]


def score_depth(engine: Engine, sample: DepthSample, view_focal: float | None = None) -> ScoredView:
    """Ask for the depth of all pixels of a sample.

    Args:
        engine: answers.
        sample: the image.
        view_focal: focal length at which images enter the model, px; None for the checkpoint's.

    Raises:
        GeometryError: if the image does not fit its camera or the engine's limits.
        EngineError: if the engine cannot answer at all.
    """
    answers = ask_depth(engine, sample.image, sample.camera, sample.pixels, view_focal)
    return scored_view(sample, answers)


def scored_view(sample: DepthSample, answers: DepthAnswers) -> ScoredView:
    """Put answers about all pixels of a sample next to the truth."""
    scored = ~answers.faulty
    return ScoredView(
        index=sample.index,
        group=sample.group,
        predicted=answers.depth[scored].astype(float),
        std=answers.std[scored].astype(float),
        truth=sample.depth[scored],
        rows=(sample.pixels[scored, 1] + 0.5) / sample.camera.height,
        answers=count_answers(len(answers.texts), answers.missing),
        pixels=sample.pixels[scored],
    )


def depth_scores(views: Sequence[ScoredView]) -> DepthScores:
    """Score depths over images.

    Raises:
        ValueError: if there is no pixel.
    """
    predicted, truth = [view.predicted for view in views], [view.truth for view in views]
    seen = tuple(view for view in views if view.truth.size)
    return DepthScores(
        model=depth_metrics(predicted, truth),
        constant=constant_baseline(truth),
        row=row_baseline(truth, [view.rows for view in views]),
        by_range=errors_by_range(np.concatenate(predicted), np.concatenate(truth)),
        views=seen,
        by_view=tuple(view.metrics for view in seen),
        answers=total(view.answers for view in views),
    )


def _range_text(error: ErrorByDistance) -> str:
    if math.isfinite(error.far):
        return f"{error.near:g} to {error.far:g} m"
    return f"over {error.near:g} m"
