# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlm3_lab.training.checkpoint import build_tokenizer
from vlm3_ros.engines.numbers import (
    END,
    MAX_DECIMALS,
    MAX_INTEGER_DIGITS,
    MAX_SYMBOLS,
    SYMBOLS,
    allowed_symbols,
    answer_form,
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
