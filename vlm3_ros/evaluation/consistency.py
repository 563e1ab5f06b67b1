"""Whether the uncertainty that motions are given is that of their errors."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import maxwell, norm, rayleigh

from vlm3_ros.evaluation.pair_metrics import pose_errors
from vlm3_ros.geometry.motion import motion_error
from vlm3_ros.tasks.verification import AnswerUncertainty

ROTATION_FLOOR_DEG = 0.01
"""No answer is surer than a tenth of its last decimal."""


def nees(predicted: ArrayLike, truth: ArrayLike, covariance: ArrayLike) -> NDArray[np.float64]:
    """Normalised estimation error squared of motions, shape (n,), per degree of freedom.

    e' C^-1 e / 6 with e as `vlm3_ros.geometry.motion` tells errors: 1 on average where the
    covariance is honest, more where it promises too much; NaN for a motion that is NaN. Source:
    Bar-Shalom, Li and Kirubarajan 2001, section 5.4.

    Args:
        predicted: T_cam1_cam2, shape (n, 4, 4), metres.
        truth: shape (n, 4, 4), metres.
        covariance: of `predicted`, shape (n, 6, 6).
    """
    motions, true = np.asarray(predicted, dtype=float), np.asarray(truth, dtype=float)
    covariances = np.asarray(covariance, dtype=float)
    scores = np.full(len(motions), np.nan)
    for i in np.flatnonzero(np.isfinite(motions).all(axis=(1, 2))):
        error = motion_error(motions[i], true[i])
        scores[i] = error @ np.linalg.solve(covariances[i], error) / 6
    return scores


def measured_uncertainty(predicted: ArrayLike, truth: ArrayLike) -> AnswerUncertainty | None:
    """The standard deviations that motions have, robust to outliers: from medians, as if normal.

    The distance floor is the default one.

    Args:
        predicted: T_cam1_cam2, shape (n, 4, 4), metres, NaN where unanswered.
        truth: shape (n, 4, 4), metres.

    Returns:
        None where no motion with a displacement was answered.
    """
    motions, true = np.asarray(predicted, dtype=float), np.asarray(truth, dtype=float)
    distances = np.linalg.norm(motions[:, :3, 3], axis=1)
    moved = np.isfinite(motions).all(axis=(1, 2)) & (distances > 0)
    if not moved.any():
        return None
    motions, true, distances = motions[moved], true[moved], distances[moved]
    errors = pose_errors(motions, true)
    rotation = float(np.median(errors.rotation_deg) / maxwell.ppf(0.5))
    # A direction errs along two axes, a rotation about three.
    return AnswerUncertainty(
        distance_relative=float(np.median(np.abs(errors.distance_m / distances)) / norm.ppf(0.75)),
        direction_deg=float(np.nanmedian(errors.direction_deg) / rayleigh.ppf(0.5)),
        rotation_deg=max(rotation, ROTATION_FLOOR_DEG),
    )
