# SPDX-License-Identifier: Apache-2.0
"""Answers about a bag against what is true of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import expm

from vlm3_ros.bags.poses import TruePoses
from vlm3_ros.evaluation.bag.answers import BagAnswers, Pair
from vlm3_ros.evaluation.bag.truth import BagTruth, true_motions
from vlm3_ros.evaluation.metrics.consistency import nees
from vlm3_ros.evaluation.metrics.depth import (
    DepthMetrics,
    Guess,
    RangeError,
    abs_rel,
    constant_baseline,
    depth_metrics,
    errors_by_range,
    row_baseline,
    within_delta,
)
from vlm3_ros.evaluation.metrics.pair_baselines import (
    CONSTANT_MOTION,
    CONSTANT_VELOCITY,
    IDENTITY,
    SIFT,
    constant_motion,
)
from vlm3_ros.evaluation.metrics.pairs import (
    MatchMetrics,
    PoseErrors,
    PoseMetrics,
    match_metrics,
    pose_errors,
    pose_metrics,
)
from vlm3_ros.evaluation.metrics.trajectories import (
    Trajectory,
    TrajectoryErrors,
    absolute_pose_error,
    aligned,
    associate,
    relative_pose_error,
)
from vlm3_ros.evaluation.report import guess_json, match_json, metrics_json, pose_json
from vlm3_ros.geometry.motion import Transform, base_motion, body_twist, cross_matrix, inverse

NO_DIRECTION = 0.01
"""Metres below which a true displacement has no direction: trackers are not better than that."""


@dataclass(frozen=True)
class DepthScores:
    """Depth over all frames, and frame by frame.

    `constant` and `row`: the best guesses that do not look, see
    `vlm3_ros.evaluation.metrics.depth`. `by_range`: errors by the true depth. `stamps_ns`,
    `delta1`, `abs_rel`: of each frame, shape (n,), the last NaN where unanswered.
    """

    metrics: DepthMetrics
    constant: Guess
    row: Guess
    by_range: list[RangeError]
    stamps_ns: NDArray[np.int64]
    delta1: NDArray[np.float64]
    abs_rel: NDArray[np.float64]


@dataclass(frozen=True)
class MotionScores:
    """Motions of pairs, and on the same pairs those that need no model, by name.

    `stamps_ns`: of the second image of each pair, shape (n,); `errors`: of the same pairs;
    `directed`: which of them have a true displacement of `NO_DIRECTION` or more, shape (n,).
    """

    metrics: PoseMetrics
    guesses: dict[str, PoseMetrics]
    stamps_ns: NDArray[np.int64]
    errors: PoseErrors
    directed: NDArray[np.bool_]


@dataclass(frozen=True)
class MatchScores:
    """Matches, and what the same pixel would score."""

    metrics: MatchMetrics
    same_pixel: MatchMetrics


@dataclass(frozen=True)
class TrajectoryScores:
    """A trajectory of the base against the true one, at the same times.

    `ape`: after the SE(3) alignment of `estimate` (Umeyama without scale). `ape_from_start`: with
    the first pose put on the true one instead: what has drifted since. `rpe`: from each pose to
    the next. `length_m`: of the true way. `chains`: parts that the trajectory fell into, by
    resets; the scores are those of the longest one.
    """

    estimate: Trajectory
    truth: Trajectory
    ape: TrajectoryErrors
    ape_from_start: TrajectoryErrors
    rpe: TrajectoryErrors
    length_m: float
    chains: int


@dataclass
class BagScores:
    """All scores of a bag; None where they could not be had, which `left_out` explains by name.

    `pose`: motions as the model answered them, before any check. `odometry`: from each pose that
    was published to the next. `nees`: of the motions that passed the checks of the odometry under
    the covariance that they were given, see `vlm3_ros.evaluation.metrics.consistency`, shape (n,).
    """

    depth: DepthScores | None = None
    pose: MotionScores | None = None
    odometry: MotionScores | None = None
    nees: NDArray[np.float64] | None = None
    correspondence: MatchScores | None = None
    trajectory: TrajectoryScores | None = None
    left_out: dict[str, str] = field(default_factory=dict)


def score_answers(
    answers: BagAnswers, truth: BagTruth, poses: TruePoses | None, no_poses: str = ""
) -> BagScores:
    """Score everything that there is truth for.

    Args:
        answers: about the bag.
        truth: of the bag.
        poses: the ground truth of poses.
        no_poses: why there is none.
    """
    scores = BagScores(left_out=dict(answers.left_out))
    scores.depth = _depth_scores(answers, truth, scores.left_out)
    if "odometry" in answers.left_out:
        return scores
    if poses is None:
        for name in ("pose", "odometry", "trajectory", "correspondence"):
            scores.left_out.setdefault(name, no_poses)
        return scores
    reasons = scores.left_out
    scores.pose = _motion_scores("pose", answers.motions, truth, poses, reasons)
    published = {
        pair: _camera_motion(answers.odom, pair, poses.T_base_camera)
        for pair in published_pairs(answers)
    }
    scores.odometry = _motion_scores("odometry", published, truth, poses, reasons)
    scores.nees = _nees(answers, poses)
    if "correspondence" not in answers.left_out:
        scores.correspondence = _match_scores(answers, truth, reasons)
    scores.trajectory = _trajectory_scores(answers, poses, reasons)
    return scores


def published_pairs(answers: BagAnswers) -> list[Pair]:
    """Stamps of each pose that was published and of the next one in the same chain."""
    return [pair for chain in odometry_chains(answers) for pair in pairwise(chain)]


def odometry_chains(answers: BagAnswers) -> list[list[int]]:
    """Stamps of poses that belong together: where odometry begins anew, it is at the identity."""
    chains: list[list[int]] = []
    for stamp in sorted(answers.odom):
        if not chains or stamp in answers.starts:
            chains.append([])
        chains[-1].append(stamp)
    return chains


def motion_guesses(
    pairs: Sequence[Pair], truth: BagTruth, poses: TruePoses
) -> dict[str, NDArray[np.float64]]:
    """Motions of pairs that need no model, T_cam1_cam2, shape (n, 4, 4) each.

    - identity: no motion; it has no direction, so its direction errs by 90 degrees.
    - constant motion: one for all pairs, chosen on them: mean rotation and direction, median
      distance. For a robot, straight ahead.
    - constant velocity: the camera goes on as it truly came, from the frame before the pair's
      first one to that; NaN for the first frame. It knows the truth about the past.
    - sift: SIFT and the essential matrix, its scale the true distance; NaN where it finds nothing.
    """
    motions = true_motions(poses, pairs)
    return {
        IDENTITY: np.tile(np.eye(4), (len(pairs), 1, 1)),
        CONSTANT_MOTION: np.tile(constant_motion(motions), (len(pairs), 1, 1)),
        CONSTANT_VELOCITY: np.stack([_continued(pair, truth.stamps_ns, poses) for pair in pairs]),
        SIFT: np.stack(
            [
                _scaled(truth.sift.get(pair), float(np.linalg.norm(motion[:3, 3])))
                for pair, motion in zip(pairs, motions, strict=True)
            ]
        ),
    }


def scores_json(scores: BagScores) -> dict[str, Any]:
    """Scores as JSON; what was left out is missing, and told under `left_out`."""
    content: dict[str, Any] = {}
    baselines: dict[str, dict[str, Any]] = {}
    if scores.depth:
        content["depth"] = {
            **metrics_json(scores.depth.metrics),
            "by_range": [asdict(error) for error in scores.depth.by_range],
        }
        for name, guess in (("constant", scores.depth.constant), ("row", scores.depth.row)):
            baselines[name] = {"depth": guess_json(guess)}
    for name, motions in (("pose", scores.pose), ("odometry", scores.odometry)):
        if motions:
            content[name] = {**pose_json(motions.metrics), "no_direction_m": NO_DIRECTION}
            for guess_name, metrics in motions.guesses.items():
                baselines.setdefault(guess_name, {})[name] = pose_json(metrics)
    if scores.nees is not None:
        content["consistency"] = {
            "nees": {"mean": float(scores.nees.mean()), "median": float(np.median(scores.nees))},
            "motions": len(scores.nees),
        }
    if scores.correspondence:
        content["correspondence"] = match_json(scores.correspondence.metrics)
        baselines["same_pixel"] = {"correspondence": match_json(scores.correspondence.same_pixel)}
    if scores.trajectory:
        content["trajectory"] = _trajectory_json(scores.trajectory)
    return {**content, "baselines": baselines, "left_out": scores.left_out}


def _depth_scores(
    answers: BagAnswers, truth: BagTruth, left_out: dict[str, str]
) -> DepthScores | None:
    known = {
        stamp: np.isfinite(truth.depths[stamp])
        for stamp in sorted(answers.depths)
        if stamp in truth.depths and np.isfinite(truth.depths[stamp]).any()
    }
    if not known:
        reason = "no depth image of the bag belongs to a frame that was answered"
        left_out.setdefault("depth", reason if truth.depths else "the bag has no usable depth")
        return None
    predicted = [answers.depths[stamp][mask] for stamp, mask in known.items()]
    true = [truth.depths[stamp][mask] for stamp, mask in known.items()]
    frames = list(zip(predicted, true, strict=True))
    return DepthScores(
        metrics=depth_metrics(predicted, true),
        constant=constant_baseline(true),
        row=row_baseline(true, [truth.rows[mask] for mask in known.values()]),
        by_range=errors_by_range(np.concatenate(predicted), np.concatenate(true)),
        stamps_ns=np.array(list(known), dtype=np.int64),
        delta1=np.array([within_delta(p, g).mean() for p, g in frames]),
        abs_rel=np.array([abs_rel(p, g) for p, g in frames]),
    )


def _motion_scores(
    name: str,
    motions: Mapping[Pair, Transform],
    truth: BagTruth,
    poses: TruePoses,
    left_out: dict[str, str],
) -> MotionScores | None:
    if not motions:
        left_out.setdefault(name, "no motion between two frames was answered")
        return None
    stamps = np.array(sorted(motions, key=lambda pair: pair[1]), dtype=np.int64)
    true = true_motions(poses, stamps)
    known = np.isfinite(true).all(axis=(1, 2))
    if not known.any():
        left_out[name] = f"the ground truth ({poses.source}) covers no pair of frames"
        return None
    true, stamps = true[known], stamps[known]
    pairs = [(int(one), int(two)) for one, two in stamps]
    directed = np.linalg.norm(true[:, :3, 3], axis=1) >= NO_DIRECTION
    if not directed.any():
        left_out[name] = f"the camera truly moved less than {NO_DIRECTION:g} m between any frames"
        return None
    predicted = np.stack([motions[pair] for pair in pairs])
    return MotionScores(
        metrics=pose_metrics(predicted, true, NO_DIRECTION),
        guesses={
            guess: pose_metrics(guessed, true, NO_DIRECTION)
            for guess, guessed in motion_guesses(pairs, truth, poses).items()
        },
        stamps_ns=stamps[:, 1],
        errors=pose_errors(predicted, true, NO_DIRECTION),
        directed=directed,
    )


def _nees(answers: BagAnswers, poses: TruePoses) -> NDArray[np.float64] | None:
    """None where no motion with a known truth has passed the checks."""
    if not answers.accepted:
        return None
    true = true_motions(poses, list(answers.accepted))
    known = np.isfinite(true).all(axis=(1, 2))
    if not known.any():
        return None
    motions, covariances = map(np.array, zip(*answers.accepted.values(), strict=True))
    return nees(motions[known], true[known], covariances[known])


def _match_scores(
    answers: BagAnswers, truth: BagTruth, left_out: dict[str, str]
) -> MatchScores | None:
    pairs = sorted(set(answers.matches) & set(truth.matches))
    true = np.concatenate([truth.matches[pair] for pair in pairs] or [np.empty((0, 2))])
    known = np.isfinite(true).all(axis=1)
    if not known.any():
        left_out["correspondence"] = "of no asked pixel depth and poses tell the match"
        return None
    predicted = np.concatenate([answers.matches[pair].pixels2 for pair in pairs])
    same = np.concatenate([answers.matches[pair].pixels1 for pair in pairs])
    return MatchScores(
        match_metrics(predicted[known], true[known]), match_metrics(same[known], true[known])
    )


def _trajectory_scores(
    answers: BagAnswers, poses: TruePoses, left_out: dict[str, str]
) -> TrajectoryScores | None:
    chains = odometry_chains(answers)
    chain = np.array(max(chains, key=len, default=[]), dtype=np.int64)
    true = poses.base.at(chain)
    known = np.isfinite(true).all(axis=(1, 2))
    if known.sum() < 2:
        left_out["trajectory"] = (
            f"{int(known.sum())} poses were published in a row for which the ground truth "
            f"({poses.source}) is known, 2 are needed"
        )
        return None
    estimate = Trajectory(chain[known], np.stack([answers.odom[int(s)] for s in chain[known]]))
    estimate, truth = associate(estimate, Trajectory(chain[known], true[known]))
    started = truth.poses[0] @ inverse(estimate.poses[0]) @ estimate.poses
    best = aligned(estimate, truth)
    places = truth.poses[:, :3, 3]
    return TrajectoryScores(
        estimate=best,
        truth=truth,
        ape=absolute_pose_error(best, truth),
        ape_from_start=absolute_pose_error(Trajectory(estimate.stamps_ns, started), truth),
        rpe=relative_pose_error(estimate, truth),
        length_m=float(np.linalg.norm(np.diff(places, axis=0), axis=1).sum()),
        chains=len(chains),
    )


def _trajectory_json(scores: TrajectoryScores) -> dict[str, Any]:
    return {
        "ape_rmse_m": scores.ape.translation_m.rmse,
        "ape_rotation_rmse_deg": scores.ape.rotation_deg.rmse,
        "ape_from_start_rmse_m": scores.ape_from_start.translation_m.rmse,
        "rpe_rmse_m": scores.rpe.translation_m.rmse,
        "rpe_rotation_rmse_deg": scores.rpe.rotation_deg.rmse,
        "alignment": "SE(3)",
        "poses": len(scores.estimate.poses),
        "chains": scores.chains,
        "length_m": scores.length_m,
    }


def _camera_motion(
    odom: Mapping[int, Transform], pair: Pair, T_base_camera: Transform
) -> Transform:
    T_base1_base2 = inverse(odom[pair[0]]) @ odom[pair[1]]
    return base_motion(T_base1_base2, inverse(T_base_camera))


def _continued(pair: Pair, stamps_ns: Sequence[int], poses: TruePoses) -> Transform:
    """The motion of a pair if the camera went on as it came."""
    index = int(np.searchsorted(stamps_ns, pair[0]))
    if index == 0:
        return np.full((4, 4), np.nan)
    before = stamps_ns[index - 1]
    (motion,) = true_motions(poses, [(before, pair[0])])
    if not np.isfinite(motion).all():
        return motion
    linear, angular = np.split(body_twist(motion, (pair[0] - before) / 1e9), 2)
    twist = np.zeros((4, 4))
    twist[:3, :3], twist[:3, 3] = cross_matrix(angular), linear
    return np.asarray(expm(twist * (pair[1] - pair[0]) / 1e9))


def _scaled(motion: Transform | None, distance: float) -> Transform:
    if motion is None:
        return np.full((4, 4), np.nan)
    scaled = motion.copy()
    scaled[:3, 3] *= distance
    return scaled
