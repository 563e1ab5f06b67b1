# SPDX-License-Identifier: Apache-2.0
"""Scores of answers about objects, next to the best answer that is always the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from vlm3_ros.engines.base import Engine
from vlm3_ros.evaluation.answer_counts import AnswerCounts, count_answers, total
from vlm3_ros.evaluation.metrics.declared import cell_text
from vlm3_ros.evaluation.metrics.objects import (
    DIRECTION,
    Asked,
    KindMetrics,
    ObjectMetrics,
    answers_by_boxes,
    best_constants,
    object_metrics,
)
from vlm3_ros.evaluation.scores.base import Scores, group_tables
from vlm3_ros.evaluation.tables import TextTable
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.tasks.objects import ObjectAnswers, Question, Value, ask_objects


@dataclass(frozen=True)
class ObjectSample:
    """An image with questions about its objects, and their true answers.

    `index`, `group`, `image`, `camera`: as in `DepthSample`.
    """

    index: int
    group: str
    image: NDArray[np.uint8]
    camera: PinholeCamera
    questions: Sequence[tuple[Question, Value]]


@dataclass(frozen=True)
class ScoredObjects:
    """Questions about the objects of one image, with answers and truth.

    `index`: number of the image in its source. `group`: of the image, such as its kind of scene.
    `asked`: what is scored. `answers`: also counts what the engine could not answer.
    """

    index: int
    group: str
    asked: tuple[Asked, ...]
    answers: AnswerCounts = field(default_factory=AnswerCounts)

    @property
    def success(self) -> float:
        """Share of right answers."""
        return float(np.mean([one.is_right for one in self.asked]))


@dataclass(frozen=True)
class ObjectScores(Scores):
    """A model's metrics, and those of guesses on the same questions.

    `constant`: see `best_constants`. `boxes`: see `answers_by_boxes`; relations only. `views`: the
    images that were scored. `answers`: about all images.
    """

    model: ObjectMetrics
    constant: ObjectMetrics
    boxes: ObjectMetrics
    views: tuple[ScoredObjects, ...] = field(repr=False)
    answers: AnswerCounts

    @property
    def questions(self) -> int:
        """Number of questions."""
        kinds = [*self.model.relations.values(), *self.model.quantities.values()]
        return sum(kind.questions for kind in kinds)

    @override
    def to_json(self) -> dict[str, Any]:
        return {"views": len(self.views), "questions": self.questions, **_metrics_json(self.model)}

    @override
    def baselines_json(self) -> dict[str, Any]:
        return {"constant": _metrics_json(self.constant), "boxes": _metrics_json(self.boxes)}

    @override
    def tables(self, groups: Mapping[str, ObjectScores]) -> list[TextTable]:
        by_group = group_tables(
            "objects by group",
            ("relations", "constant", "boxes", "lengths", "constant", "AbsRel"),
            self,
            groups,
            lambda scores: (
                f"{scores.model.accuracy:.1%}",
                f"{scores.constant.accuracy:.1%}",
                f"{scores.boxes.accuracy:.1%}",
                f"{scores.model.success:.1%}",
                f"{scores.constant.success:.1%}",
                f"{scores.model.abs_rel:.3f}",
            ),
            "Shares of right answers; lengths include directions.",
        )
        tables = []
        if self.model.relations:
            tables.append(self._relation_table())
        if self.model.quantities:
            tables.append(self._quantity_table())
        return [*tables, *by_group]

    @override
    def verdict(self) -> str:
        parts = []
        if self.model.relations:
            parts.append(
                f"{self.model.accuracy:.0%} of the relations right against "
                f"{self.constant.accuracy:.0%} for the best constant answer"
            )
        if self.model.quantities:
            parts.append(
                f"{self.model.success:.0%} of the lengths and directions right against "
                f"{self.constant.success:.0%} for the best constant answer"
            )
        return f"Objects: {'; '.join(parts)}."

    def _relation_table(self) -> TextTable:
        relations = self.model.relations
        rows: list[tuple[str, ...]] = [
            (
                kind,
                f"{model.success:.1%}",
                f"{self.constant.relations[kind].success:.1%}",
                f"{self.boxes.relations[kind].success:.1%}",
                str(model.unanswered),
                str(model.questions),
            )
            for kind, model in relations.items()
        ]
        accuracies = (self.model.accuracy, self.constant.accuracy, self.boxes.accuracy)
        rows.insert(0, ("all", *(f"{share:.1%}" for share in accuracies), *_counts(relations)))
        return TextTable(
            f"objects: relations, right answers in {len(self.views)} images",
            ("", "model", "constant", "boxes", "failed", "questions"),
            tuple(rows),
            "Constant: the best constant answer, chosen on these questions. Boxes: judged by "
            "place and size of the boxes in the image.",
        )

    def _quantity_table(self) -> TextTable:
        quantities = self.model.quantities
        rows = [
            (
                kind.replace("_", " "),
                f"{model.success:.1%}",
                _error_text(kind, model.error),
                f"{self.constant.quantities[kind].success:.1%}",
                _error_text(kind, self.constant.quantities[kind].error),
                str(model.unanswered),
                str(model.questions),
            )
            for kind, model in quantities.items()
        ]
        mean = (
            "mean",
            f"{self.model.success:.1%}",
            _error_text("", self.model.abs_rel),
            f"{self.constant.success:.1%}",
            _error_text("", self.constant.abs_rel),
            *_counts(quantities),
        )
        pooled = (
            "all",
            f"{self.model.pooled_success:.1%}",
            "",
            f"{self.constant.pooled_success:.1%}",
            "",
            *_counts(quantities),
        )
        return TextTable(
            "objects: lengths within 25 %, directions within 30°",
            ("", "model", "error", "constant", "its error", "failed", "questions"),
            (mean, pooled, *rows),
            "Constant: the best constant answer, chosen on these questions. Errors: AbsRel of "
            "lengths, degrees of directions. Mean: of the kinds below; all: of all questions.",
        )


def score_objects(engine: Engine, sample: ObjectSample) -> ScoredObjects:
    """Ask all questions of a sample.

    Raises:
        GeometryError: if the image does not fit its camera or the engine's limits.
        EngineError: if the engine did not learn about objects, or cannot answer at all.
    """
    questions = [question for question, _ in sample.questions]
    answers = ask_objects(engine, sample.image, sample.camera, questions)
    asked = [Asked(question, truth, np.nan) for question, truth in sample.questions]
    return scored_objects(sample.index, sample.group, asked, answers)


def scored_objects(
    index: int, group: str, asked: Sequence[Asked], answers: ObjectAnswers
) -> ScoredObjects:
    """Put the answers about an image next to the truth.

    Args:
        index: number of the image in its source.
        group: of the image.
        asked: the questions, whose answers are not known yet.
        answers: to them, in the same order.
    """
    answered = zip(asked, answers.values, answers.missing, strict=True)
    return ScoredObjects(
        index=index,
        group=group,
        asked=tuple(
            replace(one, answer=value)
            for one, value, missing in answered
            if not (missing and missing.is_fault)
        ),
        answers=count_answers(len(asked), answers.missing),
    )


def object_scores(views: Sequence[ScoredObjects]) -> ObjectScores:
    """Score answers about objects."""
    asked = [one for view in views for one in view.asked]
    return ObjectScores(
        model=object_metrics(asked),
        constant=object_metrics(best_constants(asked)),
        boxes=object_metrics(answers_by_boxes(asked)),
        views=tuple(view for view in views if view.asked),
        answers=total(view.answers for view in views),
    )


def _metrics_json(metrics: ObjectMetrics) -> dict[str, Any]:
    return {
        "accuracy": metrics.accuracy,
        "success": metrics.success,
        "pooled_success": metrics.pooled_success,
        "abs_rel": metrics.abs_rel,
        "relations": {
            kind: {"accuracy": scores.success, **_counts_json(scores)}
            for kind, scores in metrics.relations.items()
        },
        "quantities": {
            kind: {
                "success": scores.success,
                "error_deg" if kind == DIRECTION else "abs_rel": scores.error,
                **_counts_json(scores),
            }
            for kind, scores in metrics.quantities.items()
        },
    }


def _counts_json(metrics: KindMetrics) -> dict[str, int]:
    return {"questions": metrics.questions, "unanswered": metrics.unanswered}


def _counts(kinds: Mapping[str, KindMetrics]) -> tuple[str, str]:
    """Unanswered questions, and all."""
    scores = kinds.values()
    return (
        str(sum(kind.unanswered for kind in scores)),
        str(sum(kind.questions for kind in scores)),
    )


def _error_text(kind: str, error: float) -> str:
    text = cell_text(error, ".1f" if kind == DIRECTION else ".3f")
    return f"{text}°" if kind == DIRECTION and text != "-" else text
