from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from vlm3_ros.engines.numbers import (
    BIN_WIDTH,
    END,
    MAX_BRANCHES,
    MAX_DECIMALS,
    MAX_INTEGER_DIGITS,
    MAX_SYMBOLS,
    SYMBOLS,
    Histogram,
    NumberTree,
    allowed_symbols,
    answer_form,
)
from vlm3_ros.language.prompts import load_prompt_set
from vlm3_ros.training.checkpoint import build_tokenizer

NUMBER = re.compile(
    rf"(0|[1-9]\d{{0,{MAX_INTEGER_DIGITS - 1}}})(\.\d{{1,{MAX_DECIMALS}}})?", re.ASCII
)
PROMPTS = load_prompt_set("vlm3")
TEMPLATE = PROMPTS.depth.answer


def numbers():
    return st.from_regex(NUMBER, fullmatch=True)


def distributions():
    """Probabilities of a few numbers."""
    return st.dictionaries(numbers(), st.integers(1, 1000), min_size=1, max_size=12).map(
        lambda weights: {text: w / sum(weights.values()) for text, w in weights.items()}
    )


def next_symbols(distribution, partial):
    """Log-probabilities of what follows a partial number, -inf where nothing does."""
    row = np.full(END + 1, -np.inf)
    for text, p in distribution.items():
        if text.startswith(partial):
            following = text[len(partial) :]
            symbol = SYMBOLS.index(following[0]) if following else END
            row[symbol] = np.logaddexp(row[symbol], math.log(p))
    # A real model holds everything for possible.
    return np.logaddexp(row, -60.0)


def grown(score):
    tree, rounds = NumberTree(), 0
    while tree.frontier:
        tree.grow(np.stack([score(number.text) for number in tree.frontier]))
        rounds += 1
    return tree, rounds


@given(st.text(alphabet=SYMBOLS, max_size=MAX_SYMBOLS + 2))
def test_the_grammar_is_that_of_written_numbers(text):
    """Independent of the grammar's code: a regular expression says what a number is."""
    is_allowed = all(
        SYMBOLS.index(symbol) in allowed_symbols(text[:i]) for i, symbol in enumerate(text)
    )
    is_whole = is_allowed and END in allowed_symbols(text)
    assert is_whole == bool(NUMBER.fullmatch(text))


@given(st.floats(0, 10**MAX_INTEGER_DIGITS - 1), st.integers(0, MAX_DECIMALS))
def test_what_python_writes_is_allowed(value, decimals):
    text = f"{value:.{decimals}f}"
    assert all(SYMBOLS.index(s) in allowed_symbols(text[:i]) for i, s in enumerate(text))


@given(distributions())
def test_moments_are_those_of_the_distribution(distribution):
    tree, rounds = grown(lambda partial: next_symbols(distribution, partial))
    histogram = tree.histogram()
    values = np.array([float(text) for text in distribution])
    mass = np.array(list(distribution.values()))
    mean = mass @ values
    std = np.sqrt(mass @ (values - mean) ** 2)
    # A number moves by less than its bin; bins are given up below 2e-3 of the mass, 12 at most.
    slack = BIN_WIDTH * values.max()
    lost = 12 * 2e-3 * values.max()
    assert histogram.mass.sum() == pytest.approx(1)
    assert histogram.mean == pytest.approx(mean, abs=slack + lost)
    assert histogram.std == pytest.approx(std, abs=slack + math.sqrt(12 * 2e-3) * values.max())
    assert rounds <= MAX_SYMBOLS + 1


@given(distributions())
def test_the_text_is_the_greedy_one(distribution):
    tree, _ = grown(lambda partial: next_symbols(distribution, partial))
    greedy = ""
    while (
        symbol := max(allowed_symbols(greedy), key=next_symbols(distribution, greedy).__getitem__)
    ) != END:
        greedy += SYMBOLS[symbol]
    assert tree.text == greedy


@given(numbers())
def test_a_certain_number_has_no_spread_beyond_its_bin(text):
    tree, _ = grown(lambda partial: next_symbols({text: 1.0}, partial))
    assert tree.text == text
    histogram = tree.histogram()
    assert abs(histogram.mean - float(text)) <= BIN_WIDTH * float(text)
    assert histogram.std <= BIN_WIDTH * float(text) + 1e-9
    assert histogram.low.min() <= histogram.median <= (histogram.low + histogram.width).max()


