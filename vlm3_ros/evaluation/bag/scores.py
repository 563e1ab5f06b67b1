# SPDX-License-Identifier: Apache-2.0
"""Answers about a bag, put next to the truth and scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import pairwise

import numpy as np
from scipy.linalg import expm

from vlm3_ros.bags.poses import TruePoses
from vlm3_ros.evaluation.bag.answers import BagAnswers, Pair
from vlm3_ros.evaluation.bag.truth import BagTruth, true_motions
from vlm3_ros.evaluation.metrics.consistency import nees
from vlm3_ros.evaluation.metrics.trajectories import Trajectory, associate
from vlm3_ros.evaluation.scores.base import Scores
from vlm3_ros.evaluation.scores.depth import DepthScores, ScoredView, depth_scores
from vlm3_ros.evaluation.scores.matches import MatchScores, ScoredMatches, match_scores
from vlm3_ros.evaluation.scores.motion import (
    MotionScores,
    ScoredMotion,
    motion_scores,
    with_distance,
)
from vlm3_ros.evaluation.scores.trajectory import TrajectoryScores, trajectory_scores
from vlm3_ros.evaluation.scores.uncertainty import MotionUncertainty
from vlm3_ros.geometry.motion import Transform, base_motion, body_twist, cross_matrix, inverse

NO_DIRECTION = 0.01
"""Metres below which a true displacement has no direction: trackers are not better than that."""

_FOLLOWING = {"pose": ("odometry", "trajectory", "consistency")}

TITLES = {"pose": "relative pose, as answered", "odometry": "odometry, from pose to pose"}


@dataclass
class BagScores:
    """All scores of a bag by task; None for tasks that `left_out` gives a reason for.

    `pose`: motions as the model answered them, before any check. `odometry`: from each published
    pose to the next. `consistency`: motions that passed the checks of the odometry, under the
    covariance that they were given.
    """

    depth: DepthScores | None = None
    pose: MotionScores | None = None
    odometry: MotionScores | None = None
    consistency: MotionUncertainty | None = None
    trajectory: TrajectoryScores | None = None
    correspondence: MatchScores | None = None
    left_out: dict[str, str] = field(default_factory=dict)

    def leave_out(self, task: str, reason: str) -> None:
        """Drop the scores of a task, and those that follow from its answers."""
        for dropped in (task, *_FOLLOWING.get(task, ())):
            setattr(self, dropped, None)
            self.left_out[dropped] = reason

    def by_task(self) -> dict[str, Scores]:
        """Return the scores that there are, in the order in which they are shown."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {task: scores for task, scores in values.items() if isinstance(scores, Scores)}


def score_answers(
    answers: BagAnswers, truth: BagTruth, poses: TruePoses | None, no_poses: str = ""
) -> BagScores:
    """Score everything whose truth is known.

    Args:
        answers: about the bag.
        truth: of the bag.
        poses: the ground truth of poses; None if unknown.
        no_poses: why it is unknown.
    """
    scores = BagScores(left_out=dict(answers.left_out))
    scores.depth = _depth_scores(answers, truth, scores.left_out)
    if "odometry" in answers.left_out:
        return scores
    if poses is None:
        for task in ("pose", "odometry", "trajectory", "correspondence"):
            scores.left_out.setdefault(task, no_poses)
        return scores
    reasons = scores.left_out
    scores.pose = _motion_scores("pose", answers.motions, truth, poses, reasons)
    published = {
        pair: _camera_motion(answers.odom, pair, poses.T_base_camera)
        for pair in published_pairs(answers)
    }
    scores.odometry = _motion_scores("odometry", published, truth, poses, reasons)
    scores.consistency = _consistency(answers, poses)
    if "correspondence" not in answers.left_out:
        scores.correspondence = _match_scores(answers, truth, reasons)
    scores.trajectory = _trajectory_scores(answers, poses, reasons)
    return scores


def published_pairs(answers: BagAnswers) -> list[Pair]:
    """Return the stamps of each published pose and of the next one in the same chain."""
    return [pair for chain in odometry_chains(answers) for pair in pairwise(chain)]


def odometry_chains(answers: BagAnswers) -> list[list[int]]:
    """Return the stamps of poses that belong together: each reset starts at the identity again."""
    chains: list[list[int]] = []
    for stamp in sorted(answers.odom):
        if not chains or stamp in answers.starts:
            chains.append([])
        chains[-1].append(stamp)
    return chains


