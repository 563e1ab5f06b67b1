# SPDX-License-Identifier: Apache-2.0
"""Motions and matches of pairs of views."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self, override

from vlm3_ros.datasets.views import ViewPair
from vlm3_ros.engines.base import Engine
from vlm3_ros.evaluation.answer_counts import AnswerCounts, total
from vlm3_ros.evaluation.metrics.pairs import NO_DIRECTION
from vlm3_ros.evaluation.parts.base import Part, Picture, Tasks
from vlm3_ros.evaluation.pictures.pair import PairFrame, draw_pair_frames
from vlm3_ros.evaluation.scores.base import (
    Scores,
    TaskScores,
    best_median_worst,
    score_by_group,
)
from vlm3_ros.evaluation.scores.matches import MatchScores, match_scores
from vlm3_ros.evaluation.scores.motion import (
    MotionScores,
    ScoredMotion,
    motion_scores,
    with_distance,
)
from vlm3_ros.evaluation.scores.pairs import ScoredPair, pair_uncertainty
from vlm3_ros.evaluation.scores.uncertainty import MotionUncertainty
from vlm3_ros.geometry.motion import Transform
from vlm3_ros.tasks.correspondence import CORRESPONDENCE
from vlm3_ros.tasks.pose import POSE
from vlm3_ros.tasks.two_view import assumed_uncertainty

MOST_SOUGHT = 300_000
"""Pixels of a first image among which matches are drawn; more take seconds and gigabytes."""


@dataclass(frozen=True)
class PairsPart(Part):
    """Motions and matches of pairs.

    Attributes:
        pairs: all that were asked about.
        motion: None if no true motion has a direction.
        matches: None if no true match is known.
        uncertainty: of the motions in metres; None if none was answered.
        view_pair: returns the images of a pair by its index, to draw them.
        name_of: what a pair is called.
        asked: tasks whose scores are expected.
    """

    tasks = (POSE, CORRESPONDENCE)

    pairs: tuple[ScoredPair, ...]
    motion: TaskScores[MotionScores] | None
    matches: TaskScores[MatchScores] | None
    uncertainty: MotionUncertainty | None
    view_pair: Callable[[int], ViewPair] = field(repr=False)
    name_of: Callable[[ScoredPair], str] = field(repr=False)
    asked: Tasks = (POSE, CORRESPONDENCE)

    @classmethod
    def of_pairs(
        cls,
        pairs: Sequence[ScoredPair],
        engine: Engine,
        match_engine: Engine,
        view_pair: Callable[[int], ViewPair],
        name_of: Callable[[ScoredPair], str],
        asked: Tasks = (POSE, CORRESPONDENCE),
        no_direction_m: float = NO_DIRECTION,
    ) -> Self:
        """Score answers about pairs.

        Args:
            pairs: at least one; see `score_pair`.
            engine: answered about motions.
            match_engine: answered about matches.
            view_pair, name_of, asked: see `PairsPart`.
            no_direction_m: see `motion_scores`.
        """

        def score_motions(motions: Sequence[ScoredMotion]) -> MotionScores:
            return motion_scores(motions, "relative pose", no_direction_m)

        known = [pair for pair in pairs if pair.motion.is_known]
        motions = [pair.motion for pair in with_motion_answers(known)]
        has_direction = any(
            np.linalg.norm(motion.truth[:3, 3]) >= no_direction_m for motion in motions
        )
        matches = [pair.matches for pair in pairs if len(pair.matches.truth)]
        assumed = assumed_uncertainty(engine, match_engine)
        metric = [pair for pair in known if pair.motion.is_metric]
        uncertainty = pair_uncertainty(metric, assumed) if has_direction else None
        has_matches = any(np.isfinite(pair.match_errors_deg).any() for pair in metric)
        if uncertainty and uncertainty.measured and not has_matches:
            measured = replace(uncertainty.measured, match_deg=assumed.match_deg)
            uncertainty = replace(uncertainty, measured=measured)
        return cls(
            pairs=tuple(pairs),
            motion=score_by_group(motions, score_motions) if has_direction else None,
            matches=score_by_group(matches, match_scores) if matches else None,
            uncertainty=uncertainty,
            view_pair=view_pair,
            name_of=name_of,
            asked=asked,
        )

    @override
    def scores(self) -> dict[str, TaskScores[Scores]]:
        scores: dict[str, TaskScores[Scores]] = {}
        if self.motion:
            scores[POSE.name] = self.motion
        if self.matches:
            scores[CORRESPONDENCE.name] = self.matches
        if self.uncertainty:
            scores["consistency"] = TaskScores(self.uncertainty)
        return scores

    @override
    def answers(self) -> dict[str, AnswerCounts]:
        return {
            POSE.name: total(pair.motion_answers for pair in self.pairs),
            CORRESPONDENCE.name: total(pair.match_answers for pair in self.pairs),
        }

    @override
    def left_out(self) -> dict[str, str]:
        reasons = {}
        if POSE in self.asked:
            if self.motion is None:
                reasons[POSE.name] = "no pair has a motion that is known and has a direction"
            elif self.uncertainty is None:
                is_metric = any(pair.motion.is_metric for pair in self.pairs)
                reasons["consistency"] = (
                    "no motion could be read" if is_metric else "no motion has a metric scale"
                )
        if CORRESPONDENCE in self.asked and self.matches is None:
            reasons[CORRESPONDENCE.name] = "no pixel is known to be shown by both views of a pair"
        return reasons

    @override
    def pictures(self, model: str) -> list[Picture]:
        answered = []
        if self.motion:
            motion = self.motion.overall.model
            if motion.unanswered < motion.pairs:
                answered.append(f"AUC@30 {motion.auc[30]:.3f}")
        if self.matches:
            matches = self.matches.overall.model
            if matches.unanswered < matches.matches:
                answered.append(f"EPE {matches.epe_px:.1f} px")
        title = f"{model}: {', '.join(answered) or 'no answer'} on {len(self.pairs)} pairs"
        return [
            Picture(
                "pairs.png",
                "Motion and matches: the best, the median and the worst pair",
                lambda path: draw_pair_frames(self.frames(), path, title),
            )
        ]

    def frames(self) -> list[PairFrame]:
        """Return the best, the median and the worst pair, to draw them.

        They are ranked by the error of the motion, or by that of the matches if no motion is known.
        """
        known = [pair for pair in self.pairs if pair.motion.is_known]
        if known:
            chosen = best_median_worst(
                with_motion_answers(known), lambda pair: pair.motion.error_deg
            )
        else:
            chosen = best_median_worst(self.pairs, lambda pair: _match_error(pair))
        return [
            pair_frame(pair, f"{name}: {self.name_of(pair)}", self.view_pair(pair.index))
            for name, pair in chosen.items()
        ]


def pair_frame(pair: ScoredPair, title: str, views: ViewPair) -> PairFrame:
    """Return a pair as a picture.

    A true motion without metric scale is drawn as long as the answered one.
    """
    motion: Transform | None = pair.motion.predicted
    motion_true: Transform | None = pair.motion.truth
    if not pair.motion.is_known:
        motion = motion_true = None
    elif not pair.motion.is_metric:
        title = f"{title}; scale unknown, the true motion is drawn as long as the answered one"
        answered = float(np.linalg.norm(pair.motion.predicted[:3, 3]))
        unscaled = pair.motion.truth / (np.linalg.norm(pair.motion.truth[:3, 3]) or 1.0)
        unscaled[:3, :3] = pair.motion.truth[:3, :3]
        motion_true = with_distance(unscaled, answered if np.isfinite(answered) else 1.0)
    return PairFrame(
        title=title,
        images=(views.first.image, views.second.image),
        pixels1=pair.matches.pixels1,
        pixels2=pair.matches.predicted,
        pixels2_true=pair.matches.truth,
        motion=motion,
        motion_true=motion_true,
    )


def with_motion_answers(pairs: Sequence[ScoredPair]) -> Sequence[ScoredPair]:
    """Return the pairs about whose motion the engine had all answers.

    All if there is none: then the scores are left out.
    """
    return [pair for pair in pairs if not pair.motion_answers.faults] or pairs


def visible_pixels(
    pair: ViewPair, count: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draw pixels of the first view that the second one shows, or labelled ones; at most `count`.

    Returns:
        Both places (u, v), shape (n, 2) each.
    """
    if pair.labels is not None:
        some = rng.permutation(len(pair.labels.pixels1))[:count]
        return pair.labels.pixels1[some], pair.labels.pixels2[some]
    camera = pair.first.camera
    size = np.array([camera.width, camera.height])
    if size.prod() > MOST_SOUGHT:
        pixels1 = np.unique(rng.integers(size, size=(MOST_SOUGHT, 2)), axis=0).astype(float)
    else:
        pixels1 = camera.pixel_grid().reshape(-1, 2)
    pixels2 = pair.matches(pixels1)
    shown = np.flatnonzero(np.isfinite(pixels2).all(axis=1))
    chosen = rng.permutation(shown)[:count]
    return pixels1[chosen], pixels2[chosen]


def _match_error(pair: ScoredPair) -> float:
    errors = np.linalg.norm(pair.matches.predicted - pair.matches.truth, axis=1)
    known = errors[np.isfinite(errors)]
    return float(known.mean()) if known.size else np.inf
