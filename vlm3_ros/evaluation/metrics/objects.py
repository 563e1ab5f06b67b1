# SPDX-License-Identifier: Apache-2.0
"""Metrics of questions about objects as SpatialRGPT-Bench defines them, and guesses to compare.

An answer that could not be read is wrong, and counts in no mean error. The benchmark's script
(scripts/srgpt/eval/evaluate_spatial_with_gpt4.py) differs in two things: a language model reads
and judges the answers, and of lengths it also writes a second mean error, which is divided by the
true length plus 0.1 mm; the AbsRel that it prints, and that its paper has, is the one here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vlm3_ros.language.wordings.objects import QUANTITIES, RELATIONS
from vlm3_ros.tasks.objects import Box, Direction, Quantity, Question, Relation, Value

TOLERANCE = 0.25
"""Largest relative error of a right length, inclusive."""

TOLERANCE_DEG = 30
"""Largest error of a right direction in degrees (one hour), inclusive."""

DIRECTION = "direction"


@dataclass(frozen=True)
class Asked:
    """A question about objects, the truth, and the answer (NaN if it could not be read).

    `is_choice`: whether it was asked as a choice: of which object the relation holds more, of the
    first one?
    """

    question: Question
    truth: Value
    answer: Value
    is_choice: bool = False

    @property
    def is_right(self) -> bool:
        """Whether the answer is right, see `TOLERANCE` and `TOLERANCE_DEG`."""
        if isinstance(self.question, Relation):
            return self.answer == self.truth
        limit = TOLERANCE if isinstance(self.question, Quantity) else TOLERANCE_DEG
        # An answer on the limit is right, whatever the rounding.
        return self.error <= limit * (1 + 1e-9)

    @property
    def error(self) -> float:
        """|p - g| / g of a length, degrees of a direction, 0 or 1 of a relation; NaN if unread."""
        if isinstance(self.question, Direction):
            hours = abs(self.answer - self.truth) % 12
            return 30.0 * min(hours, 12 - hours)
        if isinstance(self.question, Quantity):
            return abs(self.answer - self.truth) / self.truth
        return float(abs(self.answer - self.truth))


@dataclass(frozen=True)
class KindMetrics:
    """Scores of one kind of question.

    `success`: share of right answers among all questions. `error`: mean over the answered ones:
    AbsRel of a length, degrees of a direction; NaN for relations, and if nothing was answered.
    """

    success: float
    error: float
    questions: int
    unanswered: int


@dataclass(frozen=True)
class ObjectMetrics:
    """Scores by kind of question; kinds that were not asked are missing.

    `relations`: by pair of opposites, "below/above" and so on. `quantities`: by quantity, and
    "direction". `accuracy`: share of right answers among all relations, the benchmark's overall
    score of relations. `success`: mean success of the quantities. `pooled_success`: share of right
    answers among all quantities, the overall score that the benchmark's script prints. `abs_rel`:
    mean AbsRel of the lengths. The last four are NaN if nothing was asked.
    """

    relations: Mapping[str, KindMetrics]
    quantities: Mapping[str, KindMetrics]
    accuracy: float
    success: float
    pooled_success: float
    abs_rel: float


def object_metrics(asked: Sequence[Asked]) -> ObjectMetrics:
    """Score answers about objects."""
    kinds: dict[str, list[Asked]] = {}
    for one in asked:
        kinds.setdefault(_kind(one.question), []).append(one)
    opposites = relation_pairs()
    scores = {kind: _kind_metrics(kinds[kind]) for kind in _in_order(kinds, opposites)}
    relations = {kind: scores.pop(kind) for kind in opposites if kind in scores}
    right: dict[bool, list[bool]] = {True: [], False: []}
    for one in asked:
        right[isinstance(one.question, Relation)].append(one.is_right)
    return ObjectMetrics(
        relations=relations,
        quantities=scores,
        accuracy=_mean(right[True]),
        success=_mean([score.success for score in scores.values()]),
        pooled_success=_mean(right[False]),
        abs_rel=_mean([scores[kind].error for kind in QUANTITIES if kind in scores]),
    )


def relation_pairs() -> list[str]:
    """Return the pairs of opposites under which relations are scored, "below/above" and so on."""
    return ["/".join(pair) for pair in zip(RELATIONS[::2], RELATIONS[1::2], strict=True)]


def best_constants(asked: Sequence[Asked]) -> list[Asked]:
    """Give the same answer to every question of a kind: the one that is right most often.

    It is chosen on the questions that it is scored on: an upper bound for guesses that look at
    neither boxes nor images. Both opposites of a relation have an answer of their own, and so have
    choices.
    """
    wordings: dict[tuple[str, bool], list[Value]] = {}
    for one in asked:
        wordings.setdefault((_wording(one.question), one.is_choice), []).append(one.truth)
    best = {wording: _best_constant(truths) for wording, truths in wordings.items()}
    return [replace(one, answer=best[_wording(one.question), one.is_choice]) for one in asked]


def answers_by_boxes(asked: Sequence[Asked]) -> list[Asked]:
    """Answer relations by the boxes in the image alone; other questions are left out.

    Left and above by the centres, big by the areas, tall and wide by the sides, behind by the
    lower edges: on level ground, the higher edge is farther away. A model that only learned to
    read the numbers in the questions reaches this.
    """
    return [
        replace(one, answer=box_relation(one.question))
        for one in asked
        if isinstance(one.question, Relation)
    ]


def box_relation(asked: Relation) -> bool:
    """See `answers_by_boxes`."""
    index = RELATIONS.index(asked.relation)
    key = {
        "below": lambda box: box[1] + box[3],
        "left": lambda box: -box[0] - box[2],
        "big": lambda box: _sides(box)[0] * _sides(box)[1],
        "tall": lambda box: _sides(box)[1],
        "wide": lambda box: _sides(box)[0],
        "behind": lambda box: -box[3],
    }[RELATIONS[index - index % 2]]
    a, b = key(asked.a), key(asked.b)
    return bool(a > b if index % 2 == 0 else a < b)


def best_length(truth: Sequence[float]) -> float:
    """Return the one length in metres that is right for most of these true ones.

    A guess c is right for lengths in [c / 1.25, c / 0.75]: the fullest window of that width, in
    the logarithm, gives the guess.
    """
    lengths = np.sort(np.asarray(truth, dtype=float))
    window = (1 + TOLERANCE) / (1 - TOLERANCE)
    ends = np.searchsorted(lengths, lengths * window, side="right")
    first = int(np.argmax(ends - np.arange(len(lengths))))
    lowest = (1 - TOLERANCE) * lengths[ends[first] - 1]
    return float(lowest + (1 + TOLERANCE) * lengths[first]) / 2


def _best_constant(truths: Sequence[Value]) -> Value:
    if isinstance(truths[0], bool):
        return Counter(truths).most_common(1)[0][0]
    if isinstance(truths[0], int):
        hours = np.arange(1, 13)
        off = np.abs(hours[:, None] - np.array(truths)) % 12
        is_near = np.minimum(off, 12 - off) * 30 <= TOLERANCE_DEG
        return int(hours[np.argmax(is_near.sum(axis=1))])
    return best_length(truths)


def _kind_metrics(asked: Sequence[Asked]) -> KindMetrics:
    errors = np.array([one.error for one in asked])
    answered: NDArray[np.float64] = errors[np.isfinite(errors)]
    is_relation = isinstance(asked[0].question, Relation)
    return KindMetrics(
        success=_mean([one.is_right for one in asked]),
        error=float("nan") if is_relation else _mean(answered.tolist()),
        questions=len(asked),
        unanswered=len(errors) - len(answered),
    )


def _kind(question: Question) -> str:
    """Kind under which a question is scored: opposites together."""
    if isinstance(question, Relation):
        index = RELATIONS.index(question.relation)
        index -= index % 2
        return "/".join(RELATIONS[index : index + 2])
    return _wording(question)


def _wording(question: Question) -> str:
    if isinstance(question, Relation):
        return question.relation
    return question.quantity if isinstance(question, Quantity) else DIRECTION


def _in_order(kinds: Mapping[str, object], opposites: Sequence[str]) -> list[str]:
    return [kind for kind in (*opposites, *QUANTITIES, DIRECTION) if kind in kinds]


def _sides(box: Box) -> tuple[float, float]:
    left, top, right, bottom = box
    return right - left + 1, bottom - top + 1


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