def _depth_scores(
    answers: BagAnswers, truth: BagTruth, left_out: dict[str, str]
) -> DepthScores | None:
    views = []
    for stamp in sorted(answers.depths):
        if stamp not in truth.depths:
            continue
        known = np.isfinite(truth.depths[stamp])
        if stamp in answers.faulty:
            known &= ~answers.faulty[stamp]
        if known.any():
            predicted = answers.depths[stamp][known].astype(float)
            views.append(
                ScoredView(
                    index=stamp,
                    group="",
                    predicted=predicted,
                    std=np.full(len(predicted), np.nan),
                    truth=truth.depths[stamp][known].astype(float),
                    rows=truth.rows[known],
                )
            )
    if not views:
        reason = "no depth image of the bag belongs to a frame that was answered"
        left_out.setdefault("depth", reason if truth.depths else "the bag has no usable depth")
        return None
    return depth_scores(views)


def _motion_scores(
    task: str,
    motions: Mapping[Pair, Transform],
    truth: BagTruth,
    poses: TruePoses,
    left_out: dict[str, str],
) -> MotionScores | None:
    if not motions:
        left_out.setdefault(task, "no motion between two frames was answered")
        return None
    pairs = sorted(motions, key=lambda pair: pair[1])
    scored = [
        ScoredMotion(
            index=pair[1],
            group="",
            predicted=motions[pair],
            truth=true,
            constant_velocity=_continued(pair, truth.stamps_ns, poses),
            sift=with_distance(truth.sift.get(pair), float(np.linalg.norm(true[:3, 3]))),
        )
        for pair, true in zip(pairs, true_motions(poses, pairs), strict=True)
        if np.isfinite(true).all()
    ]
    if not scored:
        left_out[task] = f"the ground truth ({poses.source}) covers no pair of frames"
        return None
    if all(np.linalg.norm(motion.truth[:3, 3]) < NO_DIRECTION for motion in scored):
        left_out[task] = f"the camera moved less than {NO_DIRECTION:g} m between any two frames"
        return None
    return motion_scores(scored, TITLES[task], NO_DIRECTION)


def _consistency(answers: BagAnswers, poses: TruePoses) -> MotionUncertainty | None:
    """Return None if no motion with a known truth has passed the checks."""
    if not answers.accepted:
        return None
    true = true_motions(poses, list(answers.accepted))
    known = np.isfinite(true).all(axis=(1, 2))
    if not known.any():
        return None
    motions, covariances = map(np.array, zip(*answers.accepted.values(), strict=True))
    return MotionUncertainty(nees(motions[known], true[known], covariances[known]))


def _match_scores(
    answers: BagAnswers, truth: BagTruth, left_out: dict[str, str]
) -> MatchScores | None:
    scored = []
    for pair in sorted(set(answers.matches) & set(truth.matches)):
        matches, true = answers.matches[pair], truth.matches[pair]
        known = np.isfinite(true.pixels2).all(axis=1)
        scored.append(
            ScoredMatches(
                "",
                matches.pixels1[known],
                matches.pixels2[known],
                true.pixels2[known],
                true.width,
                true.height,
            )
        )
    if not any(len(matches.truth) for matches in scored):
        left_out["correspondence"] = "depth and poses determine the true match of no asked pixel"
        return None
    return match_scores(scored)


def _trajectory_scores(
    answers: BagAnswers, poses: TruePoses, left_out: dict[str, str]
) -> TrajectoryScores | None:
    chains = odometry_chains(answers)
    chain = np.array(max(chains, key=len, default=[]), dtype=np.int64)
    true = poses.base.at(chain)
    known = np.isfinite(true).all(axis=(1, 2))
    if known.sum() < 2:
        left_out["trajectory"] = (
            f"the ground truth ({poses.source}) covers {int(known.sum())} poses published in a "
            "row, 2 are needed"
        )
        return None
    estimate = Trajectory(chain[known], np.stack([answers.odom[int(s)] for s in chain[known]]))
    estimate, truth = associate(estimate, Trajectory(chain[known], true[known]))
    return trajectory_scores(estimate, truth, len(chains))


def _camera_motion(
    odom: Mapping[int, Transform], pair: Pair, T_base_camera: Transform
) -> Transform:
    T_base1_base2 = inverse(odom[pair[0]]) @ odom[pair[1]]
    return base_motion(T_base1_base2, inverse(T_base_camera))


def _continued(pair: Pair, stamps_ns: Sequence[int], poses: TruePoses) -> Transform:
    """Motion of a pair if the camera kept the true velocity of the frame before; NaN if unknown."""
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
