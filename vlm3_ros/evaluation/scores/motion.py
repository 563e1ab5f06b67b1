# SPDX-License-Identifier: Apache-2.0
"""Scores of camera motion between two images, next to motions that need no model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from vlm3_ros.evaluation.metrics.declared import metric_cells, metric_json, metric_titles
from vlm3_ros.evaluation.metrics.pair_baselines import (
    CONSTANT_MOTION,
    CONSTANT_VELOCITY,
    IDENTITY,
    SIFT,
    constant_motion,
)
from vlm3_ros.evaluation.metrics.pairs import (
    NO_DIRECTION,
    PoseErrors,
    PoseMetrics,
    pose_errors,
    pose_metrics,
)
from vlm3_ros.evaluation.scores.base import MODEL, Scores, group_tables
from vlm3_ros.evaluation.tables import TextTable
from vlm3_ros.geometry.motion import Transform

_AUC = 30
"""Limit in degrees of the AUC that tables by group and the verdict show."""


@dataclass(frozen=True)
class ScoredMotion:
    """A motion T_cam1_cam2 that was answered, and the true one; shape (4, 4), metres each.

    Attributes:
        index: number of the pair in its source, or the stamp of its second image in nanoseconds.
        group: of the pair, such as its kind of scene; "" for none.
        predicted: NaN where unanswered.
        truth: NaN where unknown.
        constant_velocity: the true motion before the pair, continued; NaN where unknown.
        sift: of classical vision, with the true distance; NaN where it failed.
        is_metric: whether `truth` is in metres. Otherwise its displacement has an unknown scale.
    """

    index: int
    group: str
    predicted: Transform
    truth: Transform
    constant_velocity: Transform
    sift: Transform
    is_metric: bool = True

    @property
    def is_known(self) -> bool:
        """Whether the true motion is known."""
        return bool(np.isfinite(self.truth).all())

    @property
    def error_deg(self) -> float:
        """Larger of rotation and direction error (its sign counts); infinite if unanswered.

        Raises:
            ValueError: if the truth is unknown.
        """
        errors = pose_errors(self.predicted[None], self.truth[None])
        worst = np.fmax(errors.rotation_deg[0], errors.direction_deg[0])
        return float(worst) if np.isfinite(worst) else np.inf


@dataclass(frozen=True)
class MotionScores(Scores):
    """Motions of pairs.

    Attributes:
        title: of the table: what kind of motions these are.
        model: metrics of the answers.
        guesses: metrics of motions that need no model, by name; see `guessed_motions`.
        no_direction_m: true displacements below this have no direction.
        motions: that were scored.
        errors: of the same pairs.
        directed: mask of the pairs whose true displacement has a direction, shape (n,).
    """

    title: str
    model: PoseMetrics
    guesses: dict[str, PoseMetrics]
    no_direction_m: float
    motions: tuple[ScoredMotion, ...] = field(repr=False)
    errors: PoseErrors = field(repr=False)
    directed: NDArray[np.bool_] = field(repr=False)

    @property
    def stamps_ns(self) -> NDArray[np.int64]:
        """Stamps of the second images of the pairs of a recording, shape (n,)."""
        return np.array([motion.index for motion in self.motions], dtype=np.int64)

    @override
    def to_json(self) -> dict[str, Any]:
        return {**metric_json(self.model), "no_direction_m": self.no_direction_m}

    @override
    def baselines_json(self) -> dict[str, Any]:
        return {name: metric_json(metrics) for name, metrics in self.guesses.items()}

    @override
    def tables(self, groups: Mapping[str, MotionScores]) -> list[TextTable]:
        guesses = {"identity": IDENTITY, "const.": CONSTANT_MOTION, "SIFT": SIFT}
        by_group = group_tables(
            f"{self.title}, by group: AUC@{_AUC}",
            (MODEL, *guesses, "rot. °", "dir. °", "dist. m", "pairs"),
            self,
            groups,
            lambda scores: (
                f"{scores.model.auc[_AUC]:.3f}",
                *(f"{scores.guesses[name].auc[_AUC]:.3f}" for name in guesses.values()),
                f"{scores.model.rotation_deg_median:.2f}",
                f"{scores.model.direction_deg_median:.1f}",
                f"{scores.model.distance_error_m_median:.3f}",
                str(scores.model.pairs),
            ),
            "Errors of the model are medians.",
        )
        return [self._table(), *by_group]

    @override
    def verdict(self) -> str:
        guess = self.guesses[CONSTANT_MOTION].auc[_AUC]
        return (
            f"{self.title.split(',')[0].capitalize()}: AUC@{_AUC} {self.model.auc[_AUC]:.2f} "
            f"against {guess:.2f} for the best constant motion."
        )

    def _table(self) -> TextTable:
        rows = {MODEL: self.model, **self.guesses}
        titles = metric_titles(self.model)
        note = (
            "Medians of the errors; failed: no answer. Identity: no motion. Const. motion: the "
            "mean of these pairs. "
        )
        if CONSTANT_VELOCITY in self.guesses:
            note += "Const. velocity: the true motion before the pair, continued. "
        note += "SIFT: essential matrix with the true distance."
        if still := self.model.pairs - self.model.directed:
            note += (
                " AUC and direction leave out pairs that moved less than "
                f"{self.no_direction_m * 100:g} cm: {still}."
            )
        if unscaled := sum(not motion.is_metric for motion in self.motions):
            note += f" The truth of {unscaled} pairs has no metric scale: no distance is scored."
        return TextTable(
            f"{self.title}: {self.model.pairs} pairs",
            ("", *titles),
            tuple((_row_name(name), *_cells(name, metrics)) for name, metrics in rows.items()),
            note,
        )


def motion_scores(
    motions: Sequence[ScoredMotion], title: str, no_direction_m: float = NO_DIRECTION
) -> MotionScores:
    """Score motions.

    Args:
        motions: known ones, at least one whose true displacement has a direction.
        title: see `MotionScores`.
        no_direction_m: choose it above the noise of the truth.

    Raises:
        ValueError: if no motion has a direction.
    """
    truth = np.stack([motion.truth for motion in motions])
    predicted = np.stack([motion.predicted for motion in motions])
    is_metric = np.array([motion.is_metric for motion in motions])
    return MotionScores(
        title=title,
        model=pose_metrics(predicted, truth, no_direction_m, is_metric),
        guesses={
            name: pose_metrics(guess, truth, no_direction_m, is_metric)
            for name, guess in guessed_motions(motions).items()
        },
        no_direction_m=no_direction_m,
        motions=tuple(motions),
        errors=pose_errors(predicted, truth, no_direction_m, is_metric),
        directed=np.linalg.norm(truth[:, :3, 3], axis=1) >= no_direction_m,
    )


def guessed_motions(motions: Sequence[ScoredMotion]) -> dict[str, NDArray[np.float64]]:
    """Return motions of the same pairs that need no model, T_cam1_cam2, shape (n, 4, 4) each.

    - identity: no motion. It has no direction, so its direction errs by 90 degrees.
    - constant motion: one for all pairs, chosen on them: mean rotation and direction, median
      distance. For a robot, straight ahead.
    - constant velocity: the true motion before the pair, continued; NaN where unknown, left out
      if no past is known. It knows the truth about the past and looks at no image.
    - sift: SIFT and the essential matrix with the true distance; NaN where it fails.
    """
    count, truth = len(motions), np.stack([motion.truth for motion in motions])
    is_metric = [motion.is_metric for motion in motions]
    continued = np.stack([motion.constant_velocity for motion in motions])
    return {
        IDENTITY: np.tile(np.eye(4), (count, 1, 1)),
        CONSTANT_MOTION: np.tile(constant_motion(truth, is_metric), (count, 1, 1)),
        **({CONSTANT_VELOCITY: continued} if np.isfinite(continued).any() else {}),
        SIFT: np.stack([motion.sift for motion in motions]),
    }


def with_distance(motion: Transform | None, distance: float) -> Transform:
    """Scale a motion of unit displacement to a distance in metres; all NaN for None."""
    if motion is None:
        return np.full((4, 4), np.nan)
    scaled = motion.copy()
    scaled[:3, 3] *= distance
    return scaled


def _row_name(name: str) -> str:
    return name.replace("_", " ").replace("constant", "const.")


def _cells(name: str, metrics: PoseMetrics) -> tuple[str, ...]:
    cells = dict(zip(metric_titles(metrics), metric_cells(metrics), strict=True))
    if name == SIFT:
        cells["dist. m"] = "true"
    return tuple(cells.values())
