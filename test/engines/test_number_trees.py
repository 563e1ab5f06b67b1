# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from number_models import Oracle, distributions, numbers
from number_tree import NumberTree, quantile

from vlm3_ros.engines.histograms import NORMAL_INTERVAL
from vlm3_ros.engines.number_trees import MAX_BRANCHES, RESOLUTION, UNKNOWN_WIDTH, NumberTrees
from vlm3_ros.engines.numbers import END, MAX_SYMBOLS, SYMBOLS

SHARES = (0.5, *NORMAL_INTERVAL)


class Undecided:
    """Random scores of what follows each partial number; few different ones, so that many tie."""

    def __init__(self, seed, levels, spread):
        self.seed, self.levels, self.spread = seed, levels, spread

    def __call__(self, partial):
        rng = np.random.default_rng([self.seed, *map(ord, partial)])
        return self.spread * np.round(rng.normal(size=END + 1) * self.levels) / self.levels


def grown(*models):
    """Grow one tree per model, and check on the way that paths name every symbol in order."""
    trees, rounds = NumberTrees(len(models)), 0
    decoded: list[list[str]] = [[] for _ in models]
    while len(trees.questions):
        texts = []
        for question, symbol, path in zip(trees.questions, trees.symbols, trees.paths, strict=True):
            if rounds:
                assert path[-1] == len(decoded[question])
                decoded[question].append(SYMBOLS[symbol])
            texts.append("".join(decoded[question][i] for i in path))
        assert (np.diff(trees.questions) >= 0).all()
        assert np.bincount(trees.questions).max() <= MAX_BRANCHES
        pairs = zip(trees.questions, texts, strict=True)
        trees.grow(np.stack([models[question](text) for question, text in pairs]))
        rounds += 1
    assert rounds <= MAX_SYMBOLS + 1
    return trees


def grown_plainly(model):
    tree = NumberTree()
    while tree.frontier:
        tree.grow(np.stack([model(number.text) for number in tree.frontier]))
    return tree


def models():
    undecided = st.builds(
        Undecided,
        seed=st.integers(0, 2**32 - 1),
        levels=st.sampled_from([0.5, 1, 2, 1000]),
        spread=st.sampled_from([0.0, 0.3, 1.0, 3.0, 30.0, 300.0]),
    )
    return st.one_of(distributions().map(Oracle), undecided)


@settings(deadline=None, max_examples=60)
@given(st.lists(models(), min_size=1, max_size=4))
def test_trees_equal_a_plain_implementation(models):
    trees = grown(*models)
    plain = [grown_plainly(model) for model in models]
    assert trees.texts() == [tree.text for tree in plain]
    histogram = trees.histogram()
    for row, tree in enumerate(plain):
        bins = np.stack([histogram.low[row], histogram.width[row], histogram.mass[row]], 1)
        expected = tree.bins()
        assert not bins[len(expected) :].any()
        np.testing.assert_allclose(bins[: len(expected)], expected, rtol=1e-12, atol=1e-300)
        # Where almost no mass lies, a quantile moves far with the last digit of its share.
        for share, actual in zip(SHARES, histogram.quantiles(SHARES)[row], strict=True):
            least, most = (quantile(expected, share + error) for error in (-1e-12, 1e-12))
            assert least - 1e-9 <= actual <= most + 1e-9
    np.testing.assert_array_equal(histogram.median, histogram.quantiles([0.5])[:, 0])
    low, high = histogram.quantiles(NORMAL_INTERVAL).T
    np.testing.assert_array_equal(histogram.std, (high - low) / 2)


@given(distributions())
def test_histogram_matches_the_distribution(distribution):
    """The mass below any number, except intervals around it and mass of unknown length."""
    histogram = grown(Oracle(distribution)).histogram()
    low, width, bin_mass = histogram.low[0], histogram.width[0], histogram.mass[0]
    high = low + width
    values = np.array([float(text) for text in distribution])
    mass = np.array(list(distribution.values()))
    guessed = len(values) * RESOLUTION / UNKNOWN_WIDTH
    assert bin_mass.sum() == pytest.approx(1)
    for value in values:
        unsure = bin_mass[(low <= value) & (value <= high)].sum()
        below = bin_mass[high < value].sum()
        assert (
            below - guessed - 1e-9 <= mass[values < value].sum() <= below + unsure + guessed + 1e-9
        )


@given(st.floats(0.5, 80), st.floats(0.05, 0.3))
def test_median_and_spread_of_a_model_with_relative_error(centre, spread):
    """Like answers about depth: two decimals, an error proportional to the value."""
    values = np.arange(round(0.2 * centre, 2), 3 * centre, 0.01).round(2)
    mass = np.exp(-0.5 * (np.log(values / centre) / spread) ** 2)
    mass /= mass.sum()
    distribution = {f"{value:.2f}": p for value, p in zip(values, mass, strict=True) if p > 1e-7}
    histogram = grown(Oracle(distribution)).histogram()
    below, median, above = values[np.searchsorted(mass.cumsum(), (0.1587, 0.5, 0.8413))]
    assert histogram.median == pytest.approx(median, rel=0.03)
    assert histogram.std == pytest.approx((above - below) / 2, rel=0.25)


@given(numbers())
def test_certain_number_has_no_spread_beyond_its_bin(text):
    trees = grown(Oracle({text: 1.0}))
    assert trees.texts() == [text]
    histogram = trees.histogram()
    assert histogram.median == pytest.approx(float(text), rel=RESOLUTION, abs=1e-9)
    assert histogram.std <= RESOLUTION * float(text)


def test_small_distant_mass_does_not_widen_the_spread():
    assert grown(Oracle({"2.66": 0.99, "266": 0.01})).histogram().std < 0.05


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("correct", range(6))
def test_scores_that_are_not_numbers_give_no_number(wrong, correct):
    """A model whose numbers overflow; the other questions keep their answers.

    It happens after some correct symbols, too.
    """
    oracle = Oracle({"2.6789": 0.9, "2.5": 0.1})

    def overflowing(partial):
        return oracle(partial) if len(partial) < correct else np.full(END + 1, wrong)

    scores = [Oracle({"2.5": 1.0}), overflowing]
    for models in (scores, scores[1:]):
        histogram = grown(*models).histogram()
        assert np.isnan(histogram.median[-1])
        assert np.isnan(histogram.std[-1])
    assert grown(*scores).histogram().median[0] == pytest.approx(2.5)
