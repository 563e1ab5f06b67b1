# SPDX-License-Identifier: Apache-2.0
"""Read numbers from answers in any form: by their unit, by their names, or as a tuple.

The parsers of the authors' notebook accept these forms. They take the first match; here, all
matches must agree.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from vlm3_ros.language.answers import (
    BARE_NUMBER,
    MINUS,
    NOT_FINITE,
    NUMBER,
    AnswerError,
    final_text,
    one_value,
    parse_number,
    read_value,
)

APART = rf"(?<![\w.,+\-\u2013{MINUS}])(?<![0-9]:)"
"""A number starts neither inside another number nor inside a word.

This keeps a search that fails linear in the length of the text.
"""

BETWEEN = r"(?:to|or|and|x|[-\u2013\u2014~/\u00b1\u00d7\u2026]|\.\.\.?|\+/?-)"
"""What stands between two numbers that are one range, fraction, product or tolerance."""

FIRST_OF_TWO = rf"(?:{APART}({NUMBER})\s*{BETWEEN}\s*)?"
"""The first of two numbers, if there are two: "2 to", "2 and", "1/"."""

GOES_ON = rf"(?=([ \t]*(?:{BETWEEN}[ \t]*)?[0-9]|))"
"""What makes a number with its unit the first of two: "2 m to 3", "2 m 30". Empty otherwise."""

DEGREES = r"degrees?|deg|\u00b0"

_ANY_NUMBER = rf"(?:{NUMBER}|{NOT_FINITE})"
_OF_TUPLE = re.compile(
    rf"(?<![\w.+\-\u2013{MINUS}]){_ANY_NUMBER}(?!\w|\.[0-9])",
    re.IGNORECASE,
)
_COMMA = re.compile(r"\s*,\s*")


def spoken_text(text: str) -> str:
    """Return the text after the model's thinking.

    Raises:
        AnswerError: if the thinking has not ended, or the text is too long.
    """
    spoken = final_text(text)
    if "<think>" in spoken:
        raise AnswerError(text, "cut off")
    return spoken


def read_with_unit(text: str, unit: str) -> float:
    """Read the one number that a unit follows.

    Args:
        text: the model's whole text.
        unit: regular expression without groups, upper or lower case.

    Raises:
        AnswerError: if no number has the unit, or there are several or a range of them, or it is
            not finite.
    """
    spoken_text(text)

    def number(match: tuple[str, str, str]) -> float:
        before, part, after = match
        if before or after:
            raise AnswerError(text, "several answers")
        return parse_number(part, BARE_NUMBER, text)

    return read_value(text, _unit_pattern(unit), number)


def read_named(
    text: str, names: Sequence[str], decimals: int, may_be_cut: bool
) -> tuple[float, ...]:
    """Read one number per name: "Yaw=+1.5", "yaw 1.5" or "yaw: 1.5".

    Args:
        text: the model's whole text.
        names: in lower case; any order and case in the text.
        decimals: see `check_complete`.
        may_be_cut: see `check_complete`.

    Raises:
        AnswerError: if a name has no number or different ones, or one is not finite or may go on.
    """
    spoken = spoken_text(text)
    numbers = []
    for name in names:
        values = []
        for match in _name_pattern(name).finditer(spoken):
            values.append(parse_number(match[1], BARE_NUMBER, text))
            check_complete(text, match[1], match.end() == len(spoken), decimals, may_be_cut)
        numbers.append(one_value(text, values))
    return tuple(numbers)


def read_tuple(text: str, count: int, decimals: int, may_be_cut: bool) -> tuple[float, ...]:
    """Read the one tuple of numbers, which commas separate, with or without brackets.

    Shorter tuples are ignored.

    Args:
        text: the model's whole text.
        count: of numbers in the tuple.
        decimals: see `check_complete`.
        may_be_cut: see `check_complete`.

    Raises:
        AnswerError: if there is none, if there are different or longer ones, or if a number is
            not finite or may go on.
    """
    spoken = spoken_text(text)
    tuples: list[list[str]] = []
    end = 0
    for match in _OF_TUPLE.finditer(spoken):
        if tuples and _COMMA.fullmatch(spoken, end, match.start()):
            tuples[-1].append(match[0])
        else:
            tuples.append([match[0]])
        end = match.end()
    if any(len(parts) > count for parts in tuples):
        raise AnswerError(text, "several answers")
    if tuples and len(tuples[-1]) == count:
        check_complete(text, tuples[-1][-1], end == len(spoken), decimals, may_be_cut)
    whole = [parts for parts in tuples if len(parts) == count]
    return one_value(
        text, [tuple(parse_number(part, BARE_NUMBER, text) for part in parts) for parts in whole]
    )


def check_complete(
    text: str, number: str, ends_text: bool, decimals: int, may_be_cut: bool
) -> None:
    """Check that a number is not the beginning of a longer one.

    Args:
        text: the model's whole text, for errors.
        number: as it stands in the text.
        ends_text: whether nothing follows it, not even an end mark.
        decimals: number of decimals of a complete number; 0 for whole numbers.
        may_be_cut: whether the model may have been stopped in the middle of its answer.

    Raises:
        AnswerError: if the text may have been cut off in the number: it ends the text, and has
            fewer decimals or is a whole number.
    """
    _, point, fraction = number.partition(".")
    has_all_decimals = len(fraction) >= decimals if decimals else bool(point)
    if ends_text and may_be_cut and not has_all_decimals:
        raise AnswerError(text, "cut off")


@lru_cache(maxsize=8)
def _unit_pattern(unit: str) -> re.Pattern[str]:
    return re.compile(
        rf"{FIRST_OF_TWO}{APART}({_ANY_NUMBER})\s*(?:{unit})(?![\w/]){GOES_ON}", re.IGNORECASE
    )


@lru_cache(maxsize=8)
def _name_pattern(name: str) -> re.Pattern[str]:
    # "1,5" and "1.2.3" are no numbers, "1 to 2" is no angle, and "1 rad" none in degrees.
    other = rf"\s?rad|[ \t]?(?:{DEGREES})?[ \t]?(?:to|or|and|[-\u2013\u2014~/])[ \t]?[+-]?[0-9]"
    return re.compile(
        rf"\b{name}\s*(?:[=:]\s*)?({_ANY_NUMBER})(?!\w|[.,]?[0-9]|{other})", re.IGNORECASE
    )
