# SPDX-License-Identifier: Apache-2.0
"""Relations and sizes of objects in procedural scenes that no training draws."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from typing_extensions import override

from vlm3_lab.scenes import KINDS, sample_view
from vlm3_lab.scenes.seen_objects import seen_objects, true_answers
from vlm3_lab.studies.task_evaluation import SceneSettings, TaskEvaluation
from vlm3_ros.datasets.views import View
from vlm3_ros.engines.base import Engine
from vlm3_ros.evaluation.answer_counts import check_answered, total
from vlm3_ros.evaluation.parts.base import ProgressBar
from vlm3_ros.evaluation.parts.objects import ObjectsPart
from vlm3_ros.evaluation.pictures.object import ObjectFrame
from vlm3_ros.evaluation.scores.base import (
    Progress,
    TaskScores,
    best_median_worst,
    no_progress,
    score_by_group,
    score_samples,
)
from vlm3_ros.evaluation.scores.objects import (
    ObjectSample,
    ObjectScores,
    ScoredObjects,
    object_scores,
    score_objects,
)
from vlm3_ros.tasks.objects import OBJECTS

STREAM = 0xE7A3
"""First word of the seeds of these views: neither training nor other evaluations draw from it."""

QUESTIONS = 12
"""Asked about each view."""


@dataclass(frozen=True)
class Evaluation(ObjectsPart, TaskEvaluation):
    """Relations, lengths and directions of objects."""

    @override
    @classmethod
    def evaluate(
        cls, engines: Mapping[str, Engine], settings: SceneSettings, bar: ProgressBar
    ) -> Evaluation:
        engine, seed = engines[OBJECTS.name], settings.seed
        with bar(f"objects of seed {seed}") as progress:
            objects = evaluate_objects(engine, settings.count, seed, progress=progress)
        scores = objects.overall
        headline = (
            f"relations {scores.model.accuracy:.1%}, lengths and directions "
            f"{scores.model.success:.1%} right of {scores.questions}"
        )
        return cls(objects, headline, lambda: object_pictures(seed, scores))


def evaluation_objects(seed: int, index: int) -> tuple[View, np.random.Generator]:
    """Return view `index` of the evaluation `seed`, and the generator that draws its questions.

    The generator is seeded with `np.random.SeedSequence([0xE7A3, seed, index])`; kinds take turns.
    Views are drawn until two objects are in sight, as in training.
    """
    rng = np.random.default_rng(np.random.SeedSequence([STREAM, seed, index]))
    while True:
        view = sample_view(rng, KINDS[index % len(KINDS)])
        if len(seen_objects(view)) >= 2:
            return view, rng


def object_sample(seed: int, index: int, questions: int) -> ObjectSample:
    """Draw questions about the objects of a view, at most this many; their kinds take turns."""
    view, rng = evaluation_objects(seed, index)
    chosen = true_answers(seen_objects(view), rng)[:questions]
    return ObjectSample(index, view.kind, view.image, view.camera, chosen)


def evaluate_objects(
    engine: Engine,
    count: int,
    seed: int,
    questions: int = QUESTIONS,
    progress: Progress = no_progress,
) -> TaskScores[ObjectScores]:
    """Ask about the objects of new views of all kinds, and score the answers.

    Views are those of `evaluation_objects(seed, 0 .. count - 1)`.

    Args:
        engine: answers; it must have learned about objects.
        count: number of views.
        seed: any integer from 0 up.
        questions: asked about each view at most.
        progress: takes the number of views done, and of all.

    Raises:
        EngineError: if the engine did not learn about objects, or cannot answer at all.
        NoAnswersError: if it is tolerant and has answered nothing.
    """
    samples = (object_sample(seed, index, questions) for index in range(count))
    views = score_samples(samples, count, lambda sample: score_objects(engine, sample), progress)
    if not any(view.asked for view in views):
        check_answered({OBJECTS.name: total(view.answers for view in views)})
    return score_by_group(views, object_scores)


def object_pictures(seed: int, scores: ObjectScores) -> list[ObjectFrame]:
    """Return the views with the most, the median and the fewest right answers, to draw them."""
    chosen = best_median_worst(scores.views, lambda view: -view.success)
    return [object_frame(seed, name, view) for name, view in chosen.items()]


def object_frame(seed: int, name: str, scored: ScoredObjects) -> ObjectFrame:
    """Return a view of the evaluation `seed` as a picture; `name` stands before its kind."""
    return ObjectFrame(
        title=f"{name}: {scored.group} {scored.index}, {scored.success:.0%} right",
        image=evaluation_objects(seed, scored.index)[0].image,
        asked=scored.asked,
    )
