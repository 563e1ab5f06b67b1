# SPDX-License-Identifier: Apache-2.0
"""Metrics of two views as the field defines them: relative pose and correspondence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from vlm3_ros.evaluation.metrics.declared import Metric
from vlm3_ros.geometry.motion import angles_between

AUC_LIMITS_DEG = (30, 15, 5, 3)

NO_DIRECTION = 1e-6
"""Metres below which a true displacement has no direction."""

EPE_LIMITS_PX = (1, 3, 5)

UFM_SIZE = (560, 420)
"""Width and height of images in UFM's benchmark of wide baselines, px: ETH3D, DTU and TA-WB. Images
are scaled to cover it, and what stands over is cut off. Source:
https://github.com/UniFlowMatch/UFM (branch benchmark, ufm_benchmarks)."""


@dataclass(frozen=True)
class PoseErrors:
    """Errors of relative poses, shape (n,) each, NaN where a pose was not answered.

    `rotation_deg`: angle between the rotations. `direction_deg`: angle between the displacements,
    0 to 180; 90 if no displacement was predicted, NaN if the true one has no direction.
    `distance_m`: predicted minus true length of the displacement.
    """

    rotation_deg: NDArray[np.float64]
    direction_deg: NDArray[np.float64]
    distance_m: NDArray[np.float64]


@dataclass(frozen=True)
class PoseMetrics:
    """Metrics of relative poses over pairs.

    `auc`: by limit in degrees, see `pose_auc`. Medians are over answered pairs (NaN if there is
    none); that of the distance is of its absolute error. `directed`: pairs whose displacement has
    a direction; `auc` and the direction are over these.
    """

    auc: Annotated[dict[int, float], Metric("AUC@{}", ".3f", "auc{}", "@{}")]
    rotation_deg_median: Annotated[float, Metric("rot. °", ".2f", "rotation_deg/median")]
    direction_deg_median: Annotated[float, Metric("dir. °", ".1f", "direction_deg/median")]
    distance_error_m_median: Annotated[float, Metric("dist. m", ".3f", "distance_error_m/median")]
    pairs: int
    directed: int
    unanswered: Annotated[int, Metric("failed", "d")]


@dataclass(frozen=True)
class MatchMetrics:
    """Metrics of correspondences.

    `epe_px`: mean Euclidean distance in pixels of the second image, over answered matches (NaN
    if there is none). `epe_ufm_px`: the same after that image was scaled as in UFM's benchmark, see
    `ufm_scale`. `epe_share`: the same as a share of its width. Both are NaN if its size is unknown.
    `above`: share of all matches with a larger error than a limit in px; unanswered ones count as
    larger.
    """

    epe_px: Annotated[float, Metric("EPE px", ".2f")]
    epe_ufm_px: Annotated[float, Metric("EPE UFM", ".2f")]
    epe_share: Annotated[float, Metric("of width", ".1%")]
    above: Annotated[dict[int, float], Metric("above {} px", ".1%", "above_{}_px", "{} px")]
    matches: int
    unanswered: Annotated[int, Metric("failed", "d")]


def pose_errors(
    predicted: ArrayLike,
    truth: ArrayLike,
    no_direction: float = NO_DIRECTION,
    has_distance: ArrayLike = True,
) -> PoseErrors:
    """Compare motions T_cam1_cam2.

    Args:
        predicted: shape (n, 4, 4), metres, NaN where unanswered.
        truth: shape (n, 4, 4), metres.
        no_direction: true displacements below this many metres have no direction; choose it
            above the noise of the truth.
        has_distance: whether the true displacement is in metres, shape (n,) or one for all; the
            error of the distance is NaN otherwise.

    Raises:
        ValueError: if the shapes differ, or a true motion is not finite.
    """
    predicted, truth = _motions(predicted), _motions(truth)
    if predicted.shape != truth.shape:
        raise ValueError(f"{len(predicted)} motions for {len(truth)} true ones")
    if not np.isfinite(truth).all():
        raise ValueError("a true motion is not finite")
    answered = np.isfinite(predicted).all(axis=(1, 2))
    p, g = predicted[answered], truth[answered]
    turn = Rotation.from_matrix(p[:, :3, :3]).inv() * Rotation.from_matrix(g[:, :3, :3])
    a, b = p[:, :3, 3], g[:, :3, 3]
    lengths = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    angle = np.degrees(angles_between(a, b))
    angle[lengths[0] == 0] = 90
    angle[lengths[1] < no_direction] = np.nan
    errors = np.full((3, len(truth)), np.nan)
    errors[:, answered] = np.degrees(turn.magnitude()), angle, lengths[0] - lengths[1]
    errors[2, ~np.broadcast_to(np.asarray(has_distance, bool), len(truth))] = np.nan
    return PoseErrors(*errors)


