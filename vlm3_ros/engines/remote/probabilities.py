# SPDX-License-Identifier: Apache-2.0
"""Distributions over numbers from the token probabilities that a server reports."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from vlm3_ros.engines.forms import VALUE
from vlm3_ros.engines.histograms import CoarseHistogram, path_histogram
from vlm3_ros.engines.numbers import END, NUMBER, SYMBOLS, allowed_symbols

ALTERNATIVES = len(SYMBOLS) + 1
"""Tokens to ask for at each place: as many as can follow in a number, with its end."""


@dataclass(frozen=True)
class Token:
    """A token of an answer.

    Attributes:
        text: the token's.
        log_probabilities: of it and of the likeliest others at its place, by text.
    """

    text: str
    log_probabilities: Mapping[str, float]


def parse_tokens(logprobs: object) -> tuple[Token, ...]:
    """Read the tokens of an answer from `logprobs` of a chat completion; empty if it has none."""
    try:
        return tuple(_tokens(logprobs))
    except (AttributeError, LookupError, TypeError, ValueError):
        return ()


def _tokens(logprobs: object) -> Iterator[Token]:
    content = logprobs["content"] if isinstance(logprobs, Mapping) else None
    for token in content or ():
        text = str(token["token"])
        listed = {str(t["token"]): float(t["logprob"]) for t in (token, *token["top_logprobs"])}
        finite = {t: value for t, value in listed.items() if math.isfinite(value)}
        if text not in finite:
            raise ValueError("the log probability of the answer's token is not finite")
        yield Token(text, finite)


def number_histogram(form: str, tokens: Sequence[Token]) -> CoarseHistogram | None:
    """Return the distribution over the number of an answer.

    The probability of tokens that cannot continue the number, and of those that the server does
    not list, is shared among the others in proportion, as if a grammar had ruled them out. For a
    trained model it is almost nothing.

    Args:
        form: of the answer, with {value} in every place of its number; the first place counts.
        tokens: of the answer.

    Returns:
        None if the answer does not have the form, or its number is not written in tokens of one
        symbol each.
    """
    text = "".join(token.text for token in tokens)
    opening = form.partition(VALUE)[0]
    match = re.match(re.escape(opening) + f"({NUMBER})", text)
    if match is None or not text.startswith(form.replace(VALUE, match[1]).rstrip()):
        return None
    start = _index_at(tokens, len(opening))
    number: str = match[1]
    if start is None or [token.text for token in tokens[start : start + len(number)]] != [*number]:
        return None
    if start + len(number) == len(tokens):
        return None
    end = tokens[start + len(number)].text
    if end in SYMBOLS:
        return None
    rows = []
    for length in range(len(number) + 1):
        listed = tokens[start + length].log_probabilities
        texts = ((s, end if s == END else SYMBOLS[s]) for s in allowed_symbols(number[:length]))
        rows.append({symbol: listed[text] for symbol, text in texts if text in listed})
    return path_histogram(number, rows)


def _index_at(tokens: Sequence[Token], characters: int) -> int | None:
    """Return the index of the token that starts after so many characters; None if none does."""
    for index, token in enumerate(tokens):
        if characters <= 0:
            return index if characters == 0 else None
        characters -= len(token.text)
    return None
