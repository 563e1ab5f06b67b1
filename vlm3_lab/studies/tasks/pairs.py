# SPDX-License-Identifier: Apache-2.0
"""Motions and matches of two views of procedural scenes that no training draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from vlm3_lab.scenes import KINDS
from vlm3_lab.scenes.view_pairs import RATE, DrivePair, sample_drive_pair, true_matches
from vlm3_lab.studies.task_evaluation import (
    Calibrated,
    Picture,
    ProgressBar,
    SceneSettings,
    TaskEvaluation,
)
from vlm3_ros.datasets.views import ViewPair
from vlm3_ros.engines.base import Engine
from vlm3_ros.evaluation.answer_counts import AnswerCounts, total
from vlm3_ros.evaluation.pictures.pair import PairFrame, draw_pair_frames
from vlm3_ros.evaluation.scores.base import (
    Progress,
    Scores,
    TaskScores,
    best_median_worst,
    no_progress,
    score_by_group,
    score_samples,
)
from vlm3_ros.evaluation.scores.matches import MatchScores, ScoredMatches, match_scores
from vlm3_ros.evaluation.scores.motion import MotionScores, ScoredMotion, motion_scores
from vlm3_ros.evaluation.scores.pairs import (
    PairSample,
    ScoredPair,
    pair_nees,
    pair_uncertainty,
    score_pair,
)
from vlm3_ros.evaluation.scores.uncertainty import MotionUncertainty, nees_json
from vlm3_ros.tasks.correspondence import CORRESPONDENCE
from vlm3_ros.tasks.learned import has_learned
from vlm3_ros.tasks.pose import POSE
from vlm3_ros.tasks.two_view import assumed_uncertainty

STREAM = 0xE7A2
"""First word of the seeds of these pairs: neither training nor other evaluations draw from it."""

MATCHES = 8
"""Pixels of a pair that are asked for their match."""


@dataclass(frozen=True)
class Evaluation(TaskEvaluation):
    """Motions and matches of pairs; `uncertainty` is None if no motion was answered."""

    tasks = (POSE, CORRESPONDENCE)

    seed: int
    pairs: tuple[ScoredPair, ...]
    motion: TaskScores[MotionScores]
    matches: TaskScores[MatchScores]
    uncertainty: MotionUncertainty | None

    @override
    @classmethod
    def evaluate(
        cls, engines: Mapping[str, Engine], settings: SceneSettings, bar: ProgressBar
    ) -> Evaluation:
        with bar(f"pairs of seed {settings.seed}") as progress:
            return evaluate_pairs(
                engines[POSE.name],
                settings.count,
                settings.seed,
                settings.matches,
                progress,
                engines[CORRESPONDENCE.name],
            )

    @override
    def scores(self) -> dict[str, TaskScores[Scores]]:
        scores: dict[str, TaskScores[Scores]] = {
            POSE.name: self.motion,
            CORRESPONDENCE.name: self.matches,
        }
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
        return {} if self.uncertainty else {"consistency": "no motion could be read"}

    @override
    def pictures(self, model: str) -> list[Picture]:
        motion, matches = self.motion.overall.model, self.matches.overall.model
        answered = []
        if motion.unanswered < motion.pairs:
            answered.append(f"AUC@30 {motion.auc[30]:.3f}")
        if matches.unanswered < matches.matches:
            answered.append(f"EPE {matches.epe_px:.1f} px")
        title = f"{model}: {', '.join(answered) or 'no answer'} on {motion.pairs} pairs"
        shown = _with_motion_answers(self.pairs)
        return [
            Picture(
                "pairs.png",
                "Motion and matches: the best, the median and the worst pair",
                lambda path: draw_pair_frames(pair_pictures(self.seed, shown), path, title),
            )
        ]

    @override
    def calibrated(
        self, engines: Mapping[str, Engine], settings: SceneSettings, bar: ProgressBar
    ) -> tuple[Evaluation, list[Calibrated]]:
        if self.uncertainty is None or self.uncertainty.measured is None:
            return self, []
        measured = self.uncertainty.measured
        engine, match_engine = engines[POSE.name], engines[CORRESPONDENCE.name]
        nees = pair_nees(self.evaluate(engines, settings, bar).pairs, measured)
        check = {"seed": settings.seed, **nees_json(nees)}
        stored = [
            Calibrated(
                "pose",
                {"uncertainty": measured},
                "the uncertainty of motions",
                f"with it the NEES of the pairs of the next seed is {np.nanmean(nees):.2f} (right: "
                f"1), median {np.nanmedian(nees):.2f}",
            )
        ]
        if match_engine is not engine and has_learned(match_engine, CORRESPONDENCE):
            of_matches = replace(match_engine.profile.uncertainty, match_deg=measured.match_deg)
            stored.append(
                Calibrated(
                    "correspondence", {"uncertainty": of_matches}, "the uncertainty of matches"
                )
            )
        return replace(self, uncertainty=replace(self.uncertainty, check_json=check)), stored


def evaluation_pair(seed: int, index: int) -> tuple[DrivePair, np.random.Generator]:
    """Return pair `index` of the evaluation `seed`, and the generator that draws its pixels.

    The generator is seeded with `np.random.SeedSequence([0xE7A2, seed, index])`; kinds take turns.
    """
    rng = np.random.default_rng(np.random.SeedSequence([STREAM, seed, index]))
    return sample_drive_pair(rng, KINDS[index % len(KINDS)]), rng


def pair_sample(seed: int, index: int, matches: int) -> PairSample:
    """Draw random pixels of the first view of a pair that the second one shows."""
    drive, rng = evaluation_pair(seed, index)
    views = drive.views
    pixels1, pixels2 = _visible_pixels(views, matches, rng)
    return PairSample(
        index=index,
        group=views.first.kind,
        seconds=drive.gap / RATE,
        images=(views.first.image, views.second.image),
        cameras=(views.first.camera, views.second.camera),
        T_cam1_cam2=views.T_cam1_cam2,
        T_constant_velocity=drive.T_cam1_cam2_at_constant_velocity,
        pixels1=pixels1,
        pixels2=pixels2,
    )


def evaluate_pairs(
    engine: Engine,
    count: int,
    seed: int,
    matches: int = MATCHES,
    progress: Progress = no_progress,
    match_engine: Engine | None = None,
) -> Evaluation:
    """Ask for the motion and for matches of new pairs of all kinds, and score the answers.

    Pairs are those of `evaluation_pair(seed, 0 .. count - 1)`. One model is asked for both in one
    pass. What was not learned stays unanswered.

    Args:
        engine: answers about motions.
        count: number of pairs.
        seed: any integer from 0 up.
        matches: pixels asked in each pair.
        progress: takes the number of pairs done, and of all.
        match_engine: answers about matches; None for the same model.

    Raises:
        EngineError: if an engine cannot answer at all.
    """
    match_engine = match_engine or engine
    samples = (pair_sample(seed, index, matches) for index in range(count))
    pairs = score_samples(
        samples, count, lambda sample: score_pair(engine, sample, match_engine), progress
    )

    def score_motions(motions: Sequence[ScoredMotion]) -> MotionScores:
        return motion_scores(motions, "relative pose")

    assumed = assumed_uncertainty(engine, match_engine)
    uncertainty = pair_uncertainty(pairs, assumed)
    if uncertainty and uncertainty.measured and not has_learned(match_engine, CORRESPONDENCE):
        measured = replace(uncertainty.measured, match_deg=assumed.match_deg)
        uncertainty = replace(uncertainty, measured=measured)
    return Evaluation(
        seed=seed,
        pairs=tuple(pairs),
        motion=score_by_group([pair.motion for pair in _with_motion_answers(pairs)], score_motions),
        matches=score_by_group([pair.matches for pair in pairs], match_scores),
        uncertainty=uncertainty,
    )


def pair_pictures(seed: int, pairs: Sequence[ScoredPair]) -> list[PairFrame]:
    """Return the best, the median and the worst pair by the error of the motion, to draw them."""
    chosen = best_median_worst(pairs, lambda pair: pair.motion.error_deg)
    return [pair_frame(seed, name, pair) for name, pair in chosen.items()]


def pair_frame(seed: int, name: str, pair: ScoredPair) -> PairFrame:
    """Return a pair of the evaluation `seed` as a picture; `name` stands before its kind."""
    views: ViewPair = evaluation_pair(seed, pair.index)[0].views
    matches: ScoredMatches = pair.matches
    return PairFrame(
        title=f"{name}: {pair.group} {pair.index}, {pair.seconds:.1f} s",
        images=(views.first.image, views.second.image),
        pixels1=matches.pixels1,
        pixels2=matches.predicted,
        pixels2_true=matches.truth,
        motion=pair.motion.predicted,
        motion_true=pair.motion.truth,
    )


def _with_motion_answers(pairs: Sequence[ScoredPair]) -> Sequence[ScoredPair]:
    """Return the pairs about whose motion the engine had all answers.

    All if there is none: then the scores are left out.
    """
    return [pair for pair in pairs if not pair.motion_answers.faults] or pairs


def _visible_pixels(
    views: ViewPair, count: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draw pixels of the first view that the second one shows; return both places."""
    pixels1 = views.first.camera.pixel_grid().reshape(-1, 2)
    pixels2 = true_matches(views.first, views.second, pixels1)
    shown = np.flatnonzero(np.isfinite(pixels2).all(axis=1))
    chosen = rng.permutation(shown)[:count]
    return pixels1[chosen], pixels2[chosen]
