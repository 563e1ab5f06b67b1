# SPDX-License-Identifier: Apache-2.0
"""Numbers in answers: their grammar, and the model's distribution over them.

A model writes a number digit by digit, and gives the probability of every digit at each step. A
partial number stands for an interval ("3.4" for [3.4, 3.5)); its mass is the product of the
probabilities of its digits. So the decode that writes the answer also yields its histogram.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

SYMBOLS = "0123456789."
POINT = SYMBOLS.index(".")
END = len(SYMBOLS)
"""Index of the end of a number, after the indices of its symbols."""

MAX_INTEGER_DIGITS = 4
MAX_DECIMALS = 4
MAX_SYMBOLS = MAX_INTEGER_DIGITS + 1 + MAX_DECIMALS
"""Symbols of the longest number, without its end."""

NUMBER = rf"(0|[1-9][0-9]{{0,{MAX_INTEGER_DIGITS - 1}}})(\.[0-9]{{1,{MAX_DECIMALS}}})?"
"""Regular expression of the numbers of `allowed_symbols`, in syntax that all engines share."""

RESOLUTION = 0.02
"""A partial number is extended while its mass times its relative width is above this."""

UNKNOWN_WIDTH = 2.0
"""Relative width of a partial number before its point, since its length is still unknown."""

NORMAL_INTERVAL = (0.158655, 0.841345)
"""Shares of a normal distribution below its mean minus and plus one standard deviation."""

FAR_SHARE = 0.001
"""Share of the mass beyond an end of a distribution that is taken for normal, and in truth ends."""

MAX_BRANCHES = 32
"""Maximum number of partial numbers of an answer that are extended at the same time."""


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


@dataclass(frozen=True)
class Histogram:
    """A distribution over numbers: mass spread evenly over intervals.

    All arrays have shape (bins,), float64. An interval of zero width is a single number. Masses
    sum to 1.
    """

    low: NDArray[np.float64]
    width: NDArray[np.float64]
    mass: NDArray[np.float64]

    def quantiles(self, shares: Sequence[float]) -> NDArray[np.float64]:
        """Return the numbers below which these shares of the mass lie, shape (shares,)."""
        order = np.argsort(self.low + self.width / 2)
        low, width, mass = self.low[order], self.width[order], self.mass[order]
        below = np.concatenate([[0.0], np.cumsum(mass)])
        i = np.clip(np.searchsorted(below, shares, side="right") - 1, 0, len(mass) - 1)
        return low[i] + width[i] * self._places(np.asarray(shares), below[i], mass[i])

    def _places(
        self,
        shares: NDArray[np.float64],
        below: NDArray[np.float64],
        mass: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """Return where in their intervals quantiles lie, from 0 to 1, shape (shares,).

        Args:
            shares: of the mass below the quantiles, shape (shares,).
            below: share of the mass below the interval of each.
            mass: share of the mass in it.
        """
        return np.clip((shares - below) / mass, 0.0, 1.0)

    @property
    def median(self) -> float:
        """The number below which half of the mass lies."""
        return float(self.quantiles([0.5])[0])

    @property
    def std(self) -> float:
        """Standard deviation of the normal distribution with the same central 68 %.

        The second moment would be useless: models put a mass of about 0.2 % on "266" when they
        mean "2.66", and that alone would determine it.
        """
        low, high = self.quantiles(NORMAL_INTERVAL)
        return float(high - low) / 2


class CoarseHistogram(Histogram):
    """A histogram with intervals that hold much of the mass.

    Spread evenly, a wide interval would seem to hold much mass at its far end. Between the edges of
    an interval, the distribution is that of a normal one which has the same mass below each edge.
    """

    @override
    def _places(
        self,
        shares: NDArray[np.float64],
        below: NDArray[np.float64],
        mass: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        start, place, end = (_normal_quantiles(s) for s in (below, shares, below + mass))
        return np.clip((place - start) / np.maximum(end - start, 1e-9), 0.0, 1.0)


def _normal_quantiles(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    inside = np.clip(shares, FAR_SHARE, 1 - FAR_SHARE)
    return np.array([NormalDist().inv_cdf(share) for share in inside.tolist()])


@dataclass(frozen=True)
class PartialNumber:
    """The beginning of a number, in a tree of numbers.

    Attributes:
        text: its symbols so far.
        log_mass: logarithm of its probability.
        path: indices of its symbols in the order in which the tree decoded them.
        greedy: whether each symbol is the likeliest after those before it.
        counted: whether the histogram already holds its mass, so that only its text is needed.
    """

    text: str
    log_mass: float
    path: tuple[int, ...]
    greedy: bool
    counted: bool

    @property
    def symbol(self) -> int:
        """Index into SYMBOLS of its last symbol."""
        return SYMBOLS.index(self.text[-1])


class NumberTree:
    """The number of one answer: its greedy text and its histogram, from as few decodes as possible.

    In each round the decoder scores what may follow the partial numbers in `frontier`. `grow` then
    extends those that matter: the greedy one, and those whose mass is worth dividing.
    """

    def __init__(self) -> None:
        self.frontier = [PartialNumber("", 0.0, (), greedy=True, counted=False)]
        self.text = ""
        """The greedy number, complete once the frontier is empty."""
        self._decoded = 0
        self._counted: list[tuple[str, bool, float]] = []

    def grow(self, log_probabilities: NDArray[np.floating]) -> None:
        """Extend the frontier by one symbol.

        Args:
            log_probabilities: of each symbol and END after each number of the frontier, shape
                (len(frontier), len(SYMBOLS) + 1); need not be normalised.
        """
        children = [
            child
            for number, row in zip(self.frontier, log_probabilities.tolist(), strict=True)
            for child in self._children(number, row)
        ]
        children.sort(key=lambda child: (not child.greedy, -child.log_mass))
        for child in children[MAX_BRANCHES:]:
            self._counted.append((child.text, False, child.log_mass))
        self.frontier = [
            replace(child, path=(*child.path, self._decoded + i))
            for i, child in enumerate(children[:MAX_BRANCHES])
        ]
        self._decoded += len(self.frontier)

    def histogram(self) -> Histogram:
        """Return the distribution. Call it once the frontier is empty.

        Digits that were not extended up to a point can begin numbers of several lengths. They
        count as the numbers of the length nearest to the greedy number.
        """
        return Histogram(*_bins(self._counted, float(self.text)))

    def _children(self, number: PartialNumber, scores: list[float]) -> Iterator[PartialNumber]:
        """Yield the continuations of a number to extend further; count the mass of the others."""
        continuations = _continuations(number.text)
        scores = [scores[symbol] for symbol, *_ in continuations]
        highest = max(scores)
        likeliest = scores.index(highest)
        total = highest + math.log(sum(math.exp(score - highest) for score in scores))
        for i, (symbol, text, relative_width) in enumerate(continuations):
            greedy = number.greedy and i == likeliest
            log_mass = number.log_mass + scores[i] - total
            counted = number.counted
            if not counted and math.exp(log_mass) * relative_width <= RESOLUTION:
                self._counted.append((text, symbol == END, log_mass))
                counted = True
            if symbol == END:
                if greedy:
                    self.text = text
            elif greedy or not counted:
                yield PartialNumber(text, log_mass, number.path, greedy, counted)


def path_histogram(number: str, rows: Sequence[Mapping[int, float]]) -> CoarseHistogram:
    """Return the distribution over numbers that is known along one decoded number.

    What follows an alternative to one of its symbols was not decoded. The alternative counts as
    the numbers that begin with it: "3" instead of the first digit of "2.7" as [3, 4).

    Args:
        number: the decoded number.
        rows: for each of its symbols and its end, log probabilities of what was possible there, by
            index into SYMBOLS, or END; need not be normalised. Each holds what was decoded.
    """
    counted: list[tuple[str, bool, float]] = []
    log_mass = 0.0
    for length, row in enumerate(rows):
        decoded = SYMBOLS.index(number[length]) if length < len(number) else END
        highest = max(row.values())
        total = highest + math.log(sum(math.exp(score - highest) for score in row.values()))
        beginning = number[:length]
        for symbol, score in row.items():
            is_end = symbol == END
            if symbol != decoded or is_end:
                text = beginning if is_end else beginning + SYMBOLS[symbol]
                counted.append((text, is_end, log_mass + score - total))
        log_mass += row[decoded] - total
    return CoarseHistogram(*_bins(counted, float(number)))


def _bins(
    counted: Sequence[tuple[str, bool, float]], greedy: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return low ends, widths and masses of a histogram.

    Args:
        counted: beginnings of numbers: text, whether the number ends there, log mass.
        greedy: the greedy number.
    """
    intervals = [_interval(text, ended, greedy) for text, ended, _ in counted]
    low, width = np.array(intervals).T
    mass = np.exp([log_mass for *_, log_mass in counted])
    seen = mass > 0
    return low[seen], width[seen], mass[seen] / mass.sum()


@lru_cache(maxsize=100_000)
def _continuations(number: str) -> tuple[tuple[int, str, float], ...]:
    """Return what may follow a partial number: symbol, text with it, relative interval width."""
    return tuple(
        (symbol, number, 0.0)
        if symbol == END
        else (symbol, number + SYMBOLS[symbol], _relative_width(number + SYMBOLS[symbol]))
        for symbol in allowed_symbols(number)
    )


def _relative_width(number: str) -> float:
    """Width of the interval of a partial number as a share of the interval's upper end."""
    if "." not in number:
        return UNKNOWN_WIDTH
    low, width = _interval(number, ended=False, near=0.0)
    return width / (low + width)


def _interval(number: str, ended: bool, near: float) -> tuple[float, float]:
    """Return (low, width) of the numbers with this beginning; of several lengths, the nearest."""
    integer, point, decimals = number.partition(".")
    if ended:
        return float(number), 0.0
    if point:
        return float(number + "0"), 10.0 ** -len(decimals)
    ratio = near / (int(integer) + 0.5)
    longer = MAX_INTEGER_DIGITS - len(integer) if integer != "0" else 0
    scale = 10.0 ** min(longer, round(math.log10(ratio))) if ratio > 1 else 1.0
    return int(integer) * scale, scale
