# SPDX-License-Identifier: Apache-2.0
"""Distributions over numbers as histograms: their median and spread.

A bin is the interval of the numbers with one beginning: [3.4, 3.5) for "3.4".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from typing_extensions import override

from vlm3_ros.engines.numbers import END, MAX_INTEGER_DIGITS, NO_POINT, POINT, SYMBOLS

NORMAL_INTERVAL = (0.158655, 0.841345)
"""Shares of a normal distribution below its mean minus and plus one standard deviation."""

FAR_SHARE = 0.001
"""Mass cut off at each end of the normal distribution of a `CoarseHistogram`."""

_POWERS_OF_TEN = 10 ** np.arange(18)


@dataclass(frozen=True)
class Histogram:
    """Distributions over numbers: mass spread evenly over intervals.

    All arrays have shape (..., bins), float64, one distribution per row. An interval of zero width
    is a single number. The masses of a row sum to 1; bins without mass are ignored.
    """

    low: NDArray[np.float64]
    width: NDArray[np.float64]
    mass: NDArray[np.float64]

    def quantiles(self, shares: Sequence[float]) -> NDArray[np.float64]:
        """Return the numbers below which these shares of the mass lie, shape (..., shares)."""
        wanted = np.asarray(shares, np.float64)
        has_mass = self.mass > 0
        centre = np.where(has_mass, self.low + self.width / 2, np.inf)
        order = np.argsort(centre, axis=-1, kind="stable")
        mass = np.take_along_axis(self.mass, order, -1)
        up_to = np.cumsum(mass, axis=-1)
        last = has_mass.sum(-1, keepdims=True) - 1
        bins = np.minimum((up_to[..., None, :] <= wanted[:, None]).sum(-1), last)
        mass = np.take_along_axis(mass, bins, -1)
        below = np.where(bins > 0, np.take_along_axis(up_to, np.maximum(bins - 1, 0), -1), 0.0)
        bins = np.take_along_axis(order, bins, -1)
        low, width = (np.take_along_axis(edge, bins, -1) for edge in (self.low, self.width))
        return low + width * self._places(wanted, below, mass)

    def _places(
        self,
        shares: NDArray[np.float64],
        below: NDArray[np.float64],
        mass: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """Return where in their intervals quantiles lie, from 0 to 1, shape (..., shares).

        Args:
            shares: of the mass below the quantiles, shape (shares,).
            below: share of the mass below the interval of each, shape (..., shares).
            mass: share of the mass in it, shape (..., shares).
        """
        return np.clip((shares - below) / mass, 0.0, 1.0)

    @property
    def median(self) -> NDArray[np.float64]:
        """The number below which half of the mass lies, shape (...)."""
        return self.quantiles([0.5])[..., 0]

    @property
    def std(self) -> NDArray[np.float64]:
        """Standard deviation of the normal distribution with the same central 68 %, shape (...).

        The second moment would be useless: models put a mass of about 0.2 % on "266" when they
        mean "2.66", and that alone would determine it.
        """
        low, high = np.moveaxis(self.quantiles(NORMAL_INTERVAL), -1, 0)
        return (high - low) / 2


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
        edges = (below, shares, below + mass)
        start, place, end = (ndtri(np.clip(edge, FAR_SHARE, 1 - FAR_SHARE)) for edge in edges)
        return np.clip((place - start) / np.maximum(end - start, 1e-9), 0.0, 1.0)


def intervals(
    digits: NDArray[np.int64],
    decimals: NDArray[np.int64],
    is_whole: NDArray[np.bool_],
    near: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (low, width) of the numbers with these beginnings.

    Digits without a point can begin numbers of several lengths. They count as the numbers of the
    length nearest to `near`. All arrays have the same shape.

    Args:
        digits: all digits of a beginning as one integer.
        decimals: digits after the point; NO_POINT before it.
        is_whole: whether the number ends there.
        near: number that decides about unknown lengths.
    """
    longest = np.where(digits > 0, MAX_INTEGER_DIGITS - _digit_count(digits), 0)
    ratio = np.maximum(near / (digits + 0.5), 1.0)
    length_is_known = is_whole | (decimals != NO_POINT)
    added = np.minimum(np.rint(np.log10(ratio)).astype(np.int64), longest)
    scale = _POWERS_OF_TEN[np.where(length_is_known, 0, added)]
    unit = _POWERS_OF_TEN[np.maximum(decimals, 0)]
    return digits * scale / unit, np.where(is_whole, 0.0, scale / unit)


def path_histogram(number: str, rows: Sequence[Mapping[int, float]]) -> CoarseHistogram:
    """Return the distribution over numbers that is known along one decoded number.

    What follows an alternative to one of its symbols was not decoded. The alternative counts as
    the numbers that begin with it: "3" instead of the first digit of "2.7" as [3, 4).

    Args:
        number: the decoded number.
        rows: for each of its symbols and its end, log probabilities of what was possible there, by
            index into SYMBOLS, or END; need not be normalised. Each holds what was decoded.
    """
    beginnings: list[tuple[str, bool]] = []
    log_masses: list[float] = []
    log_mass = 0.0
    for length, row in enumerate(rows):
        decoded = SYMBOLS.index(number[length]) if length < len(number) else END
        highest = max(row.values())
        total = highest + math.log(sum(math.exp(score - highest) for score in row.values()))
        beginning = number[:length]
        for symbol, score in row.items():
            is_end = symbol == END
            if symbol != decoded or is_end:
                beginnings.append((beginning if is_end else beginning + SYMBOLS[symbol], is_end))
                log_masses.append(log_mass + score - total)
        log_mass += row[decoded] - total
    texts, is_whole = zip(*beginnings, strict=True)
    parts = [text.partition(SYMBOLS[POINT]) for text in texts]
    low, width = intervals(
        np.array([int(integer + decimals) for integer, _, decimals in parts]),
        np.array([len(decimals) if point else NO_POINT for _, point, decimals in parts]),
        np.array(is_whole),
        np.array(float(number)),
    )
    mass = np.exp(log_masses)
    return CoarseHistogram(low, width, mass / mass.sum())


def _digit_count(integers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the number of decimal digits of integers; 0 has none."""
    return np.searchsorted(_POWERS_OF_TEN, integers, side="right")
