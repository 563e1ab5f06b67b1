# SPDX-License-Identifier: Apache-2.0
"""How well a model tells relations and sizes of objects in scenes that it has not seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vlm3_lab.scenes import KINDS, View, sample_view
from vlm3_lab.scenes.seen_objects import seen_objects, true_answers
from vlm3_lab.studies.by_kind import of_kinds
from vlm3_ros.engines.base import Engine
from vlm3_ros.evaluation.metrics.objects import (
    DIRECTION,
    Asked,
    KindMetrics,
    ObjectMetrics,
    best_constants,
    object_metrics,
    said_by_boxes,
)
from vlm3_ros.evaluation.pictures.object import ObjectFrame
from vlm3_ros.evaluation.report import of_ranks
from vlm3_ros.tasks.objects import ask_objects

STREAM = 0xE7A3
"""First word of the seeds of these views: neither training nor other evaluations draw from it."""

QUESTIONS = 12
"""Asked about each view."""


@dataclass(frozen=True)
class ScoredObjects:
    """What was asked about the objects of one view."""

    index: int
    kind: str
    asked: tuple[Asked, ...]

    @property
    def success(self) -> float:
        """Share of the questions that were answered rightly."""
        return float(np.mean([one.is_right for one in self.asked]))


@dataclass(frozen=True)
class ObjectScores:
    """A model's metrics, and those of guesses on the same questions.

    `constant`: `best_constants`. `boxes`: `said_by_boxes`, relations only.
    """

    model: ObjectMetrics
    constant: ObjectMetrics
    boxes: ObjectMetrics


@dataclass(frozen=True)
class ObjectReport:
    """Scores over all views and over those of each kind of scene."""

    seed: int
    views: tuple[ScoredObjects, ...]
    overall: ObjectScores
    kinds: dict[str, ObjectScores]

    @property
    def questions(self) -> int:
        """How many were asked."""
        return sum(len(view.asked) for view in self.views)


def knows_objects(engine: Engine) -> bool:
    """Whether a checkpoint learned about objects."""
    return "objects" in engine.profile.prompts.wordings


def evaluation_objects(seed: int, index: int) -> tuple[View, np.random.Generator]:
    """View `index` of the evaluation `seed`, and the generator that draws its questions.

    The generator is seeded with `np.random.SeedSequence([0xE7A3, seed, index])`; kinds take turns.
    Views are drawn until two objects are in sight, as in training.
    """
    rng = np.random.default_rng(np.random.SeedSequence([STREAM, seed, index]))
    while True:
        view = sample_view(rng, KINDS[index % len(KINDS)])
        if len(seen_objects(view)) >= 2:
            return view, rng


def evaluate_objects(
    engine: Engine,
    count: int,
    seed: int,
    questions: int = QUESTIONS,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ObjectReport:
    """Ask about the objects of new views of all kinds, and score the answers.

    Views are those of `evaluation_objects(seed, 0 .. count - 1)`; the kinds of question take
    turns.

    Args:
        engine: who answers; `knows_objects` must hold.
        count: number of views.
        seed: any integer from 0 up.
        questions: asked about each view at most.
        progress: told the number of views done, and of all.

    Raises:
        EngineError: when the engine did not learn it or cannot answer at all.
    """
    views = []
    for index in range(count):
        views.append(_score_view(engine, seed, index, questions))
        progress(index + 1, count)
    return ObjectReport(
        seed=seed,
        views=tuple(views),
        overall=_scores(views),
        kinds={kind: _scores(some) for kind, some in of_kinds(views).items()},
    )


def best_median_worst(report: ObjectReport) -> list[ObjectFrame]:
    """The views with the most, the middle and the fewest right answers, as pictures."""
    ranked = sorted(report.views, key=lambda view: -view.success)
    return [object_frame(report.seed, name, view) for name, view in of_ranks(ranked).items()]


def report_json(report: ObjectReport) -> dict[str, Any]:
    """The report as JSON: `objects`, its `baselines`, and these by kind of scene."""
    return {
        "views": len(report.views),
        "questions": report.questions,
        **_scores_json(report.overall),
        "kinds": {kind: _scores_json(scores) for kind, scores in report.kinds.items()},
    }


def _score_view(engine: Engine, seed: int, index: int, questions: int) -> ScoredObjects:
    view, rng = evaluation_objects(seed, index)
    chosen = true_answers(seen_objects(view), rng)[:questions]
    answers = ask_objects(engine, view.image, view.camera, [question for question, _ in chosen])
    return ScoredObjects(
        index=index,
        kind=view.kind,
        asked=tuple(
            Asked(question, truth, answer)
            for (question, truth), answer in zip(chosen, answers.values, strict=True)
        ),
    )


def _scores(views: Sequence[ScoredObjects]) -> ObjectScores:
    asked = [one for view in views for one in view.asked]
    return ObjectScores(
        model=object_metrics(asked),
        constant=object_metrics(best_constants(asked)),
        boxes=object_metrics(said_by_boxes(asked)),
    )


def object_frame(seed: int, name: str, scored: ScoredObjects) -> ObjectFrame:
    """A view of the evaluation `seed` as a picture; `name` stands before its kind."""
    return ObjectFrame(
        title=f"{name}: {scored.kind} {scored.index}, {scored.success:.0%} right",
        image=evaluation_objects(seed, scored.index)[0].image,
        asked=scored.asked,
    )


def _scores_json(scores: ObjectScores) -> dict[str, Any]:
    return {
        **_metrics_json(scores.model),
        "baselines": {
            "constant": _metrics_json(scores.constant),
            "boxes": _metrics_json(scores.boxes),
        },
    }


def _metrics_json(metrics: ObjectMetrics) -> dict[str, Any]:
    return {
        "accuracy": metrics.accuracy,
        "success": metrics.success,
        "abs_rel": metrics.abs_rel,
        "relations": {
            kind: {"accuracy": some.success, **_counts(some)}
            for kind, some in metrics.relations.items()
        },
        "quantities": {
            kind: {
                "success": some.success,
                "error_deg" if kind == DIRECTION else "abs_rel": some.error,
                **_counts(some),
            }
            for kind, some in metrics.quantities.items()
        },
    }


def _counts(metrics: KindMetrics) -> dict[str, int]:
    return {"questions": metrics.questions, "unanswered": metrics.unanswered}
