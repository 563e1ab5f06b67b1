# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlm3_ros.evaluation.metrics.depth import (
    ROW_BANDS,
    best_constant,
    constant_baseline,
    depth_metrics,
    errors_by_range,
    guess_of_rows,
    row_baseline,
    within_delta,
)

DEPTHS = st.lists(st.floats(0.05, 200), min_size=1, max_size=30)


def test_metrics_of_a_case_worked_by_hand() -> None:
    # Image 1: |2-2|/2 = 0 and |3-4|/4 = 0.25 -> 0.125; 4/3 > 1.25 is a miss.
    # Image 2: |11-10|/10 = 0.1, the other pixel is unanswered -> 0.1, and a miss.
    metrics = depth_metrics([[2.0, 3.0], [11.0, math.nan]], [[2.0, 4.0], [10.0, 1.0]])
    assert metrics.delta1 == 2 / 4
    assert metrics.abs_rel == pytest.approx((0.125 + 0.1) / 2)
    assert metrics.rmse == pytest.approx((math.sqrt(0.5) + 1.0) / 2)
    assert metrics.log10 == pytest.approx((math.log10(4 / 3) / 2 + math.log10(1.1)) / 2)
    assert (metrics.images, metrics.pixels, metrics.unanswered) == (2, 4, 1)


def test_delta1_pools_pixels_while_abs_rel_averages_images() -> None:
    # One image with one bad pixel, one with nine good ones.
    metrics = depth_metrics([[2.0], [1.0] * 9], [[1.0], [1.0] * 9])
    assert metrics.delta1 == 0.9
    assert metrics.abs_rel == 0.5


def test_the_threshold_is_strict_on_both_sides() -> None:
    assert within_delta([1.249, 1.25, 1.26], [1.0, 1.0, 1.0]).tolist() == [True, False, False]
    assert within_delta([1.0, 1.0, 1.0], [1.249, 1.25, 1.26]).tolist() == [True, False, False]


def test_answers_that_are_not_a_positive_number_are_wrong() -> None:
    assert not within_delta([math.nan, math.inf, 0.0, -1.0], [1.0, 1.0, 1.0, 1.0]).any()


def test_an_image_without_any_answer_counts_in_delta1_only() -> None:
    metrics = depth_metrics([[math.nan, math.nan], [1.0, 1.1]], [[1.0, 1.0], [1.0, 1.0]])
    assert metrics.delta1 == 0.5
    assert metrics.abs_rel == pytest.approx(0.05)
    nothing = depth_metrics([[math.nan]], [[1.0]])
    assert nothing.delta1 == 0
    assert math.isnan(nothing.abs_rel)


@pytest.mark.parametrize(
    ("predicted", "truth", "match"),
    [
        ([[1.0]], [[math.inf]], "not finite and positive"),
        ([[1.0]], [[0.0]], "not finite and positive"),
        ([[1.0, 2.0]], [[1.0]], "2 depths for 1 true ones"),
        ([], [], "no pixel"),
    ],
)
def test_data_that_cannot_be_scored_is_refused(
    predicted: list[list[float]], truth: list[list[float]], match: str
) -> None:
    with pytest.raises(ValueError, match=match):
        depth_metrics(predicted, truth)


@given(DEPTHS, st.floats(0.2, 5))
def test_delta_does_not_depend_on_scale(depths: list[float], scale: float) -> None:
    truth = np.array(depths)
    expected = [max(scale, 1 / scale) < 1.25] * len(depths)
    # Rounding may decide at the threshold itself.
    if abs(max(scale, 1 / scale) - 1.25) > 1e-9:
        assert within_delta(truth * scale, truth).tolist() == expected


def test_the_best_constant_of_a_case_worked_by_hand() -> None:
    # 1, 1.2, 1.5 lie within a factor of 1.5625; 4 and 5 as well, but they are two.
    best = best_constant([5.0, 1.2, 1.0, 4.0, 1.5])
    assert best == pytest.approx(math.sqrt(1.0 * 1.5))
    guess = constant_baseline([np.array([5.0, 1.2]), np.array([1.0, 4.0, 1.5])])
    assert guess.metrics.delta1 == 3 / 5


def test_depths_a_whole_window_apart_are_not_both_right() -> None:
    assert constant_baseline([np.array([1.0, 1.25**2])]).metrics.delta1 == 0.5


@given(DEPTHS)
def test_no_other_constant_is_better(depths: list[float]) -> None:
    truth = np.array(depths)
    reached = within_delta(np.full(truth.shape, best_constant(truth)), truth).sum()
    others = np.geomspace(truth.min() / 1.3, truth.max() * 1.3, 400)
    assert reached >= max(within_delta(np.full(truth.shape, c), truth).sum() for c in others)


def test_the_row_guess_knows_the_floor() -> None:
    """Above always 10 m, below always 2 m: rows get all, one constant gets half."""
    truth = [np.array([10.0, 2.0]), np.array([10.0, 2.0])]
    rows = [np.array([0.1, 0.9]), np.array([0.12, 0.9])]
    assert row_baseline(truth, rows).metrics.delta1 == 1
    assert constant_baseline(truth).metrics.delta1 == 0.5


@given(st.integers(0, 2**32 - 1), st.integers(1, 300))
def test_the_row_guess_is_never_worse_than_the_constant(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    truth, rows = [np.exp(rng.normal(1, 1, count))], [rng.uniform(0, 1, count)]
    row = row_baseline(truth, rows)
    assert row.metrics.delta1 >= constant_baseline(truth).metrics.delta1
    assert row.depths.shape == (ROW_BANDS,)


def test_the_last_row_belongs_to_the_last_band() -> None:
    guess = row_baseline([np.array([1.0, 3.0])], [np.array([0.0, 1.0])])
    assert (guess.depths[0], guess.depths[-1]) == (1.0, 3.0)


def test_errors_by_range_of_a_case_worked_by_hand() -> None:
    near, far = errors_by_range([1.2, 1.2, math.nan, 18.0], [1.0, 1.5, 1.0, 20.0])
    assert (near.near, near.far, near.pixels) == (1.0, 2.0, 2)
    assert near.bias == pytest.approx((0.2 - 0.2) / 2)
    assert near.abs_rel == pytest.approx(0.2)
    assert near.median_m == pytest.approx(0.25)
    assert near.p90_m == pytest.approx(0.29)
    assert (far.near, far.far, far.pixels) == (15.0, math.inf, 1)
    assert far.bias == pytest.approx(-0.1)
    assert errors_by_range([math.nan], [1.0]) == []


@given(DEPTHS)
def test_ranges_hold_every_answer(truth: list[float]) -> None:
    errors = errors_by_range(np.array(truth) * 1.1, truth)
    assert sum(error.pixels for error in errors) == len(truth)
    assert all(error.bias == pytest.approx(0.1) for error in errors)


def test_the_guess_of_a_row_is_that_of_its_band() -> None:
    rows = np.array([0.0, 0.4, 1.0])
    guess = row_baseline([np.array([1.0, 2.0, 3.0])], [rows])
    np.testing.assert_allclose(guess_of_rows(guess, rows), [1.0, 2.0, 3.0])
