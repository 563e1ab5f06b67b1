# SPDX-License-Identifier: Apache-2.0
"""Metrics of questions about objects as SpatialRGPT-Bench defines them, and guesses beside them.

An answer that could not be read is wrong, and in no mean error. The benchmark reads answers by a
language model and adds 0.1 mm to the true length that errors are divided by; else its numbers are
these.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlm3_ros.language.objects import QUANTITIES, RELATIONS
from vlm3_ros.tasks.objects import Box, Direction, Quantity, Question, Relation, Value

TOLERANCE = 0.25
"""Share of the true length by which an answer may be off, inclusive."""

TOLERANCE_DEG = 30
"""Degrees, one hour, by which a direction may be off, inclusive."""

DIRECTION = "direction"


@dataclass(frozen=True)
class Asked:
    """A question about objects with what is true, and what was answered (NaN where unread)."""

    question: Question
    truth: Value
    answer: Value

    @property
    def is_right(self) -> bool:
        """Whether it counts as a success: see `TOLERANCE` and `TOLERANCE_DEG`."""
        if isinstance(self.question, Relation):
            return self.answer == self.truth
        limit = TOLERANCE if isinstance(self.question, Quantity) else TOLERANCE_DEG
        # So that what lies on the limit counts, whatever the rounding.
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

    `success`: share of the questions that were answered rightly. `error`: mean over those that
    were answered: AbsRel of a length, degrees of a direction; NaN for relations, and where nothing
    was answered.
    """

    success: float
    error: float
    questions: int
    unanswered: int


@dataclass(frozen=True)
class ObjectMetrics:
    """Scores by kind of question; kinds that were not asked are missing.

    `relations`: by pair of opposites, "below/above" and so on. `quantities`: by quantity, and
    "direction". `accuracy`: share of all relations that were answered rightly. `success`: mean of
    the quantities' successes. `abs_rel`: mean of the lengths' AbsRel. These three as the
    benchmark's overall scores, NaN where nothing was asked.
    """

    relations: Mapping[str, KindMetrics]
    quantities: Mapping[str, KindMetrics]
    accuracy: float
    success: float
    abs_rel: float


def object_metrics(asked: Sequence[Asked]) -> ObjectMetrics:
    """Score answers about objects."""
    kinds: dict[str, list[Asked]] = {}
    for one in asked:
        kinds.setdefault(_kind(one.question), []).append(one)
    opposites = ["/".join(pair) for pair in zip(RELATIONS[::2], RELATIONS[1::2], strict=True)]
    scores = {kind: _kind_metrics(kinds[kind]) for kind in _in_order(kinds, opposites)}
    relations = {kind: scores.pop(kind) for kind in opposites if kind in scores}
    right = [one.is_right for one in asked if isinstance(one.question, Relation)]
    return ObjectMetrics(
        relations=relations,
        quantities=scores,
        accuracy=_mean(right),
        success=_mean([score.success for score in scores.values()]),
        abs_rel=_mean([scores[kind].error for kind in QUANTITIES if kind in scores]),
    )


def best_constants(asked: Sequence[Asked]) -> list[Asked]:
    """The same answer to every question of a kind: the one that is right most often.

    It is chosen on the questions that it is scored on: an upper bound of what can be reached
    without looking at boxes or images. Of relations, each of both opposites has its own.
    """
    wordings: dict[str, list[Value]] = {}
    for one in asked:
        wordings.setdefault(_wording(one.question), []).append(one.truth)
    best = {wording: _best_constant(truths) for wording, truths in wordings.items()}
    return [Asked(one.question, one.truth, best[_wording(one.question)]) for one in asked]


def said_by_boxes(asked: Sequence[Asked]) -> list[Asked]:
    """Relations as boxes in the image tell them; other questions are left out.

    Left and above by their centres, big by their areas, tall and wide by their sides, behind by
    their lower edges, the higher of which is farther away on level ground. What learned nothing
    but to read the numbers in questions reaches this.
    """
    return [
        Asked(one.question, one.truth, box_relation(one.question))
        for one in asked
        if isinstance(one.question, Relation)
    ]


def box_relation(asked: Relation) -> bool:
    """See `said_by_boxes`."""
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
    """The one length in metres that is a success for the most of these true ones.

    The lengths that a guess c is a success for are those in [c / 1.25, c / 0.75]: the fullest
    window of that width, in the logarithm, gives the guess.
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
    """Under which a question is scored: opposites together."""
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