def pose_auc(worst_deg: ArrayLike, limit: int) -> float:
    """Return the area under the recall curve of pair errors, as VGGT and Depth Anything 3 do.

    Errors are counted in bins of one degree from 0 to the limit, inclusive; the mean of the
    cumulative shares is the area. SuperGlue's exact area is a different number.

    Args:
        worst_deg: the larger error of each pair, shape (n,), not finite if the pair failed.
        limit: whole degrees.

    Raises:
        ValueError: if there is no pair.
    """
    worst = np.asarray(worst_deg, dtype=float)
    if not worst.size:
        raise ValueError("there is no pair to score")
    counts, _ = np.histogram(worst[np.isfinite(worst)], bins=np.arange(limit + 1))
    return float(np.mean(np.cumsum(counts / worst.size)))


def pose_metrics(
    predicted: ArrayLike,
    truth: ArrayLike,
    no_direction: float = NO_DIRECTION,
    has_distance: ArrayLike = True,
) -> PoseMetrics:
    """Score motions T_cam1_cam2, see `pose_errors` for the arguments.

    For the AUC, the error of a pair is the larger of its rotation and direction errors. The sign of
    the direction is ignored: an angle a counts as min(a, 180 - a). Unanswered pairs fail.

    Raises:
        ValueError: as `pose_errors`, and if no pair has a direction.
    """
    truth = _motions(truth)
    errors = pose_errors(predicted, truth, no_direction, has_distance)
    directed = np.linalg.norm(truth[:, :3, 3], axis=1) >= no_direction
    folded = np.minimum(errors.direction_deg, 180 - errors.direction_deg)
    worst = np.maximum(errors.rotation_deg, folded)[directed]
    return PoseMetrics(
        auc={limit: pose_auc(worst, limit) for limit in AUC_LIMITS_DEG},
        rotation_deg_median=_median(errors.rotation_deg),
        direction_deg_median=_median(errors.direction_deg),
        distance_error_m_median=_median(np.abs(errors.distance_m)),
        pairs=len(truth),
        directed=int(directed.sum()),
        unanswered=int(np.isnan(errors.rotation_deg).sum()),
    )


def ufm_scale(sizes: ArrayLike) -> NDArray[np.float64]:
    """Return the factors by which UFM's benchmark scales images, see `UFM_SIZE`.

    Args:
        sizes: width and height, px, shape (..., 2). Images more than 1.1 times as high as wide are
            scaled to cover the upright size.

    Returns:
        Shape (...).
    """
    sizes = np.asarray(sizes, dtype=float)
    is_upright = sizes[..., 1] > 1.1 * sizes[..., 0]
    covered = np.where(is_upright[..., None], UFM_SIZE[::-1], UFM_SIZE)
    return np.asarray((covered / sizes).max(axis=-1))


def match_metrics(
    predicted: ArrayLike, truth: ArrayLike, sizes: ArrayLike = (np.nan, np.nan)
) -> MatchMetrics:
    """Score correspondences: end point error and the shares above 1, 3 and 5 px.

    Args:
        predicted: (u, v) in the second image, shape (n, 2), NaN where unanswered.
        truth: shape (n, 2), finite.
        sizes: width and height of the second images, px, shape (n, 2) or one for all.

    Raises:
        ValueError: if there is no match, the shapes differ, or a truth is not finite.
    """
    predicted, truth = np.asarray(predicted, dtype=float), np.asarray(truth, dtype=float)
    if predicted.shape != truth.shape:
        raise ValueError(f"matches of shape {predicted.shape} for true ones of {truth.shape}")
    if not truth.size:
        raise ValueError("there is no match to score")
    if not np.isfinite(truth).all():
        raise ValueError("a true match is not finite")
    errors = np.linalg.norm(predicted - truth, axis=-1)
    answered = np.isfinite(errors)
    shares = errors / np.asarray(sizes, dtype=float)[..., 0]
    scaled = errors * ufm_scale(sizes)
    return MatchMetrics(
        epe_px=_mean(errors[answered]),
        epe_ufm_px=_mean(scaled[answered]),
        epe_share=_mean(shares[answered]),
        above={limit: float(np.mean(~(errors <= limit))) for limit in EPE_LIMITS_PX},
        matches=len(errors),
        unanswered=int((~answered).sum()),
    )


def _motions(motions: ArrayLike) -> NDArray[np.float64]:
    return np.asarray(motions, dtype=float).reshape(-1, 4, 4)


def _mean(errors: NDArray[np.float64]) -> float:
    return float(errors.mean()) if errors.size else float("nan")


def _median(errors: NDArray[np.float64]) -> float:
    known = errors[np.isfinite(errors)]
    return float(np.median(known)) if known.size else float("nan")
