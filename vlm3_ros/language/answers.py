# SPDX-License-Identifier: Apache-2.0
"""Read numbers from a model's text: what all tasks share."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Literal, TypeVar

from vlm3_ros.errors import Vlm3Error
from vlm3_ros.language.templates import after_thinking

Value = TypeVar("Value")

Reason = Literal[
    "no answer",
    "several answers",
    "not a number",
    "not finite",
    "not positive",
    "negative",
    "not a unit vector",
    "not a whole number",
    "out of range",
    "cut off",
    "too long",
]

MAX_CHARACTERS = 100_000
"""Longer texts are runaway generations, not answers."""

NEAREST_METRES, FARTHEST_METRES = 1e-6, 1e6
"""Limits of a depth: no camera measures beyond, and float32 holds it after any later scaling."""

MINUS = "\u2212"
"""The minus sign of typography, which a model may write instead of a hyphen."""

NUMBER = rf"[+\-{MINUS}]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:e[+-]?[0-9]+)?"
NOT_FINITE = rf"[+\-{MINUS}]?(?:nan|inf(?:inity)?)"
METRES_UNIT = r"m|met(?:er|re)s?"

BARE_NUMBER = re.compile(NUMBER, re.ASCII | re.IGNORECASE)
METRES = re.compile(rf"({NUMBER})(?:\s*(?:{METRES_UNIT}))?", re.ASCII | re.IGNORECASE)

_SHOWN_CHARACTERS = 80
_NOT_FINITE = re.compile(NOT_FINITE, re.IGNORECASE)


class AnswerError(Vlm3Error, ValueError):
    """No value can be read from a text.

    Attributes:
        text: the model's whole text.
        reason: what is wrong with it, one of `Reason`.
    """

    def __init__(self, text: str, reason: Reason) -> None:
        shown = text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."
        super().__init__(f"{reason} in the model's text {shown!r}")
        self.text = text
        self.reason: Reason = reason


def final_text(text: str) -> str:
    """Return the text after the model's thinking.

    Raises:
        AnswerError: if the whole text is longer than `MAX_CHARACTERS`.
    """
    if len(text) > MAX_CHARACTERS:
        raise AnswerError(text, "too long")
    return after_thinking(text)


def read_value(text: str, pattern: re.Pattern[str], value: Callable[[Any], Value]) -> Value:
    """Return the one value that all matches of a pattern agree on.

    Args:
        text: the model's whole text.
        pattern: finds answers in the text after the thinking.
        value: converts what `pattern.findall` returns for one match.

    Raises:
        AnswerError: if nothing matches or the values differ.
    """
    return one_value(text, [value(match) for match in pattern.findall(final_text(text))])


def one_value(text: str, values: Sequence[Value]) -> Value:
    """Return the value that all readings of a text agree on.

    Raises:
        AnswerError: if there is none, or they differ.
    """
    if not values:
        raise AnswerError(text, "no answer")
    if any(other != values[0] for other in values[1:]):
        raise AnswerError(text, "several answers")
    return values[0]


def read_numbers(
    text: str, template: str, placeholders: Sequence[str], decimals: int
) -> tuple[float, ...]:
    """Read the finite numbers at several placeholders of an answer's template.

    Raises:
        AnswerError: if the text does not follow the template, or its numbers are not finite.
    """
    # "Roll=1." may be the beginning of "Roll=1.5.".
    is_ambiguous = decimals > 0 and template.rpartition(placeholders[-1])[2].startswith(".")

    def numbers(match: tuple[str, ...]) -> tuple[float, ...]:
        values = tuple(parse_number(part, BARE_NUMBER, text) for part in match)
        if is_ambiguous and "." not in match[-1]:
            raise AnswerError(text, "cut off")
        return values

    return read_value(text, _numbers_pattern(template, tuple(placeholders)), numbers)


def parse_number(part: str, form: re.Pattern[str], text: str) -> float:
    """Convert a part of a model's text to a finite number.

    Args:
        part: the part.
        form: must match all of it; its last group, if it has groups, is the number.
        text: the whole text, for errors.

    Raises:
        AnswerError: if the part has another form or is not finite.
    """
    if _NOT_FINITE.fullmatch(part.strip()):
        raise AnswerError(text, "not finite")
    match = form.fullmatch(part.strip())
    if not match:
        raise AnswerError(text, "not a number")
    value = float(match[match.lastindex or 0].replace(MINUS, "-"))
    if not math.isfinite(value):
        raise AnswerError(text, "not finite")
    return value


def check_length(metres: float, text: str) -> float:
    """Return a length if it is neither negative nor too long for any camera.

    Raises:
        AnswerError: otherwise.
    """
    if metres < 0:
        raise AnswerError(text, "negative")
    if metres > FARTHEST_METRES:
        raise AnswerError(text, "out of range")
    return metres


@lru_cache(maxsize=64)
def value_pattern(template: str) -> re.Pattern[str]:
    """Compile a pattern for the text at the last {value}, enclosed as in the template."""
    before, _, after = template.rpartition("{value}")
    opening, closing = re.escape(_opening(before)), re.escape(_closing(after))
    # Stopping at the next opening keeps the search linear in the length of the text.
    return re.compile(f"{opening}((?:(?!{opening}).)*?){closing}", re.DOTALL)


@lru_cache(maxsize=64)
def _numbers_pattern(template: str, placeholders: tuple[str, ...]) -> re.Pattern[str]:
    """Compile a pattern for the words at several placeholders, enclosed as in the template."""
    template = template.rpartition("{coarse}")[2]
    before, *between, after = re.split("|".join(map(re.escape, placeholders)), template)
    texts = (_opening(before), *between, _closing(after))
    enclosing = [r"\s+".join(map(re.escape, part.split())) for part in texts]
    # Words of limited length keep the search linear in the length of the text.
    word = r"\s*([^\s,()]{1,32})\s*"
    # The end mark "." must not be the point of a number that goes on.
    return re.compile(word.join(enclosing) + r"(?![0-9])")


def _opening(before: str) -> str:
    """Mark of an answer's beginning: the tag next to it, or all text if there is no tag."""
    spoken = after_thinking(before).strip() or before.strip()
    tag = re.search(r"<[^<>]*>\Z", spoken)
    return tag.group() if tag else spoken


def _closing(after: str) -> str:
    """Mark of an answer's end: the tag next to it, or all text if there is no tag."""
    tag = re.match(r"\s*<[^<>]*>", after)
    return (tag.group() if tag else after).strip()
