# SPDX-License-Identifier: Apache-2.0
"""Objects in words (paper section 3.2): their relations, distances, sizes and directions."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from vlm3_ros.language.answers import (
    BARE_NUMBER,
    NUMBER,
    AnswerError,
    check_length,
    final_text,
    parse_number,
    read_value,
)
from vlm3_ros.language.templates import PromptError, check_answer, check_decimals, check_once

BOX = ("{xmin}", "{ymin}", "{xmax}", "{ymax}")
"""Placeholders of an object's box."""

RELATIONS = (
    *("below", "above", "left", "right", "big", "small"),
    *("tall", "short", "wide", "thin", "behind", "front"),
)
DISTANCES = ("direct_distance", "horizontal_distance", "vertical_distance")
SIZES = ("width", "height")
QUANTITIES = (*DISTANCES, *SIZES)
"""Names of questions about objects, as in SpatialRGPT-Bench (paper, table 1)."""

_METRES_PER_UNIT = {
    r"m|met(?:er|re)s?": 1.0,
    r"cm|centimet(?:er|re)s?": 0.01,
    r"feet|foot|ft": 0.3048,
    # Elsewhere "in" is a word: "at 400 in the picture".
    r"inch(?:es)?|in(?=\s*(?:[.,;!)]|\Z))": 0.0254,
}
# A number starts neither inside another number nor inside a word. This keeps a search that fails
# linear in the length of the text.
_APART = r"(?<![\w.,:+\-\u2013\u2212])"
_SEVERAL = rf"(?:{_APART}({NUMBER})\s*(?:to|or|and|[-\u2013])\s*)?"
_LENGTH = re.compile(
    rf"{_SEVERAL}(?:{_APART}({NUMBER})|\b(nan|inf|infinity))\s*"
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


@dataclass(frozen=True)
class ObjectsWording:
    """Wording of questions about objects, of the kinds of SpatialRGPT-Bench.

    Attributes:
        region: text with {xmin}, {ymin}, {xmax} and {ymax}, text coordinates of an object's box;
            it replaces {a} and {b} in questions.
        relations: question by relation, all of `RELATIONS`, with {a} and {b}.
        yes: answer if the relation holds of a to b.
        no: answer if it does not.
        quantities: question by quantity, all of `QUANTITIES`, with {a}, and {b} for those of
            `DISTANCES`.
        metres: answer to them with {value}.
        decimals: of {value}.
        direction: question with {a} and {b}: where is b, seen from a?
        hour: answer with {value}, a whole number from 1 to 12: 12 o'clock is away from the camera,
            3 o'clock to its right.

    Raises:
        PromptError: if a relation, a quantity or a placeholder is missing or unknown.
    """

    task: ClassVar[str] = "objects"

    region: str
    relations: Mapping[str, str]
    yes: str
    no: str
    quantities: Mapping[str, str]
    metres: str
    decimals: int
    direction: str
    hour: str

    def __post_init__(self) -> None:
        check_once("the region of objects", self.region, BOX)
        check_decimals(self.decimals)
        for what, texts, names in (
            ("relations", self.relations, RELATIONS),
            ("quantities", self.quantities, QUANTITIES),
        ):
            if sorted(texts) != sorted(names):
                raise PromptError(f"{what} of objects must be {', '.join(names)}")
        for name, text in {
            **self.relations,
            **self.quantities,
            "direction": self.direction,
        }.items():
            check_once(
                f"the question {name!r}", text, ("{a}",) if name in SIZES else ("{a}", "{b}")
            )
        check_answer("the answer in metres", self.metres, ("{value}",))
        check_answer("the answer with the hour", self.hour, ("{value}",))
        if not self.yes.strip() or self.yes == self.no:
            raise PromptError("yes and no must be two different texts")

    def templates(self) -> list[str]:
        """Return all templates of questions and answers, regions filled in."""
        questions = (*self.relations.values(), *self.quantities.values(), self.direction)
        asked = [re.sub(r"\{[ab]\}", lambda _: self.region, question) for question in questions]
        return [*asked, self.yes, self.no, self.metres, self.hour]


def object_question(
    wording: ObjectsWording, template: str, boxes: Iterable[ArrayLike], text_range: int
) -> str:
    """Word a question about one or two objects.

    Args:
        wording: of the checkpoint.
        template: one of its questions.
        boxes: (xmin, ymin, xmax, ymax) in text coordinates, for {a} and, if the question is about
            two objects, {b}.
        text_range: of the prompt set.

    Raises:
        PromptError: if a coordinate does not lie in [0, text_range).
    """
    for name, box in zip(("{a}", "{b}"), boxes, strict=False):
        region = wording.region
        for placeholder, value in zip(BOX, map(int, np.asarray(box)), strict=True):
            if not 0 <= value < text_range:
                raise PromptError(f"{value} is outside of the text range [0, {text_range})")
            region = region.replace(placeholder, str(value))
        template = template.replace(name, region)
    return template


def relation_answer(wording: ObjectsWording, holds: bool) -> str:
    """Return the answer that a model learns to give to whether a relation holds."""
    return wording.yes if holds else wording.no


def metres_answer(wording: ObjectsWording, metres: float) -> str:
    """Word the answer that a model learns to give for a length in metres.

    Raises:
        PromptError: if it is not finite, or not positive at the answer's decimals.
    """
    value = f"{metres:.{wording.decimals}f}"
    if not math.isfinite(metres) or float(value) <= 0:
        raise PromptError(f"a length of {metres} m cannot be worded as {value!r}")
    return wording.metres.replace("{value}", value)


def hour_answer(wording: ObjectsWording, hour: int) -> str:
    """Word the answer that a model learns to give for a direction on the face of a clock.

    Raises:
        PromptError: if the hour is not from 1 to 12.
    """
    if not 1 <= hour <= 12:
        raise PromptError(f"an hour of {hour} is not on a clock")
    return wording.hour.replace("{value}", str(hour))


def parse_relation(text: str) -> bool:
    """Read whether a relation holds, from the first words of an answer in any wording.

    Accepts "Yes" and "No", and the first words of SpatialRGPT's templates ("Indeed", "Correct",
    "That is True"; "Incorrect", "In fact", "Actually", "That is False"). Tags are ignored.

    Raises:
        AnswerError: if it begins with none of them, if the opposite follows, or if the text is too
            long.
    """
    match = _WORDS.search(_TAG.sub(" ", final_text(text)))
    words = match.group() if match else ""
    holds = _YES.match(words) is not None
    if not holds and not _NO.match(words):
        raise AnswerError(text, "no answer")
    if _OPPOSITE[holds].search(words):
        raise AnswerError(text, "several answers")
    return holds


def parse_length(text: str) -> float:
    """Read metres from the one number with a unit, finite and at least 0, in any wording.

    The unit may be metres, centimetres, feet or inches. Numbers without a unit, such as the
    coordinates of a box, are ignored.

    Raises:
        AnswerError: if no number has such a unit, if there are different lengths or a range of
            lengths, if the number is no length, or if the text is too long.
    """

    def length(match: tuple[str, ...]) -> float:
        other, number, not_finite, *units = match
        if other:
            raise AnswerError(text, "several answers")
        named = zip(units, _METRES_PER_UNIT.values(), strict=True)
        factor = next(metres for unit, metres in named if unit)
        return check_length(parse_number(number or not_finite, BARE_NUMBER, text) * factor, text)

    return read_value(text, _LENGTH, length)


def parse_hour(text: str) -> int:
    """Read the hour, 1 to 12, from the one "o'clock" in an answer, in any wording.

    Raises:
        AnswerError: if there is no hour or there are different ones, if it is on no clock, or if
            the text is too long.
    """

    def hour(match: tuple[str, str]) -> int:
        if match[0]:
            raise AnswerError(text, "several answers")
        if not 1 <= int(match[1]) <= 12:
            raise AnswerError(text, "out of range")
        return int(match[1])

    return read_value(text, _HOUR, hour)
