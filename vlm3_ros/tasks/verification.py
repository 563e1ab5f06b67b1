# SPDX-License-Identifier: Apache-2.0
"""Check an answered motion against a model's other answers about the pair, and its images.

Five things must agree with the motion: the answered angle of its rotation, the image features of
the pair (`vlm3_ros.tasks.feature_check`), the matches of the pair (they must lie on its epipolar
lines and meet in front of the cameras), the motion that geometry solves from matches and depths,
and the answered motion from the second image back to the first. Features that say something replace
the check by matches, which errs more: docs/odometry.md has the figures. A motion that disagrees is
refused; one that the geometric motion confirms is fused with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlm3_ros.engines.base import AnswerUncertainty
from vlm3_ros.geometry.epipolar import (
    closure_error,
    epipolar_residuals,
    metric_motion_covariance,
    metric_motion_from_matches,
    parallaxes,
)
from vlm3_ros.geometry.motion import (
    Covariance,
    Transform,
    angles_between,
    inverse,
    inverse_covariance,
    motion_error,
    motion_parts,
    perturbed,
)
from vlm3_ros.tasks.correspondence import Matches
from vlm3_ros.tasks.feature_check import FeatureEvidence
from vlm3_ros.tasks.pose import RelativePose
from vlm3_ros.tasks.task import CameraPair

Status = Literal["accepted", "fused", "refused"]

Check = Literal["answers", "image features", "matches", "depth", "backward", "max_speed"]
"""What refused a motion: "answers" cannot be read or contradict each other."""

AUTHORS_UNCERTAINTY = AnswerUncertainty()

MIN_MATCHES = 8
"""Minimum number of matches: a motion has 6 unknowns, and half of the matches may be wrong."""

EPIPOLAR_LIMIT = 0.9
"""Median residual above which a motion is refused, in units of `AnswerUncertainty.match_deg`.

On average 2 / pi of an error is across the epipolar line, and the Sampson error shares it between
both images, 1 / sqrt(2) each: true motions have a residual of 0.45. Twice that is not noise.
"""

REVERSED_LIMIT = 2.0
"""Median parallax behind the cameras above which a motion is refused, in rotation errors.

A displacement and its reverse have the same epipolar lines, but only for one of them do the rays
meet in front of the cameras. A parallax that a turn by this many standard deviations could explain
proves nothing.
"""

ANGLE_LIMIT = 4.0
"""Difference between the answered rotation angle and that of yaw, pitch and roll above which a
motion is refused, in units of `AnswerUncertainty.rotation_deg`.

If both answers err independently by one such unit about the axis of the rotation, they differ by
sqrt(2) units; 2.81 times that passes 99.5 % of true motions. In a simulation no fewer pass near a
rotation of zero, where errors about the other axes count too.
"""

INLIER = 2.0
"""A match within this multiple of `AnswerUncertainty.match_deg` supports the geometric motion."""

MIN_INLIERS = 0.5
"""Minimum share of the matches that must support a geometric motion."""

DISAGREEMENT = 12.84
"""Squared Mahalanobis distance above which two displacements, or two rotations, differ.

Chi square of 3 degrees of freedom, 99.5 %, so that a true motion passes both in 99 %. They are
tested separately, or the agreement of one would hide the disagreement of the other.
"""

DEPTH_SCALE_STD = 0.1
"""Relative error that all depths of an image share, which residuals do not show.

