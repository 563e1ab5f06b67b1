# SPDX-License-Identifier: Apache-2.0
"""Templates of questions and answers: check their placeholders, and fill them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import SupportsInt

from vlm3_ros.errors import Vlm3Error

THINKING_ENDS = "</think>"


class PromptError(Vlm3Error, ValueError):
    """A prompt set is missing or wrong, or it cannot word a value."""


def after_thinking(text: str) -> str:
    """Return what follows the thinking, or all of a text without thinking."""
    return text.rpartition(THINKING_ENDS)[2]


def fill_point(template: str, coordinates: Iterable[SupportsInt], text_range: int) -> str:
    """Put text coordinates (x, y), shape (2,), into {x} and {y}.

    Raises:
        PromptError: if they do not lie in [0, text_range).
    """
    x, y = map(int, coordinates)
    if not (0 <= x < text_range and 0 <= y < text_range):
        raise PromptError(f"({x}, {y}) is outside of the text range [0, {text_range})")
    return template.replace("{x}", str(x)).replace("{y}", str(y))


def fill_numbers(
    template: str,
    placeholders: Sequence[str],
    values: Iterable[float],
    decimals: int,
    signed: bool = False,
) -> str:
    """Put one number into each placeholder.

    Args:
        template: with the placeholders.
        placeholders: one for each value.
        values: finite.
        decimals: of each number.
        signed: whether numbers of 0 and more have a plus sign.
    """
    sign = "+" if signed else ""
    for placeholder, value in zip(placeholders, values, strict=True):
        # Adding 0 removes the sign of a negative zero.
        number = f"{round(float(value), decimals) + 0.0:{sign}.{decimals}f}"
        template = template.replace(placeholder, number)
    return template


def check_once(where: str, text: str, placeholders: Sequence[str]) -> None:
    """Raise PromptError unless each placeholder stands exactly once in a text."""
    for placeholder in placeholders:
        if text.count(placeholder) != 1:
            raise PromptError(f"{where} must hold {placeholder} once: {text!r}")


def check_answer(where: str, text: str, placeholders: Sequence[str]) -> None:
    """Raise PromptError unless an answer can be read back.

    Its placeholders must stand once each, in this order, with text around each of them.
    """
    check_once(where, text, placeholders)
    if sorted(placeholders, key=text.index) != list(placeholders):
        raise PromptError(f"{where} must hold {', '.join(placeholders)} in this order: {text!r}")
    # Without an end mark, a number that was cut off would pass for a whole one.
    if not all(part.strip() for part in re.split("|".join(map(re.escape, placeholders)), text)):
        raise PromptError(f"{where} must enclose {' and '.join(placeholders)} in text: {text!r}")


def check_decimals(decimals: int) -> None:
    """Raise PromptError for a negative number of decimals."""
    if decimals < 0:
        raise PromptError(f"decimals is {decimals}, it must be 0 or more")
