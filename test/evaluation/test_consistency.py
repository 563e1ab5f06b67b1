# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from vlm3_ros.engines.base import AnswerUncertainty
from vlm3_ros.evaluation.metrics.consistency import ROTATION_FLOOR_DEG, measured_uncertainty, nees
from vlm3_ros.geometry.motion import motion_from_parts, perturbed
from vlm3_ros.tasks.verification import answered_covariance

UNANSWERED = np.full((4, 4), np.nan)
ANSWERED = motion_from_parts(0.8, (0.6, 0, 0.8), (10, -4, 2))


def truths(uncertainty: AnswerUncertainty, count: int) -> list[np.ndarray]:
    """Random true values, given the answer `ANSWERED` with this uncertainty."""
    covariance = answered_covariance(ANSWERED, np.nan, uncertainty)
    errors = np.random.default_rng(0).multivariate_normal(np.zeros(6), covariance, count)
    return [perturbed(ANSWERED, error) for error in errors]


def test_nees_by_hand() -> None:
    """Two standard deviations in two of six dimensions; NaN without an answer."""
    covariance = np.diag([0.01, 0.04, 0.01, 1e-4, 1e-4, 1e-4])
    truth = perturbed(ANSWERED, [0, 0.4, 0, 0, 0, 0.02])
    scores = nees([ANSWERED, UNANSWERED, ANSWERED], [truth, truth, ANSWERED], [covariance] * 3)
    np.testing.assert_allclose(scores, [8 / 6, np.nan, 0], atol=1e-9)


def test_an_honest_covariance_has_a_nees_of_one() -> None:
    true = truths(AnswerUncertainty(), 2000)
    covariance = [answered_covariance(ANSWERED, np.nan)] * len(true)
    scores = nees([ANSWERED] * len(true), true, covariance)
    assert scores.mean() == pytest.approx(1, abs=0.05)


def test_the_measured_uncertainty_is_that_of_the_errors() -> None:
    drawn = AnswerUncertainty(distance_relative=0.1, direction_deg=4.0, rotation_deg=1.0)
    true = truths(drawn, 2000)
    answered = np.array([ANSWERED] * len(true))
    answered[7] = UNANSWERED
    answered[8] = motion_from_parts(900.0, (-1, 0, 0), (170, 0, 0))  # an outlier
    matches = np.append(np.random.default_rng(5).rayleigh(2.0, 999), np.nan)
    measured = measured_uncertainty(answered, true, matches)
    assert measured is not None
    assert measured.distance_relative == pytest.approx(0.1, rel=0.1)
    assert measured.direction_deg == pytest.approx(4, rel=0.1)
    assert measured.rotation_deg == pytest.approx(1, rel=0.1)
    assert measured.match_deg == pytest.approx(2 * np.sqrt(2 * np.log(2)), rel=0.1)


def test_perfect_answers_have_an_invertible_covariance() -> None:
    measured = measured_uncertainty([ANSWERED], [ANSWERED], [0.0])
    assert measured is not None
    assert measured.rotation_deg == ROTATION_FLOOR_DEG
    covariance = answered_covariance(ANSWERED, np.nan, measured)
    np.testing.assert_allclose(nees([ANSWERED], [ANSWERED], [covariance]), [0])


def test_without_answers_nothing_is_measured() -> None:
    assert measured_uncertainty([UNANSWERED, np.eye(4)], [ANSWERED, ANSWERED], [1.0]) is None