With the paper's delta1 of 0.9, 90 % of depths are within 25 %: one standard deviation is at most
15 %. About half of its square is assumed to be common to the image.
"""


@dataclass(frozen=True)
class VerifiedMotion:
    """A motion after its checks.

    `status`: "accepted" as answered, "fused" with the geometric motion, or "refused": must not be
    used. `reason`: one sentence for diagnostics. `refused_by`: the check; None unless refused.
    `T_cam1_cam2`: shape (4, 4), metres, the best estimate; NaN if refused. `covariance`: shape
    (6, 6) in the axes of the first camera (`vlm3_ros.geometry.motion`), NaN if refused.
    """

    status: Status
    reason: str
    T_cam1_cam2: Transform
    covariance: Covariance
    refused_by: Check | None = None


def verify_motion(
    pose: RelativePose,
    matches: Matches | None,
    cameras: CameraPair,
    depth1: ArrayLike | None = None,
    backward: RelativePose | None = None,
    uncertainty: AnswerUncertainty = AUTHORS_UNCERTAINTY,
    features: FeatureEvidence | None = None,
) -> VerifiedMotion:
    """Accept, fuse or refuse a motion.

    Args:
        pose: T_cam1_cam2 as answered.
        matches: of the same two images; None skips their check and the geometric motion.
        cameras: of the first and the second image.
        depth1: metres along Z at `matches.pixels1`, shape (n,), NaN if unknown; None skips the
            geometric motion.
        backward: the answer for the exchanged images, T_cam2_cam1; None or an unreadable answer
            skips its check.
        uncertainty: of the model.
        features: what image features say about the motion; None if nothing.
    """
    if not pose.has_motion:
        reasons = ", ".join(failure.reason for failure in pose.failures)
        return _refused("answers", f"the model's answers could not be read ({reasons})")
    contradiction = angle_contradiction(pose, uncertainty)
    if contradiction is not None:
        return _refused("answers", contradiction)
    if features is not None and (contradiction := features.contradiction) is not None:
        return _refused("image features", contradiction)
    readable = 0 if matches is None else len(matches.pixels1) - matches.failures
    if matches is not None and features is None and readable < MIN_MATCHES:
        return _refused("matches", f"{readable} matches could be read, a check needs {MIN_MATCHES}")
    motion = pose.T_cam1_cam2
    covariance = answered_covariance(motion, pose.distance_std, uncertainty)
    if backward is not None and backward.has_motion:
        back = inverse(backward.T_cam1_cam2)
        back_covariance = inverse_covariance(
            answered_covariance(backward.T_cam1_cam2, backward.distance_std, uncertainty),
            backward.T_cam1_cam2,
        )
        gap = motion_error(motion, back)
        if _disagree(gap, covariance + back_covariance):
            metres, degrees = closure_error(motion, backward.T_cam1_cam2)
            return _refused(
                "backward",
                f"forward and backward motion miss each other by {metres:.2f} m and "
                f"{degrees:.1f} degrees",
            )
        # If two answers differ by a gap, each has a variance of half its square.
        covariance = covariance + np.outer(gap, gap) / 2
    reason = "no matches were asked"
    if features is not None:
        reason = f"{features.matches} image features agree"
        residual = math.radians(features.residual_deg)
        covariance = covariance + np.diag([0, 0, 0, 1, 1, 1]) * residual**2
    elif matches is not None:
        if contradiction := _match_contradiction(motion, matches, cameras, uncertainty):
            return _refused("matches", contradiction)
        reason = "the matches agree"
        # A rotation error could explain the residual of the matches.
        residual = median_residual(motion, matches, cameras)
        covariance = covariance + np.diag([0, 0, 0, 1, 1, 1]) * residual**2
    if matches is None or depth1 is None or readable < MIN_MATCHES:
        return VerifiedMotion("accepted", reason, motion, covariance)
    inlier = math.radians(INLIER * uncertainty.match_deg)
    depth1 = np.asarray(depth1, dtype=float)
    return _fused(motion, covariance, matches, cameras, depth1, inlier)


def _match_contradiction(
    motion: Transform, matches: Matches, cameras: CameraPair, uncertainty: AnswerUncertainty
) -> str | None:
    """How matches contradict a motion; None if they do not."""
    residual = median_residual(motion, matches, cameras)
    limit_deg = EPIPOLAR_LIMIT * uncertainty.match_deg
    if residual > math.radians(limit_deg):
        return (
            f"matches are {math.degrees(residual):.1f} degrees off the motion's epipolar lines, "
            f"more than {limit_deg:.1f}"
        )
    behind = -median_parallax(motion, matches, cameras)
    if behind > math.radians(REVERSED_LIMIT * uncertainty.rotation_deg):
        return (
            f"matches meet behind the cameras, at {math.degrees(behind):.1f} degrees: the motion "
            "would be the other way"
        )
    return None


def angle_contradiction(
    pose: RelativePose, uncertainty: AnswerUncertainty = AUTHORS_UNCERTAINTY
) -> str | None:
    """Return how the answered rotation angle contradicts the answered yaw, pitch and roll.

    Returns:
        None if they agree within `ANGLE_LIMIT`, or one is unknown.
    """
    limit = ANGLE_LIMIT * uncertainty.rotation_deg
    # A comparison with NaN is false.
    if not abs(pose.angle_deg - pose.rotation_deg) > limit:
        return None
    return (
        f"the answered rotation angle of {pose.angle_deg:.1f} degrees contradicts yaw, pitch and "
        f"roll, whose angle is {pose.rotation_deg:.1f} degrees"
    )


def answered_covariance(
    T_cam1_cam2: Transform,
    distance_std: float,
    uncertainty: AnswerUncertainty = AUTHORS_UNCERTAINTY,
) -> Covariance:
    """Return the covariance of an answered motion, shape (6, 6), in the first camera's axes.

    Args:
        T_cam1_cam2: metres.
        distance_std: metres, from the engine; NaN for the relative error of `uncertainty`.
        uncertainty: of the model.
    """
    parts = motion_parts(T_cam1_cam2)
    along = uncertainty.distance_relative * parts.distance
    if math.isfinite(distance_std):
        along = distance_std
    across = math.radians(uncertainty.direction_deg) * parts.distance
    line = np.outer(parts.direction, parts.direction)
    covariance = np.zeros((6, 6))
    covariance[:3, :3] = along**2 * line + across**2 * (np.eye(3) - line)
    covariance[:3, :3] += np.eye(3) * uncertainty.distance_floor**2
    covariance[3:, 3:] = np.eye(3) * math.radians(uncertainty.rotation_deg) ** 2
    return covariance


def match_residuals(
    T_cam1_cam2: Transform, matches: Matches, cameras: CameraPair
) -> NDArray[np.float64]:
    """Measure how far matches are from what a motion allows, radians, shape (n,).

    The epipolar residual, or, without displacement, the angle between match and rotated ray. NaN
    if a match is unreadable.
    """
    first, second = cameras
    residuals = epipolar_residuals(T_cam1_cam2, first, matches.pixels1, second, matches.pixels2)
    if np.isnan(residuals).all():
        rays1, rays2 = first.rays(matches.pixels1), second.rays(matches.pixels2)
        turned = rays2 @ T_cam1_cam2[:3, :3].T
        residuals = angles_between(rays1, turned)
    return residuals


def median_residual(T_cam1_cam2: Transform, matches: Matches, cameras: CameraPair) -> float:
    """Return the median of the readable `match_residuals`, radians."""
    return float(np.nanmedian(match_residuals(T_cam1_cam2, matches, cameras)))


def median_parallax(T_cam1_cam2: Transform, matches: Matches, cameras: CameraPair) -> float:
    """Return the median of the readable `parallaxes`, radians."""
    first, second = cameras
    angles = parallaxes(T_cam1_cam2, first, matches.pixels1, second, matches.pixels2)
    return float(np.nanmedian(angles))


def fuse(
    T: Transform, covariance: Covariance, other: Transform, other_covariance: Covariance
) -> tuple[Transform, Covariance]:
    """Fuse two independent estimates: one Kalman step. Return the transform and its covariance."""
    gain = np.linalg.solve((covariance + other_covariance).T, covariance.T).T
    fused = (np.eye(6) - gain) @ covariance
    return perturbed(T, gain @ motion_error(T, other)), (fused + fused.T) / 2


def _fused(
    motion: Transform,
    covariance: Covariance,
    matches: Matches,
    cameras: CameraPair,
    depth1: NDArray[np.float64],
    inlier: float,
) -> VerifiedMotion:
    """Compare a motion with the geometric motion, and fuse them if they agree."""
    observed = (cameras[0], matches.pixels1, depth1, cameras[1], matches.pixels2)
    geometric = metric_motion_from_matches(*observed, inlier)
    usable = np.isfinite(depth1) & np.isfinite(matches.pixels2).all(axis=1)
    supported = 0 if geometric is None else int(geometric.inliers.sum())
    noise = None if geometric is None else metric_motion_covariance(geometric, *observed)
    if (
        geometric is None
        or noise is None
        or supported < max(MIN_MATCHES, MIN_INLIERS * usable.sum())
    ):
        return VerifiedMotion(
            "accepted",
            f"the matches agree, but {supported} of {usable.sum()} with depth determine no motion",
            motion,
            covariance,
        )
    place = geometric.T_cam1_cam2[:3, 3]
    noise[:3, :3] += DEPTH_SCALE_STD**2 * np.outer(place, place)
    if _disagree(motion_error(motion, geometric.T_cam1_cam2), covariance + noise):
        metres, degrees = closure_error(motion, inverse(geometric.T_cam1_cam2))
        return _refused(
            "depth",
            f"the motion from matches and depth is {metres:.2f} m and {degrees:.1f} degrees away",
        )
    best, best_covariance = fuse(motion, covariance, geometric.T_cam1_cam2, noise)
    return VerifiedMotion(
        "fused", f"{supported} of {usable.sum()} matches agree", best, best_covariance
    )


def _disagree(gap: NDArray[np.float64], covariance: Covariance) -> bool:
    """Whether displacements or rotations differ by more than their covariance explains."""
    return any(
        gap[part] @ np.linalg.solve(covariance[part, part], gap[part]) > DISAGREEMENT
        for part in (slice(0, 3), slice(3, 6))
    )


def _refused(check: Check, reason: str) -> VerifiedMotion:
    return VerifiedMotion(
        "refused", reason, np.full((4, 4), np.nan), np.full((6, 6), np.nan), refused_by=check
    )
