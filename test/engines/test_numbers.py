# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from vlm3_lab.training.checkpoint import build_tokenizer
from vlm3_ros.engines.numbers import (
    END,
    MAX_BRANCHES,
    MAX_DECIMALS,
    MAX_INTEGER_DIGITS,
    MAX_SYMBOLS,
    RESOLUTION,
    SYMBOLS,
    UNKNOWN_WIDTH,
    Histogram,
    NumberTree,
    allowed_symbols,
    answer_form,
    path_histogram,
)
from vlm3_ros.language.prompts import load_prompt_set
from vlm3_ros.language.wordings.depth import DepthWording

NUMBER = re.compile(
    rf"(0|[1-9]\d{{0,{MAX_INTEGER_DIGITS - 1}}})(\.\d{{1,{MAX_DECIMALS}}})?", re.ASCII
)
PROMPTS = load_prompt_set("vlm3")
TEMPLATE = PROMPTS[DepthWording].answer
THOUGHTS = "<think> It is {value} meters away. </think>\n<answer> {value} </answer>"


def numbers():
    return st.from_regex(NUMBER, fullmatch=True)


def distributions():
    """Draw the probabilities of a few numbers."""
    return st.dictionaries(numbers(), st.integers(1, 1000), min_size=1, max_size=12).map(
        lambda weights: {text: w / sum(weights.values()) for text, w in weights.items()}
    )


class Oracle:
    """A model with exactly this distribution; returns log-probabilities of symbols."""

    def __init__(self, distribution):
        self.whole = distribution
        self.begun: dict[str, float] = {}
        for text, p in distribution.items():
            for length in range(1, len(text) + 1):
                self.begun[text[:length]] = self.begun.get(text[:length], 0.0) + p

    def __call__(self, partial):
        masses = [self.begun.get(partial + symbol, 0.0) for symbol in SYMBOLS]
        masses.append(self.whole.get(partial, 0.0))
        # A real model gives everything some probability, and its scores are not normalised.
        return np.log(np.array(masses) + 1e-26)


def grown(score):
    tree, rounds = NumberTree(), 0
    while tree.frontier:
        tree.grow(np.stack([score(number.text) for number in tree.frontier]))
        rounds += 1
    return tree, rounds


@given(st.text(alphabet=SYMBOLS, max_size=MAX_SYMBOLS + 2))
def test_grammar_accepts_exactly_written_numbers(text):
    """A regular expression defines numbers independently of the grammar's code."""
    is_allowed = all(
        SYMBOLS.index(symbol) in allowed_symbols(text[:i]) for i, symbol in enumerate(text)
    )
    is_whole = is_allowed and END in allowed_symbols(text)
    assert is_whole == bool(NUMBER.fullmatch(text))


@given(st.floats(0, 10**MAX_INTEGER_DIGITS - 1), st.integers(0, MAX_DECIMALS))
def test_numbers_formatted_by_python_are_allowed(value, decimals):
    text = f"{value:.{decimals}f}"
    assert all(SYMBOLS.index(s) in allowed_symbols(text[:i]) for i, s in enumerate(text))


@given(distributions())
def test_histogram_matches_the_distribution(distribution):
    """The mass below any number, except intervals around it and mass of unknown length."""
    tree, rounds = grown(Oracle(distribution))
    histogram = tree.histogram()
    low, high = histogram.low, histogram.low + histogram.width
    values = np.array([float(text) for text in distribution])
    mass = np.array(list(distribution.values()))
    guessed = len(values) * RESOLUTION / UNKNOWN_WIDTH
    assert histogram.mass.sum() == pytest.approx(1)
    for value in values:
        unsure = histogram.mass[(low <= value) & (value <= high)].sum()
        below = histogram.mass[high < value].sum()
        assert (
            below - guessed - 1e-9 <= mass[values < value].sum() <= below + unsure + guessed + 1e-9
        )
    assert rounds <= MAX_SYMBOLS + 1


