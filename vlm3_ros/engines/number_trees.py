# SPDX-License-Identifier: Apache-2.0
"""Number trees: the numbers of many answers and their distributions, from as few decodes as needed.

A model writes a number digit by digit, and gives the probability of every digit at each step. A
partial number stands for an interval ("3.4" for [3.4, 3.5)); its mass is the product of the
probabilities of its digits. So the decode that writes the answer also yields its histogram.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vlm3_ros.engines.histograms import Histogram, intervals
from vlm3_ros.engines.numbers import (
    END,
    MAX_DECIMALS,
    MAX_INTEGER_DIGITS,
    NO_POINT,
    POINT,
    SYMBOLS,
    allowed_symbols,
)

RESOLUTION = 0.02
"""A partial number is extended while its mass times its relative width is above this."""

UNKNOWN_WIDTH = 2.0
"""Relative width of a partial number before its point, since its length is still unknown."""

MAX_BRANCHES = 32
"""Maximum number of partial numbers of an answer that are extended at the same time."""

_EXAMPLES = (
    "",
    "0",
    *("1" * digits for digits in range(1, MAX_INTEGER_DIGITS + 1)),
    *("1." + "1" * decimals for decimals in range(MAX_DECIMALS + 1)),
)
"""A partial number in each state of the grammar. What may follow depends on the state only."""


def _grammar() -> tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.int64]]:
    """Return tables of the grammar by state.

    Returns:
        Whether each symbol or END may follow, shape (states, symbols + 1). The state after it, the
        same shape; a number that ends keeps its state. Digits after the point, NO_POINT before it,
        shape (states,).
    """
    allowed = np.zeros((len(_EXAMPLES), END + 1), bool)
    after = np.zeros(allowed.shape, np.int64)
    for state, example in enumerate(_EXAMPLES):
        for symbol in allowed_symbols(example):
            allowed[state, symbol] = True
            if symbol == END:
                after[state, symbol] = state
            elif symbol == POINT:
                after[state, symbol] = _EXAMPLES.index("1.")
            else:
                digit = "0" if not example and SYMBOLS[symbol] == "0" else "1"
                after[state, symbol] = _EXAMPLES.index(example + digit)
    decimals = [len(text) - 2 if SYMBOLS[POINT] in text else NO_POINT for text in _EXAMPLES]
    return allowed, after, np.array(decimals)


_ALLOWED, _AFTER, _DECIMALS = _grammar()

_PARTIAL_NUMBER = np.dtype(
    [
        ("question", np.int64),
        ("state", np.int64),  # index into _EXAMPLES
        ("digits", np.int64),  # all digits as one integer
        ("log_mass", np.float64),  # logarithm of its probability
        ("is_greedy", np.bool_),  # whether each symbol is the likeliest after those before it
        ("is_counted", np.bool_),  # whether a histogram has its mass, and only its text is needed
        ("is_whole", np.bool_),  # whether the number ends here
    ]
)


class NumberTrees:
    """The numbers of several answers: their greedy texts and their histograms.

    In each round the decoder scores what may follow the partial numbers at the frontier. `grow`
    then extends those that matter: the greedy one of each question, and those whose mass is worth
    dividing. The trees are complete once the frontier is empty.

    Attributes:
        questions: question of each partial number at the frontier, ascending, shape (n,), int64.
        symbols: index into SYMBOLS of its last symbol, shape (n,), int64.
        paths: indices of its symbols in the order in which the question's tree decoded them, shape
            (n, rounds), int64.
    """

    def __init__(self, questions: int) -> None:
        """Start with an empty partial number for each question."""
        self._frontier = np.zeros(questions, _PARTIAL_NUMBER)
        self._frontier["question"] = np.arange(questions)
        self._frontier["is_greedy"] = True
        self._greedy = self._frontier.copy()
        self._decoded = np.zeros(questions, np.int64)
        self._counted: list[NDArray[np.void]] = []
        self.symbols = np.zeros(questions, np.int64)
        self.paths = np.zeros((questions, 0), np.int64)

    @property
    def questions(self) -> NDArray[np.int64]:
        """Question of each partial number at the frontier; see the class."""
        return self._frontier["question"]

    def grow(self, log_probabilities: NDArray[np.floating]) -> None:
        """Extend the frontier by one symbol.

        Args:
            log_probabilities: of each symbol and END after each number of the frontier, shape
                (n, len(SYMBOLS) + 1); need not be normalised.
        """
        allowed = _ALLOWED[self._frontier["state"]]
        scores = np.where(allowed, log_probabilities.astype(np.float64), -np.inf)
        highest = scores.max(-1, keepdims=True)
        with np.errstate(invalid="ignore"):  # of scores that overflow; see `histogram`
            scores -= highest + np.log(np.exp(scores - highest).sum(-1, keepdims=True))

        parents, symbols = np.nonzero(allowed)
        children = self._frontier[parents]
        children["log_mass"] += scores[parents, symbols]
        children["is_greedy"] &= symbols == scores.argmax(-1)[parents]
        children["is_greedy"] &= ~np.isnan(children["log_mass"])
        children["is_whole"] = symbols == END
        is_digit = symbols < POINT
        children["digits"] = np.where(
            is_digit, 10 * children["digits"] + symbols, children["digits"]
        )
        children["state"] = _AFTER[children["state"], symbols]

        mass = np.exp(children["log_mass"])
        is_divided = mass * _relative_width(children) > RESOLUTION  # not if the mass is NaN
        is_counted = children["is_counted"] | ~is_divided
        self._counted.append(children[is_counted & ~children["is_counted"]])
        children["is_counted"] = is_counted
        ended = children[children["is_greedy"] & children["is_whole"]]
        self._greedy[ended["question"]] = ended

        goes_on = ~children["is_whole"] & (children["is_greedy"] | ~children["is_counted"])
        self._advance(children[goes_on], parents[goes_on], symbols[goes_on])

    def _advance(
        self,
        children: NDArray[np.void],
        parents: NDArray[np.int64],
        symbols: NDArray[np.int64],
    ) -> None:
        """Make the likeliest children of each question its frontier, the greedy one first."""
        order = np.lexsort((-children["log_mass"], ~children["is_greedy"], children["question"]))
        ranks = _ranks(children["question"][order])
        self._counted.append(children[order[ranks >= MAX_BRANCHES]])
        order, ranks = order[ranks < MAX_BRANCHES], ranks[ranks < MAX_BRANCHES]
        self._frontier = children[order]
        indices = self._decoded[self.questions] + ranks
        self.symbols = symbols[order]
        self.paths = np.column_stack([self.paths[parents[order]], indices])
        self._decoded += np.bincount(self.questions, minlength=len(self._decoded))

    def texts(self) -> list[str]:
        """Return the greedy numbers. Call it once the frontier is empty."""
        decimals = _DECIMALS[self._greedy["state"]]
        return [
            f"{digits // 10**places}.{digits % 10**places:0{places}}" if places > 0 else f"{digits}"
            for digits, places in zip(
                self._greedy["digits"].tolist(), decimals.tolist(), strict=True
            )
        ]

    def histogram(self) -> Histogram:
        """Return the distributions, shape (questions, bins). Call it once the frontier is empty.

        Digits that were not extended up to a point can begin numbers of several lengths. They
        count as the numbers of the length nearest to the greedy number. A row is NaN if the greedy
        number has no end, since scores were NaN or infinite.
        """
        counted = np.concatenate(self._counted)
        counted = counted[np.argsort(counted["question"], kind="stable")]
        greedy = self._greedy
        value = greedy["digits"] / 10.0 ** np.maximum(_DECIMALS[greedy["state"]], 0)
        questions, bins = counted["question"], _ranks(counted["question"])
        low, width, mass = np.zeros((3, len(greedy), bins.max() + 1))
        low[questions, bins], width[questions, bins] = intervals(
            counted["digits"], _DECIMALS[counted["state"]], counted["is_whole"], value[questions]
        )
        mass[questions, bins] = np.exp(counted["log_mass"])
        mass[~greedy["is_whole"]] = np.nan
        return Histogram(low, width, mass / mass.sum(-1, keepdims=True))


def _relative_width(numbers: NDArray[np.void]) -> NDArray[np.float64]:
    """Width of the intervals of partial numbers as a share of their upper ends."""
    has_point = _DECIMALS[numbers["state"]] != NO_POINT
    width = np.where(has_point, 1 / (numbers["digits"] + 1), UNKNOWN_WIDTH)
    return np.where(numbers["is_whole"], 0.0, width)


def _ranks(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the index of each element within its group of equal ones, which are sorted."""
    return np.arange(len(groups)) - np.searchsorted(groups, groups)
