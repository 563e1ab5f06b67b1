# SPDX-License-Identifier: Apache-2.0
"""Argument types for argparse. They raise ArgumentTypeError on values that they refuse."""

from __future__ import annotations

import math
import re
from argparse import ArgumentTypeError
from collections.abc import Callable


def positive_integer(text: str) -> int:
    """Read a whole number of at least 1."""
    return _integer(text, 1)


def natural_number(text: str) -> int:
    """Read a whole number of at least 0."""
    return _integer(text, 0)


def positive_number(text: str) -> float:
    """Read a finite number above 0."""
    value = _finite(text)
    if not value > 0:
        raise ArgumentTypeError(f"'{text}' is not a number above 0")
    return value


def number_from_zero(text: str) -> float:
    """Read a finite number of at least 0."""
    value = _finite(text)
    if not value >= 0:
        raise ArgumentTypeError(f"'{text}' is not a number of at least 0")
    return value


def number_between(
    kind: type[int] | type[float], minimum: float, maximum: float
) -> Callable[[str], int | float]:
    """Return a reader of numbers of this kind in a range, both ends included."""

    def read(text: str) -> int | float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not minimum <= value <= maximum:
            name = "whole number" if kind is int else "number"
            raise ArgumentTypeError(f"'{text}' is not a {name} from {minimum:g} to {maximum:g}")
        return value

    return read


def grid_size(text: str) -> tuple[int, int]:
    """Read columns and rows, written 16x12."""
    match = re.fullmatch(r"([1-9]\d{0,3})[xX]([1-9]\d{0,3})", text)
    if not match:
        raise ArgumentTypeError(f"'{text}' is not a grid size such as 16x12")
    return int(match[1]), int(match[2])


def _integer(text: str, minimum: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = minimum - 1
    if value < minimum:
        raise ArgumentTypeError(f"'{text}' is not a whole number of at least {minimum}")
    return value


def _finite(text: str) -> float:
    """Read a number; NaN if the text is not a finite number."""
    try:
        value = float(text)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan
