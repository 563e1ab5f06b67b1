# SPDX-License-Identifier: Apache-2.0
"""Typed values out of the text that a model answered."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from vlm3_ros.errors import Vlm3Error
from vlm3_ros.language.prompts import (
    DIRECTION,
    POINT,
    ROTATION,
    CorrespondencePrompt,
    PosePrompts,
    PromptSet,
)

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
"""No camera measures beyond; within, a depth survives float32 and every later scaling."""

UNIT_TOLERANCE = 0.1
"""How far the length of a direction may be from 1.

Rounding to two decimals moves it by 0.009 at most; three numbers that a model wrote one by one,
each off by 0.05, move it by 0.09. Beyond, they are no vector that anybody meant.
"""

ANGLE_LIMITS_DEG = (180.0, 90.0, 180.0)
"""Of yaw, pitch and roll in either direction, inclusive: any rotation has angles within."""

_SHOWN_CHARACTERS = 80
_THINKING_ENDS = "</think>"
_NUMBER = r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:e[+-]?[0-9]+)?"
_BARE = re.compile(_NUMBER, re.ASCII | re.IGNORECASE)
_METRES = re.compile(rf"({_NUMBER})(?:\s*(?:m|met(?:er|re)s?))?", re.ASCII | re.IGNORECASE)
_NOT_FINITE = re.compile(r"[+-]?(?:nan|inf|infinity)", re.IGNORECASE)

_METRES_PER_UNIT = {
    r"m|met(?:er|re)s?": 1.0,
    r"cm|centimet(?:er|re)s?": 0.01,
    r"feet|foot|ft": 0.3048,
    # Elsewhere "in" is a word: "at 400 in the picture".
    r"inch(?:es)?|in(?=\s*(?:[.,;!)]|\Z))": 0.0254,
}
# Numbers begin neither inside of another one nor in a word, so that a search that fails stays
# linear in the length of the text.
_APART = r"(?<![\w.,:+\-\u2013\u2212])"
_SEVERAL = rf"(?:{_APART}({_NUMBER})\s*(?:to|or|and|[-\u2013])\s*)?"
_LENGTH = re.compile(
    rf"{_SEVERAL}(?:{_APART}({_NUMBER})|\b(nan|inf|infinity))\s*"
    rf"(?:{'|'.join(f'({unit})' for unit in _METRES_PER_UNIT)})(?![\w/])",
    re.IGNORECASE,
)
_HOUR = re.compile(rf"{_SEVERAL}{_APART}([0-9]{{1,4}})\s*o['\u2019]?\s?clock\b", re.IGNORECASE)
_TAG = re.compile(r"<[^<>]{1,32}>")
_WORDS = re.compile(r"[^\W_].*", re.DOTALL)
_YES = re.compile(r"(?:yes|indeed|correct|(?:that is )?true)\b", re.IGNORECASE)
_NO = re.compile(r"(?:no|incorrect|in fact|actually|(?:that is )?false)\b", re.IGNORECASE)
_OPPOSITE = {
    True: re.compile(r"\bno\b", re.IGNORECASE),
    False: re.compile(r"\byes\b", re.IGNORECASE),
}


class AnswerError(Vlm3Error, ValueError):
    """A text that no value can be read from.

    Attributes:
        text: the whole text of the model.
        reason: what is wrong with it, one of `Reason`.
    """

    def __init__(self, text: str, reason: Reason) -> None:
        shown = text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."
        super().__init__(f"{reason} in the model's text {shown!r}")
        self.text = text
        self.reason: Reason = reason


def parse_depth(text: str, prompts: PromptSet) -> float:
    """Metres from an answer, finite and positive.

    Text around the answer is free, above all the thinking before it. The number may carry the
    unit of metres.

    Raises:
        AnswerError: when nothing is enclosed as in the prompt set's answer ("no answer"), when
            different numbers are, when the number is no depth, or when the text is over
            `MAX_CHARACTERS` long.
    """
    pattern = _answer_pattern(prompts.depth.answer)
    return _read(text, pattern, lambda answer: _depth(answer, text))


def parse_distance(text: str, pose: PosePrompts) -> float:
    """Metres of displacement from an answer, finite and at least 0.

    Text around the answer is free, as for `parse_depth`, and the unit may be abbreviated inside.

    Raises:
        AnswerError: when nothing is enclosed as in the wording, when different numbers are, when
            the number is no distance, or when the text is too long.
    """
    pattern = _answer_pattern(pose.distance.answer)
    return _read(text, pattern, lambda answer: _distance(answer, text))


def parse_direction(text: str, pose: PosePrompts) -> NDArray[np.float64]:
    """A unit vector in the axes of the first camera from an answer, shape (3,).

    Its length may differ from 1 by `UNIT_TOLERANCE` and is then made 1. The direction in words is
    not read.

    Raises:
        AnswerError: when no three numbers stand as in the wording, when different ones do, when
            they are not finite or no unit vector, or when the text is too long.
    """
    prompt = pose.direction
    vector = np.array(_read_numbers(text, prompt.answer, DIRECTION, prompt.decimals))
    length = math.hypot(*vector)
    if not abs(length - 1) <= UNIT_TOLERANCE:
        raise AnswerError(text, "not a unit vector")
    return vector / length


def parse_rotation(text: str, pose: PosePrompts) -> NDArray[np.float64]:
    """Yaw, pitch and roll in degrees from an answer, shape (3,), within `ANGLE_LIMITS_DEG`.

    Raises:
        AnswerError: when no three numbers stand as in the wording, when different ones do, when
            one is not finite or beyond its limit, or when the text is too long.
    """
    prompt = pose.rotation
    angles = np.array(_read_numbers(text, prompt.answer, ROTATION, prompt.decimals))
    if (np.abs(angles) > ANGLE_LIMITS_DEG).any():
        raise AnswerError(text, "out of range")
    return angles


def parse_point(
    text: str, correspondence: CorrespondencePrompt, text_range: int
) -> NDArray[np.int64]:
    """Text coordinates (x, y) in the second image from an answer, shape (2,).

    Raises:
        AnswerError: when no two numbers stand as in the wording, when different ones do, when one
            is no whole number or not in [0, text_range), or when the text is too long.
    """
    point = _read_numbers(text, correspondence.answer, POINT, decimals=0)
    if not all(value.is_integer() for value in point):
        raise AnswerError(text, "not a whole number")
    if not all(0 <= value < text_range for value in point):
        raise AnswerError(text, "out of range")
    return np.array(point, dtype=np.int64)


def parse_relation(text: str) -> bool:
    """Whether something holds, from the words that an answer begins with.

    Whatever the wording: "Yes" and "No", and the others that SpatialRGPT's templates begin with
    ("Indeed", "Correct", "That is True"; "Incorrect", "In fact", "Actually", "That is False").
    Tags are left out.

    Raises:
        AnswerError: when it begins with neither, when the opposite follows, or when the text is
            too long.
    """
    words = _WORDS.search(_TAG.sub(" ", _spoken(text)))
    said = words.group() if words else ""
    holds = _YES.match(said) is not None
    if not holds and not _NO.match(said):
        raise AnswerError(text, "no answer")
    if _OPPOSITE[holds].search(said):
        raise AnswerError(text, "several answers")
    return holds


def parse_length(text: str) -> float:
    """Metres from the one number with a unit in an answer, finite and at least 0.

    Whatever the wording; in metres, centimetres, feet or inches. Numbers without a unit, such as
    the coordinates of a box, do not count.

    Raises:
        AnswerError: when no number has such a unit, when different lengths are told or a range of
            them, when the number is no length, or when the text is too long.
    """
    return _read(text, _LENGTH, lambda found: _length(found, text))


def parse_hour(text: str) -> int:
    """The hour, 1 to 12, from the one "o'clock" in an answer, whatever the wording.

    Raises:
        AnswerError: when there is none, when there are different ones, when it is on no clock, or
            when the text is too long.
    """

    def hour(found: tuple[str, str]) -> int:
        if found[0]:
            raise AnswerError(text, "several answers")
        if not 1 <= int(found[1]) <= 12:
            raise AnswerError(text, "out of range")
        return int(found[1])

    return _read(text, _HOUR, hour)


def _spoken(text: str) -> str:
    """What a model said after its thinking."""
    if len(text) > MAX_CHARACTERS:
        raise AnswerError(text, "too long")
    return text.rpartition(_THINKING_ENDS)[2]


def _read(text: str, pattern: re.Pattern[str], value: Callable[[Any], Value]) -> Value:
    """The one value that all matches of a pattern in what a model said stand for."""
    values = [value(answer) for answer in pattern.findall(_spoken(text))]
    if not values:
        raise AnswerError(text, "no answer")
    if any(other != values[0] for other in values[1:]):
        raise AnswerError(text, "several answers")
    return values[0]


def _read_numbers(
    text: str, template: str, placeholders: Sequence[str], decimals: int
) -> tuple[float, ...]:
    """Finite numbers that stand in the places of several placeholders of a template."""
    # "Roll=1." may be the beginning of "Roll=1.5.".
    is_ambiguous = decimals > 0 and template.rpartition(placeholders[-1])[2].startswith(".")

    def numbers(answer: tuple[str, ...]) -> tuple[float, ...]:
        values = tuple(_number(part, _BARE, text) for part in answer)
        if is_ambiguous and "." not in answer[-1]:
            raise AnswerError(text, "cut off")
        return values

    return _read(text, _numbers_pattern(template, tuple(placeholders)), numbers)


@lru_cache(maxsize=64)
def _numbers_pattern(template: str, placeholders: tuple[str, ...]) -> re.Pattern[str]:
    """Finds what a text has in the places of several placeholders, enclosed as in the template."""
    template = template.rpartition("{coarse}")[2]
    before, *between, after = re.split("|".join(map(re.escape, placeholders)), template)
    texts = (_opening(before), *between, _closing(after))
    enclosing = [r"\s+".join(map(re.escape, part.split())) for part in texts]
    # Words of limited length, so that the search stays linear in the length of the text.
    word = r"\s*([^\s,()]{1,32})\s*"
    # The end mark "." must not be the point of a number that goes on.
    return re.compile(word.join(enclosing) + r"(?![0-9])")


@lru_cache(maxsize=64)
def _answer_pattern(template: str) -> re.Pattern[str]:
    """Finds what a text has in the place of {value}, enclosed as in the template."""
    before, after = template.split("{value}")
    opening, closing = re.escape(_opening(before)), re.escape(_closing(after))
    # Stopping at the next opening keeps the search linear in the length of the text.
    return re.compile(f"{opening}((?:(?!{opening}).)*?){closing}", re.DOTALL)


def _opening(before: str) -> str:
    """What marks the beginning of an answer: the tag next to it, or all text without one."""
    spoken = before.rpartition(_THINKING_ENDS)[2].strip() or before.strip()
    tag = re.search(r"<[^<>]*>\Z", spoken)
    return tag.group() if tag else spoken


def _closing(after: str) -> str:
    """What marks the end of an answer, as `_opening`."""
    tag = re.match(r"\s*<[^<>]*>", after)
    return (tag.group() if tag else after).strip()


def _number(answer: str, form: re.Pattern[str], text: str) -> float:
    """The finite number that an answer of a form holds."""
    if _NOT_FINITE.fullmatch(answer.strip()):
        raise AnswerError(text, "not finite")
    match = form.fullmatch(answer.strip())
    if not match:
        raise AnswerError(text, "not a number")
    value = float(match[match.lastindex or 0])
    if not math.isfinite(value):
        raise AnswerError(text, "not finite")
    return value


def _depth(answer: str, text: str) -> float:
    value = _number(answer, _METRES, text)
    if value <= 0:
        raise AnswerError(text, "not positive")
    if not NEAREST_METRES <= value <= FARTHEST_METRES:
        raise AnswerError(text, "out of range")
    return value


def _distance(answer: str, text: str) -> float:
    value = _number(answer, _METRES, text)
    if value < 0:
        raise AnswerError(text, "negative")
    if value > FARTHEST_METRES:
        raise AnswerError(text, "out of range")
    return value


def _length(found: tuple[str, ...], text: str) -> float:
    other, number, not_finite, *units = found
    if other:
        raise AnswerError(text, "several answers")
    named = zip(units, _METRES_PER_UNIT.values(), strict=True)
    factor = next(metres for unit, metres in named if unit)
    value = _number(number or not_finite, _BARE, text) * factor
    if value < 0:
        raise AnswerError(text, "negative")
    if value > FARTHEST_METRES:
        raise AnswerError(text, "out of range")
    return value
