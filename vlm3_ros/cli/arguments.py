# SPDX-License-Identifier: Apache-2.0
"""Types of arguments: what argparse calls to read a text, and to refuse it in words."""

from __future__ import annotations

import math
import re
from argparse import ArgumentTypeError


def positive_integer(text: str) -> int:
    """A whole number from 1 up."""
    return _integer(text, 1)


def natural_number(text: str) -> int:
    """A whole number from 0 up."""
    return _integer(text, 0)


def positive_number(text: str) -> float:
    """A finite number above 0."""
    value = _finite(text)
    if not value > 0:
        raise ArgumentTypeError(f"'{text}' is no number above 0")
    return value


def number_from_zero(text: str) -> float:
    """A finite number from 0 up."""
    value = _finite(text)
    if not value >= 0:
        raise ArgumentTypeError(f"'{text}' is no number from 0 up")
    return value


def grid_size(text: str) -> tuple[int, int]:
    """Columns and rows, written 16x12."""
    found = re.fullmatch(r"([1-9]\d{0,3})[xX]([1-9]\d{0,3})", text)
    if not found:
        raise ArgumentTypeError(f"'{text}' is no grid size such as 16x12")
    return int(found[1]), int(found[2])


def _integer(text: str, least: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise ArgumentTypeError(f"'{text}' is no whole number from {least} up")
    return value


def _finite(text: str) -> float:
    """NaN where it is no finite number."""
    try:
        value = float(text)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan
