# SPDX-License-Identifier: Apache-2.0
"""Pairs of images: motion and matches, which are asked in one pass if both are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlm3_ros.engines.base import AnswerUncertainty, Engine
from vlm3_ros.evaluation.answer_counts import AnswerCounts, count_answers
from vlm3_ros.evaluation.metrics.consistency import measured_uncertainty, nees
from vlm3_ros.evaluation.metrics.pair_baselines import sift_motion
from vlm3_ros.evaluation.scores.matches import ScoredMatches
from vlm3_ros.evaluation.scores.motion import ScoredMotion, with_distance
from vlm3_ros.evaluation.scores.uncertainty import MotionUncertainty
from vlm3_ros.geometry.motion import Transform, angles_between
from vlm3_ros.tasks.correspondence import CORRESPONDENCE, Matches, ask_matches
from vlm3_ros.tasks.learned import has_learned
from vlm3_ros.tasks.pose import POSE, RelativePose, ask_pose
from vlm3_ros.tasks.task import CameraPair, ImagePair
from vlm3_ros.tasks.two_view import ask_pair
from vlm3_ros.tasks.verification import answered_covariance


@dataclass(frozen=True)
class PairSample:
    """Two images whose motion is known, or pixels whose match is known; others are not asked.

    Attributes:
        index: number of the pair in its source.
        group: of the pair, such as its kind of scene; "" for none.
        seconds: between both images; NaN if unknown.
        images, cameras: rectified RGB and intrinsics.
        T_cam1_cam2: the motion, shape (4, 4), metres; NaN if unknown.
        T_constant_velocity: the true motion before the pair, continued; NaN where unknown.
        pixels1, pixels2: (u, v) in the first image and their true matches, shape (n, 2) each; n
            may be 0.
        is_metric: whether `T_cam1_cam2` is in metres. Otherwise its displacement has an unknown
            scale.
    """

    index: int
    group: str
    seconds: float
    images: ImagePair
    cameras: CameraPair
    T_cam1_cam2: Transform
    T_constant_velocity: Transform
    pixels1: NDArray[np.float64]
    pixels2: NDArray[np.float64]
    is_metric: bool = True

    @property
    def has_motion(self) -> bool:
        """Whether the motion is known."""
        return bool(np.isfinite(self.T_cam1_cam2).all())


@dataclass(frozen=True)
class ScoredPair:
    """Answers about one pair, and the truth.

    `index`, `seconds`: see `PairSample`. `motion`: its truth is NaN if the motion is unknown.
    `distance_std`: of the answered distance as the engine states it, metres, NaN where unknown.
    `match_errors_deg`: angles between answered and true matches, shape (n,), NaN where unanswered.
    `motion_answers`, `match_answers`: about all questions. `matches` are without those that the
    engine could not answer.
    """

    seconds: float
    motion: ScoredMotion
    matches: ScoredMatches
    distance_std: float
    match_errors_deg: NDArray[np.float64]
    motion_answers: AnswerCounts
    match_answers: AnswerCounts

    @property
    def index(self) -> int:
        """Number of the pair in its source."""
        return self.motion.index

    @property
    def group(self) -> str:
        """Group of the pair."""
        return self.motion.group


def score_pair(engine: Engine, sample: PairSample, match_engine: Engine) -> ScoredPair:
    """Ask for the motion and all matches of a sample, and run classical vision on it.

    Args:
        engine: answers about the motion, which stays unanswered if it was not learned.
        sample: the pair.
        match_engine: answers about matches, likewise; it may be the same.

    Raises:
        GeometryError: if an image does not fit its camera or an engine's limits.
        EngineError: if an engine cannot answer at all.
    """
    pose, matches = _answers(engine, sample, match_engine)
    camera2, truth = sample.cameras[1], sample.T_cam1_cam2
    classical = sift_motion(sample.images, sample.cameras) if sample.has_motion else None
    scored, answered = np.ones(len(sample.pixels1), bool), np.full(sample.pixels1.shape, np.nan)
    if matches is not None:
        scored, answered = ~matches.faulty, matches.pixels2
    answered, true_pixels = answered[scored], sample.pixels2[scored]
    rays = (camera2.rays(pixels) for pixels in (answered, true_pixels))
    return ScoredPair(
        seconds=sample.seconds,
        motion=ScoredMotion(
            index=sample.index,
            group=sample.group,
            predicted=np.full((4, 4), np.nan) if pose is None else pose.T_cam1_cam2,
            truth=truth,
            constant_velocity=sample.T_constant_velocity,
            sift=with_distance(classical, float(np.linalg.norm(truth[:3, 3]))),
            is_metric=sample.is_metric,
        ),
        matches=ScoredMatches(
            sample.group,
            sample.pixels1[scored],
            answered,
            true_pixels,
            camera2.width,
            camera2.height,
        ),
        distance_std=np.nan if pose is None else pose.distance_std,
        match_errors_deg=np.degrees(angles_between(*rays)),
        motion_answers=pose_counts(pose),
        match_answers=match_counts(matches),
    )


def pose_counts(pose: RelativePose | None) -> AnswerCounts:
    """Count the answers about a motion, which has several questions; None if it was not asked."""
    return AnswerCounts() if pose is None else count_answers(len(pose.texts), pose.failures)


def match_counts(matches: Matches | None) -> AnswerCounts:
    """Count the answers about the matches of a pair; None if they were not asked."""
    return AnswerCounts() if matches is None else count_answers(len(matches.texts), matches.missing)


def _answers(
    engine: Engine, sample: PairSample, match_engine: Engine
) -> tuple[RelativePose | None, Matches | None]:
    """Ask for the motion and matches; None if not learned, or if the truth is unknown."""
    asked = sample.images, sample.cameras
    has_motions = has_learned(engine, POSE) and sample.has_motion
    has_matches = has_learned(match_engine, CORRESPONDENCE) and len(sample.pixels1) > 0
    if has_motions and has_matches:
        return ask_pair(engine, *asked, sample.pixels1, match_engine)
    return (
        ask_pose(engine, *asked) if has_motions else None,
        ask_matches(match_engine, *asked, sample.pixels1) if has_matches else None,
    )


def pair_uncertainty(
    pairs: Sequence[ScoredPair], assumed: AnswerUncertainty
) -> MotionUncertainty | None:
    """Compare errors of motions with the standard deviations of a profile, and measure them.

    Args:
        pairs: whose true motion is known, in metres.
        assumed: standard deviations of the profile.

    Returns:
        None if no motion was answered.
    """
    if not pairs:
        return None
    motions = [pair.motion for pair in pairs]
    measured = measured_uncertainty(
        [motion.predicted for motion in motions],
        [motion.truth for motion in motions],
        np.concatenate([pair.match_errors_deg for pair in pairs]),
    )
    if measured is None:
        return None
    return MotionUncertainty(
        pair_nees(pairs, assumed), assumed, measured, pair_nees(pairs, measured)
    )


def pair_nees(pairs: Sequence[ScoredPair], uncertainty: AnswerUncertainty) -> NDArray[np.float64]:
    """Return the NEES of pairs if answers erred by this much, shape (n,), NaN where unanswered."""
    covariance = [
        answered_covariance(pair.motion.predicted, pair.distance_std, uncertainty) for pair in pairs
    ]
    predicted = [pair.motion.predicted for pair in pairs]
    return nees(predicted, [pair.motion.truth for pair in pairs], covariance)