@given(st.integers(0, 2**32 - 1))
def test_a_model_that_knows_nothing_stays_bounded(seed):
    rng = np.random.default_rng(seed)
    tree, sizes = NumberTree(), []
    while tree.frontier:
        sizes.append(len(tree.frontier))
        tree.grow(rng.normal(size=(len(tree.frontier), END + 1)))
    assert max(sizes) <= MAX_BRANCHES
    assert len(sizes) <= MAX_SYMBOLS + 1
    assert NUMBER.fullmatch(tree.text)


@given(distributions())
def test_paths_lead_from_the_first_symbol_to_the_last(distribution):
    """What the decoder relies on: a path names each symbol of the text, in order, once."""
    decoded: list[str] = []
    tree = NumberTree()
    while tree.frontier:
        tree.grow(np.stack([next_symbols(distribution, n.text) for n in tree.frontier]))
        for number in tree.frontier:
            assert number.path[-1] == len(decoded)
            decoded.append(SYMBOLS[number.symbol])
            assert "".join(decoded[i] for i in number.path) == number.text


@given(
    st.lists(
        st.tuples(st.floats(0, 100), st.floats(0, 5), st.floats(0.01, 1)), min_size=1, max_size=20
    )
)
def test_moments_of_a_histogram_are_those_of_samples(bins):
    low, width, mass = np.array(bins).T
    histogram = Histogram(low, width, mass / mass.sum())
    # Quantiles of each bin, so many that sums become integrals.
    samples = low[:, None] + width[:, None] * (np.arange(2000) + 0.5) / 2000
    weights = np.repeat(histogram.mass[:, None] / 2000, 2000, axis=1)
    mean = (weights * samples).sum()
    assert histogram.mean == pytest.approx(mean)
    variance = (weights * (samples - mean) ** 2).sum()
    assert histogram.std == pytest.approx(math.sqrt(variance), rel=1e-3, abs=1e-6)


@given(st.dictionaries(st.integers(0, 50), st.floats(0.01, 1), min_size=1, max_size=20))
def test_half_of_the_mass_lies_below_the_median(bins):
    low, mass = np.array(list(bins.items())).T
    histogram = Histogram(low, np.full(len(low), 1.0), mass / mass.sum())
    below = histogram.mass @ np.clip(histogram.median - low, 0, 1)
    assert below == pytest.approx(0.5)


class TestAnswerForm:
    tokenizer = build_tokenizer(PROMPTS)

    def tokens(self, text):
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    @given(numbers(), st.text(max_size=5))
    def test_answers_of_the_form_fit(self, number, more):
        form = answer_form(TEMPLATE, self.tokens)
        text = TEMPLATE.replace("{value}", number)
        assert form.text(number) == text
        assert form.fits(self.tokens(text + more))

    @given(st.text(alphabet=SYMBOLS + " -<e", max_size=8))
    def test_answers_of_another_form_do_not(self, number):
        assume(not NUMBER.fullmatch(number))
        form = answer_form(TEMPLATE, self.tokens)
        assert not form.fits(self.tokens(TEMPLATE.replace("{value}", number)))

    @pytest.mark.parametrize(
        "answer",
        ["", "3.25", "<answer>3.25</answer>", "<think> </think> <answer>3.25", "far away"],
    )
    def test_cut_or_unknown_answers_do_not(self, answer):
        assert not answer_form(TEMPLATE, self.tokens).fits(self.tokens(answer))

    def test_numbers_that_are_not_written_by_symbol_have_none(self):
        """A vocabulary as some models have it: "10" and "25" are tokens."""
        pieces = re.compile(r"<[^>]*>|\d{1,3}|.", re.DOTALL)
        vocabulary: dict[str, int] = {}

        def tokenize(text):
            return [vocabulary.setdefault(p, len(vocabulary)) for p in pieces.findall(text)]

        assert answer_form(TEMPLATE, tokenize) is None

    def test_an_opening_that_runs_into_the_number_has_none(self):
        assert answer_form("Depth: {value} m", self.tokens) is not None
        merged = {"Depth 1": 1000}

        def tokenize(text):
            if text.startswith("Depth 1"):
                return [merged["Depth 1"], *self.tokens(text[len("Depth 1") :])]
            return self.tokens(text)

        assert answer_form("Depth {value} m", tokenize) is None