@given(st.floats(0.5, 80), st.floats(0.05, 0.3))
def test_median_and_spread_of_a_model_with_relative_error(centre, spread):
    """Like answers about depth: two decimals, an error proportional to the value."""
    values = np.arange(round(0.2 * centre, 2), 3 * centre, 0.01).round(2)
    mass = np.exp(-0.5 * (np.log(values / centre) / spread) ** 2)
    mass /= mass.sum()
    distribution = {f"{value:.2f}": p for value, p in zip(values, mass, strict=True) if p > 1e-7}
    histogram = grown(Oracle(distribution))[0].histogram()
    below, median, above = values[np.searchsorted(mass.cumsum(), (0.1587, 0.5, 0.8413))]
    assert histogram.median == pytest.approx(median, rel=0.03)
    assert histogram.std == pytest.approx((above - below) / 2, rel=0.25)


@given(numbers())
def test_certain_number_has_no_spread_beyond_its_bin(text):
    tree, _ = grown(Oracle({text: 1.0}))
    assert tree.text == text
    histogram = tree.histogram()
    assert histogram.median == pytest.approx(float(text), rel=RESOLUTION, abs=1e-9)
    assert histogram.std <= RESOLUTION * float(text)


def test_small_distant_mass_does_not_widen_the_spread():
    histogram = grown(Oracle({"2.66": 0.99, "266": 0.01}))[0].histogram()
    assert histogram.std < 0.05


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


@given(st.integers(0, 2**32 - 1))
def test_random_model_needs_a_bounded_number_of_decodes(seed):
    rng = np.random.default_rng(seed)
    tree, sizes = NumberTree(), []
    while tree.frontier:
        sizes.append(len(tree.frontier))
        tree.grow(rng.normal(size=(len(tree.frontier), END + 1)))
    assert max(sizes) <= MAX_BRANCHES
    assert len(sizes) <= MAX_SYMBOLS + 1
    assert NUMBER.fullmatch(tree.text)


@given(distributions())
def test_paths_name_every_symbol_in_order(distribution):
    """The decoder relies on paths that name each symbol of the text once, in order."""
    decoded: list[str] = []
    tree, oracle = NumberTree(), Oracle(distribution)
    while tree.frontier:
        tree.grow(np.stack([oracle(number.text) for number in tree.frontier]))
        for number in tree.frontier:
            assert number.path[-1] == len(decoded)
            decoded.append(SYMBOLS[number.symbol])
            assert "".join(decoded[i] for i in number.path) == number.text


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


class TestAnswerForm:
    tokenizer = build_tokenizer(PROMPTS)

    def tokens(self, text):
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    @pytest.mark.parametrize("template", [TEMPLATE, THOUGHTS])
    @given(number=numbers())
    def test_tokens_of_an_answer_are_those_of_its_form(self, template, number):
        form = answer_form(template, self.tokens)
        text = template.replace("{value}", number)
        assert form.text(number) == text
        symbols = [form.symbol_tokens[SYMBOLS.index(symbol)] for symbol in number]
        start = [*form.opening_tokens, *symbols, form.symbol_tokens[END]]
        assert self.tokens(text)[: len(start)] == start

    def test_no_form_if_tokens_span_several_symbols(self):
        """Some vocabularies have tokens such as "10" and "25"."""
        pieces = re.compile(r"<[^>]*>|\d{1,3}|.", re.DOTALL)
        vocabulary: dict[str, int] = {}

        def tokenize(text):
            return [vocabulary.setdefault(p, len(vocabulary)) for p in pieces.findall(text)]

        assert answer_form(TEMPLATE, tokenize) is None
        assert answer_form(THOUGHTS, tokenize) is None

    def test_no_form_if_the_opening_merges_with_the_number(self):
        assert answer_form("Depth: {value} m", self.tokens) is not None
        merged = {"Depth 1": 1000}

        def tokenize(text):
            if text.startswith("Depth 1"):
                return [merged["Depth 1"], *self.tokens(text[len("Depth 1") :])]
            return self.tokens(text)

        assert answer_form("Depth {value} m", tokenize) is None

    def test_no_form_if_any_part_merges_with_a_number(self):
        def tokenize(text):
            first, mark, last = text.partition("5 m")
            return [*self.tokens(first), 1001, *self.tokens(last)] if mark else self.tokens(text)

        assert answer_form("{value} so <answer>{value}</answer>", tokenize) is not None
        assert answer_form("{value} so <answer>{value} m</answer>", tokenize) is None

    def test_no_form_if_a_number_ends_with_a_point(self):
        """The point of "3." may be that of "3.5"."""
        assert answer_form("Depth: {value}.", self.tokens) is None
