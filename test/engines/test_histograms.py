# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from number_models import Oracle, distributions
from scipy.stats import norm

from vlm3_ros.engines.histograms import Histogram, path_histogram
from vlm3_ros.engines.numbers import END, SYMBOLS, allowed_symbols


def walked(score):
    """Decode a number greedily; return it and the scores of what was possible at each place."""
    text, rows = "", []
    while True:
        scores = score(text)
        rows.append({symbol: float(scores[symbol]) for symbol in allowed_symbols(text)})
        best = max(rows[-1], key=rows[-1].get)
        if best == END:
            return text, rows
        text += SYMBOLS[best]


@given(distributions())
def test_distribution_along_one_number_has_the_masses_of_what_branches_off(distribution):
    oracle = Oracle(distribution)
    text, rows = walked(oracle)
    histogram = path_histogram(text, rows)
    branches = [oracle.whole[text]] if text in oracle.whole else []
    for length in range(len(text) + 1):
        beginning = text[:length]
        others = [beginning + s for s in SYMBOLS if not text.startswith(beginning + s)]
        branches += [oracle.begun[other] for other in others if other in oracle.begun]
        if length < len(text) and beginning in oracle.whole:
            branches.append(oracle.whole[beginning])
    seen = histogram.mass[histogram.mass > 1e-9]
    np.testing.assert_allclose(sorted(seen), sorted(branches), rtol=1e-6)


@pytest.mark.parametrize(
    ("text", "alternatives", "low", "width"),
    [
        ("2.75", {0: "3"}, 3.0, 1.0),
        ("12.5", {0: "2"}, 20.0, 10.0),  # as long as the decoded number
        ("2.75", {1: "5"}, 25.0, 1.0),
        ("2.75", {2: "1"}, 2.1, 0.1),
        ("2.75", {3: "1"}, 2.71, 0.01),
        ("2.75", {4: "1"}, 2.751, 0.001),
    ],
)
def test_an_alternative_counts_as_the_numbers_that_begin_with_it(text, alternatives, low, width):
    symbols = [*(SYMBOLS.index(symbol) for symbol in text), END]
    rows = [{symbol: 0.0} for symbol in symbols]
    for place, symbol in alternatives.items():
        rows[place][SYMBOLS.index(symbol)] = np.log(0.25)
    histogram = path_histogram(text, rows)
    bins = sorted(zip(histogram.mass, histogram.low, histogram.width, strict=True))
    np.testing.assert_allclose(bins, [(0.2, low, width), (0.8, float(text), 0.0)], atol=1e-9)


@given(
    st.dictionaries(st.integers(0, 50), st.floats(0.01, 1), min_size=1, max_size=20),
    st.lists(st.floats(0, 1), max_size=5),
)
def test_quantiles_split_the_mass(bins, shares):
    low, mass = np.array(list(bins.items())).T
    histogram = Histogram(low, np.ones(len(low)), mass / mass.sum())
    for share, quantile in zip(shares, histogram.quantiles(shares), strict=True):
        assert histogram.mass @ np.clip(quantile - low, 0, 1) == pytest.approx(share)
    assert histogram.median == histogram.quantiles([0.5])


def test_spread_of_a_normal_distribution_is_its_standard_deviation():
    low = np.arange(0, 10, 0.01)
    mass = norm(5, 0.7).cdf(low + 0.01) - norm(5, 0.7).cdf(low)
    histogram = Histogram(low, np.full(1000, 0.01), mass / mass.sum())
    assert histogram.std == pytest.approx(0.7, rel=1e-4)
