# SPDX-License-Identifier: Apache-2.0
"""Whether the stated uncertainty of motions matches their errors."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import maxwell, norm, rayleigh

from vlm3_ros.engines.base import AnswerUncertainty
from vlm3_ros.evaluation.metrics.pairs import pose_errors
from vlm3_ros.geometry.motion import motion_error

MATCH_FLOOR_DEG = 0.1
"""Text coordinates have steps of 0.03 degrees in a view of 60; three steps are no error."""

ROTATION_FLOOR_DEG = 0.01
"""A tenth of the last decimal of an answer: no answer is more certain."""


def nees(predicted: ArrayLike, truth: ArrayLike, covariance: ArrayLike) -> NDArray[np.float64]:
    """Normalised estimation error squared of motions, shape (n,), per degree of freedom.

    e' C^-1 e / 6, with errors e as defined in `vlm3_ros.geometry.motion`: 1 on average if the
    covariance is honest, more if it is too small; NaN for a motion that is NaN. Source:
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


def measured_uncertainty(
    predicted: ArrayLike, truth: ArrayLike, match_errors_deg: ArrayLike
) -> AnswerUncertainty | None:
    """Measure the standard deviations of motions so that they hold for nine errors of ten.

    They follow from the 90th percentile as if errors were normal. Real errors have longer tails:
    a median would ignore them, and a mean square would consist of them. The distance floor is the
    default one.

    Args:
        predicted: T_cam1_cam2, shape (n, 4, 4), metres, NaN where unanswered.
        truth: shape (n, 4, 4), metres.
        match_errors_deg: angles between answered and true matches of the same pairs, shape (m,),
            NaN where unanswered.

    Returns:
        None if no motion with a displacement was answered.
    """
    motions, true = np.asarray(predicted, dtype=float), np.asarray(truth, dtype=float)
    distances = np.linalg.norm(motions[:, :3, 3], axis=1)
    moved = np.isfinite(motions).all(axis=(1, 2)) & (distances > 0)
    if not moved.any():
        return None
    motions, true, distances = motions[moved], true[moved], distances[moved]
    errors = pose_errors(motions, true)
    rotation = float(np.percentile(errors.rotation_deg, 90) / maxwell.ppf(0.9))
    relative = np.abs(errors.distance_m / distances)
    matched = np.asarray(match_errors_deg, dtype=float)
    matched = matched[np.isfinite(matched)]
    # A direction error has two axes, a rotation error three.
    return AnswerUncertainty(
        distance_relative=float(np.percentile(relative, 90) / norm.ppf(0.95)),
        direction_deg=float(np.nanpercentile(errors.direction_deg, 90) / rayleigh.ppf(0.9)),
        rotation_deg=max(rotation, ROTATION_FLOOR_DEG),
        match_deg=max(float(np.median(matched)), MATCH_FLOOR_DEG) if matched.size else 180.0,
    )
