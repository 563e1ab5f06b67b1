# SPDX-License-Identifier: Apache-2.0
"""Numbers in answers: their grammar, and their place in the form of an answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

SYMBOLS = "0123456789."
POINT = SYMBOLS.index(".")
END = len(SYMBOLS)
"""Index of the end of a number, after the indices of its symbols."""

NO_POINT = -1
"""Number of decimals of a partial number before its point."""

MAX_INTEGER_DIGITS = 4
MAX_DECIMALS = 4
MAX_SYMBOLS = MAX_INTEGER_DIGITS + 1 + MAX_DECIMALS
"""Symbols of the longest number, without its end."""

NUMBER = rf"(0|[1-9][0-9]{{0,{MAX_INTEGER_DIGITS - 1}}})(\.[0-9]{{1,{MAX_DECIMALS}}})?"
"""Regular expression of the numbers of `allowed_symbols`, in syntax that all engines share."""


def allowed_symbols(number: str) -> tuple[int, ...]:
    """Return what may follow a partial number: indices into SYMBOLS, or END.

    The grammar is that of "%.nf" for numbers of at least 0: no sign, no leading zero, digits on
    both sides of a decimal point.
    """
    integer, point, decimals = number.partition(".")
    digits = tuple(range(10))
    if point:
        more = digits if len(decimals) < MAX_DECIMALS else ()
        return (*more, END) if decimals else more
    if not integer:
        return digits
    more = digits if integer != "0" and len(integer) < MAX_INTEGER_DIGITS else ()
    return (*more, POINT, END)


@dataclass(frozen=True)
class AnswerForm:
    """The form of answers that hold one number, in a model's tokens.

    Attributes:
        template: text with {value} in every place of the number.
        opening_tokens: tokens of the text before the first {value}.
        symbol_tokens: tokens of SYMBOLS and END, len(SYMBOLS) + 1 of them. END is the first token
            after the number.
    """

    template: str
    opening_tokens: list[int]
    symbol_tokens: list[int]

    def text(self, number: str) -> str:
        """Return the whole answer."""
        return self.template.replace("{value}", number)


def answer_form(template: str, tokenize: Callable[[str], list[int]]) -> AnswerForm | None:
    """Return the form of a template's answers in a model's tokens.

    Args:
        template: text with {value} in every place of the number.
        tokenize: turns text into tokens, without special tokens.

    Returns:
        None if the symbols of numbers are not single tokens in the model's vocabulary, so
        that numbers cannot be decoded symbol by symbol.
    """
    opening, *others = (tokenize(part) for part in template.split("{value}"))
    tokens = [tokenize(symbol) for symbol in SYMBOLS] + [others[0][:1]]
    if any(len(token) != 1 for token in tokens):
        return None
    symbol_tokens = [token for (token,) in tokens]
    sample = [symbol_tokens[SYMBOLS.index(symbol)] for symbol in "10.25"]
    apart = opening + [token for part in others for token in sample + part]
    is_apart = tokenize(template.replace("{value}", "10.25")) == apart
    if not is_apart or len(set(symbol_tokens)) < len(symbol_tokens):
        return None
    return AnswerForm(template, opening, symbol_tokens)
