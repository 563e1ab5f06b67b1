# SPDX-License-Identifier: Apache-2.0
"""Motions and matches of two views of procedural scenes that no training draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from typing_extensions import override

from vlm3_lab.scenes import KINDS
from vlm3_lab.scenes.view_pairs import RATE, DrivePair, sample_drive_pair
from vlm3_lab.studies.task_evaluation import Calibrated, SceneSettings, TaskEvaluation
from vlm3_ros.datasets.views import ViewPair
from vlm3_ros.engines.base import Engine
from vlm3_ros.evaluation.parts.base import ProgressBar
from vlm3_ros.evaluation.parts.pairs import PairsPart, visible_pixels
from vlm3_ros.evaluation.parts.pairs import pair_frame as frame_of_pair
from vlm3_ros.evaluation.pictures.pair import PairFrame
from vlm3_ros.evaluation.scores.base import Progress, best_median_worst, no_progress, score_samples
from vlm3_ros.evaluation.scores.pairs import PairSample, ScoredPair, pair_nees, score_pair
from vlm3_ros.evaluation.scores.uncertainty import nees_json
from vlm3_ros.tasks.correspondence import CORRESPONDENCE
from vlm3_ros.tasks.learned import has_learned
from vlm3_ros.tasks.pose import POSE

STREAM = 0xE7A2
"""First word of the seeds of these pairs: neither training nor other evaluations draw from it."""

MATCHES = 8
"""Pixels of a pair that are asked for their match."""


@dataclass(frozen=True)
class Evaluation(PairsPart, TaskEvaluation):
    """Motions and matches of pairs."""

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
    pixels1, pixels2 = visible_pixels(views, matches, rng)
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
    return Evaluation.of_pairs(
        pairs, engine, match_engine, lambda index: _views(seed, index), _name
    )


def pair_pictures(seed: int, pairs: Sequence[ScoredPair]) -> list[PairFrame]:
    """Return the best, the median and the worst pair by the error of the motion, to draw them."""
    chosen = best_median_worst(pairs, lambda pair: pair.motion.error_deg)
    return [pair_frame(seed, name, pair) for name, pair in chosen.items()]


def pair_frame(seed: int, name: str, pair: ScoredPair) -> PairFrame:
    """Return a pair of the evaluation `seed` as a picture; `name` stands before its kind."""
    return frame_of_pair(pair, f"{name}: {_name(pair)}", _views(seed, pair.index))


def _name(pair: ScoredPair) -> str:
    return f"{pair.group} {pair.index}, {pair.seconds:.1f} s"


def _views(seed: int, index: int) -> ViewPair:
    return evaluation_pair(seed, index)[0].views
