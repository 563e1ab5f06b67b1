# SPDX-License-Identifier: Apache-2.0
"""The tree of one number, written plainly with texts: what `number_trees` computes with arrays."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vlm3_ros.engines.number_trees import MAX_BRANCHES, RESOLUTION, UNKNOWN_WIDTH
from vlm3_ros.engines.numbers import END, MAX_INTEGER_DIGITS, SYMBOLS, allowed_symbols


@dataclass(frozen=True)
class PartialNumber:
    """The beginning of a number."""

    text: str
    log_mass: float
    path: tuple[int, ...]
    greedy: bool
    counted: bool


class NumberTree:
    """The number of one answer: its greedy text and its distribution."""

    def __init__(self) -> None:
        self.frontier = [PartialNumber("", 0.0, (), greedy=True, counted=False)]
        self.text = ""
        self._decoded = 0
        self._counted: list[tuple[str, bool, float]] = []

    def grow(self, log_probabilities: NDArray[np.floating]) -> None:
        """Extend the frontier by one symbol; the scores have shape (frontier, symbols + 1)."""
        children = [
            child
            for number, row in zip(self.frontier, log_probabilities, strict=True)
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

    def bins(self) -> list[tuple[float, float, float]]:
        """Return (low, width, mass) of the distribution."""
        intervals = [interval(text, ended, float(self.text)) for text, ended, _ in self._counted]
        masses = [math.exp(log_mass) for *_, log_mass in self._counted]
        total = sum(masses)
        return [
            (low, width, mass / total) for (low, width), mass in zip(intervals, masses, strict=True)
        ]

    def _children(
        self, number: PartialNumber, scores: NDArray[np.floating]
    ) -> Iterator[PartialNumber]:
        """Yield the continuations of a number to extend further; count the mass of the others."""
        symbols = list(allowed_symbols(number.text))
        # numpy's sum, so that numbers of equal mass are equal in both implementations.
        masked = np.full(END + 1, -np.inf)
        masked[symbols] = scores[symbols]
        highest = masked.max()
        masked -= highest + np.log(np.exp(masked - highest).sum())
        likeliest = max(symbols, key=masked.__getitem__)
        for symbol in symbols:
            ended = symbol == END
            text = number.text if ended else number.text + SYMBOLS[symbol]
            greedy = number.greedy and symbol == likeliest
            log_mass = number.log_mass + float(masked[symbol])
            counted = number.counted
            if not counted and math.exp(log_mass) * relative_width(text, ended) <= RESOLUTION:
                self._counted.append((text, ended, log_mass))
                counted = True
            if ended:
                if greedy:
                    self.text = text
            elif greedy or not counted:
                yield PartialNumber(text, log_mass, number.path, greedy, counted)


def relative_width(text: str, ended: bool) -> float:
    """Width of the interval of a partial number as a share of its upper end."""
    if "." not in text and not ended:
        return UNKNOWN_WIDTH
    low, width = interval(text, ended, near=0.0)
    return width and width / (low + width)


def interval(text: str, ended: bool, near: float) -> tuple[float, float]:
    """Return (low, width) of the numbers with this beginning; of several lengths, the nearest."""
    integer, point, decimals = text.partition(".")
    if ended:
        return float(text), 0.0
    if point:
        return float(text + "0"), 10.0 ** -len(decimals)
    ratio = near / (int(integer) + 0.5)
    longer = MAX_INTEGER_DIGITS - len(integer) if integer != "0" else 0
    scale = 10.0 ** min(longer, round(math.log10(ratio))) if ratio > 1 else 1.0
    return int(integer) * scale, scale


def quantile(bins: list[tuple[float, float, float]], share: float) -> float:
    """Return the number below which this share of the mass lies."""
    bins = [a_bin for a_bin in bins if a_bin[2] > 0]
    below = 0.0
    for low, width, mass in sorted(bins, key=lambda a_bin: a_bin[0] + a_bin[1] / 2):
        if share < below + mass:
            return low + width * (share - below) / mass
        below += mass
    return low + width
