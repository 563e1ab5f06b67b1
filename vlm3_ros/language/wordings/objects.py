# SPDX-License-Identifier: Apache-2.0
"""Objects in words (paper section 3.2): their relations, distances, sizes and directions."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from vlm3_ros.language.answers import (
    BARE_NUMBER,
    METRES_UNIT,
    NUMBER,
    AnswerError,
    check_length,
    one_value,
    parse_number,
)
from vlm3_ros.language.free_text import (
    APART,
    BETWEEN,
    FIRST_OF_TWO,
    GOES_ON,
    spoken_text,
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

Texts = str | Sequence[str]
"""A text, or several phrasings of it, of which the first is used."""

_METRES_PER_UNIT = {
    METRES_UNIT: 1.0,
    r"cm|centimet(?:er|re)s?": 0.01,
    r"feet|foot|ft": 0.3048,
    # Elsewhere "in" is a word: "at 400 in the picture".
    r"inch(?:es)?|in(?=\s*(?:[.,;!)]|\Z))": 0.0254,
}
_LENGTH = re.compile(
    rf"{FIRST_OF_TWO}(?:{APART}({NUMBER})|\b(nan|inf|infinity))\s*"
    rf"(?:{'|'.join(f'({unit})' for unit in _METRES_PER_UNIT)})(?![\w/]){GOES_ON}",
    re.IGNORECASE,
)
_FEET_AND_INCHES = re.compile(
    rf"{APART}([0-9]{{1,6}})\s*(?:feet|foot|ft\.?|['\u2019\u2032]),?\s*(?:and\s+)?"
    r"((?:1[01]|[0-9])(?:\.[0-9]+)?)\s*(?:inch(?:es)?\b|in(?=\s*(?:[.,;!)]|\Z))|[\"\u201d\u2033])",
    re.IGNORECASE,
)
_HOUR_NAMES = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_HOUR_WORDS = {word: hour for hour, word in enumerate((*_HOUR_NAMES, "eleven", "twelve"), start=1)}
_HOUR_WORD = "|".join(_HOUR_WORDS)
_HOUR = re.compile(
    rf"(?:{APART}({NUMBER}|{_HOUR_WORD})\s*{BETWEEN}\s*)?"
    rf"{APART}([0-9]{{1,4}}|{_HOUR_WORD})\s*o['\u2019]?\s?clock\b",
    re.IGNORECASE,
)
_TAG = re.compile(r"<[^<>]{1,32}>")
_WORDS = re.compile(r"[^\W_].*", re.DOTALL)
_YES = re.compile(r"(?:yes|indeed|correct|(?:that is )?true)\b", re.IGNORECASE)
_NO = re.compile(r"(?:no|incorrect|in fact|actually|(?:that is )?false)\b", re.IGNORECASE)
_OPPOSITE = {
    True: re.compile(r"\bno\b", re.IGNORECASE),
    False: re.compile(r"\byes\b", re.IGNORECASE),
}

# The same for answers in any form. "Right" claims only where it cannot be a direction, and "not
# sure" denies nothing.
_UNSURE = r"(?!\s(?:\w+\s)?(?:sure|certain|clear|possible|visible|enough|known|easy|obvious)\b)"
_CLAIM = re.compile(
    r"(?:\A|[.!?:;]\s[\W_]{0,8})"
    r"(?:(?:that|this|it|you|(?:the|my)\sanswer|the\sstatement)(?:['\u2019](?:s|re)|\sis|\sare)\s)?"
    r"(?:(yes|correct|affirmative|true|indeed(?!,?\snot\b)|right(?=\s?(?:[.,;:!]|\Z)))|"
    rf"(incorrect|wrong|false|no(?!\s(?:idea|answer|information))|not{_UNSURE}))\b",
    re.IGNORECASE,
)
_DENIAL_BEGINS = re.compile(r"(?:in fact|actually)\b", re.IGNORECASE)
_DENIED = re.compile(
    rf"\b(?:is|are|was|were|does|do|did|has|have)(?:\snot|n['\u2019]t)\b{_UNSURE}", re.IGNORECASE
)
_CONTRADICTION = {
    True: re.compile(
        r"\b(?:no|incorrect|wrong|false|not\s(?:true|correct|right))\b", re.IGNORECASE
    ),
    False: re.compile(
        r"\b(?:yes|affirmative|indeed|(?<!not\s)(?:true|correct)|not\s(?:wrong|false|incorrect))\b",
        re.IGNORECASE,
    ),
}


@dataclass(frozen=True)
class ObjectsWording:
    """Wording of questions about objects, of the kinds of SpatialRGPT-Bench.

    A question or an answer is one text, or a list of phrasings of which the first is used. Answers
    may name the objects as {a} and {b}, and may differ by relation or quantity.

    Attributes:
        region: text with {xmin}, {ymin}, {xmax} and {ymax}, text coordinates of an object's box;
            it replaces {a} and {b} in questions and answers.
        relations: question by relation, all of `RELATIONS`, with {a} and {b}.
        yes: answer if the relation holds of a to b; one for all, or by relation.
        no: answer if it does not; one for all, or by relation.
        quantities: question by quantity, all of `QUANTITIES`, with {a}, and {b} for those of
            `DISTANCES`.
        metres: answer to them with {value}; one for all, or by quantity.
        decimals: of {value}.
        direction: question with {a} and {b}: where is b, seen from a?
        hour: answer with {value}, a whole number from 1 to 12: 12 o'clock is away from the camera,
            3 o'clock to its right.
        any_form: whether answers may have further forms, see `parse_relation` and `parse_length`.

    Raises:
        PromptError: if a relation, a quantity or a placeholder is missing or unknown.
    """

    task: ClassVar[str] = "objects"

    region: str
    relations: Mapping[str, Texts]
    yes: Texts | Mapping[str, Texts]
    no: Texts | Mapping[str, Texts]
    quantities: Mapping[str, Texts]
    metres: Texts | Mapping[str, Texts]
    decimals: int
    direction: Texts
    hour: Texts
    any_form: bool = False

    def __post_init__(self) -> None:
        check_once("the region of objects", self.region, BOX)
        check_decimals(self.decimals)
        for what, texts, names in (
            ("relations", self.relations, RELATIONS),
            ("yes", self.yes, RELATIONS),
            ("no", self.no, RELATIONS),
            ("quantities", self.quantities, QUANTITIES),
            ("metres", self.metres, QUANTITIES),
        ):
            if isinstance(texts, Mapping) and sorted(texts) != sorted(names):
                raise PromptError(f"{what} of objects must be {', '.join(names)}")
        for name, texts in {
            **self.relations,
            **self.quantities,
            "direction": self.direction,
        }.items():
            for text in phrasings(texts):
                check_once(
                    f"the question {name!r}", text, ("{a}",) if name in SIZES else ("{a}", "{b}")
                )
        for quantity in QUANTITIES:
            for text in phrasings(self.metres, quantity):
                check_answer("the answer in metres", text, ("{value}",))
                if quantity in SIZES and "{b}" in text:
                    raise PromptError(f"the answer {text!r} to {quantity} must not hold {{b}}")
        for text in phrasings(self.hour):
            check_answer("the answer with the hour", text, ("{value}",))
        for relation in RELATIONS:
            yes, no = phrasings(self.yes, relation), phrasings(self.no, relation)
            if not all(map(str.strip, yes)) or set(yes) & set(no):
                raise PromptError("yes and no must be two different texts")

    @property
    def length_template(self) -> str | None:
        """The one form of all answers in metres; None if there are several or they name objects."""
        if isinstance(self.metres, str) and not re.search(r"\{[ab]\}", self.metres):
            return self.metres
        return None

    def templates(self) -> list[str]:
        """Return all templates of questions and answers, regions filled in."""
        texts = (
            *(text for name in self.relations for text in phrasings(self.relations, name)),
            *(text for name in self.quantities for text in phrasings(self.quantities, name)),
            *phrasings(self.direction),
            *(text for name in RELATIONS for text in phrasings(self.yes, name)),
            *(text for name in RELATIONS for text in phrasings(self.no, name)),
            *(text for name in QUANTITIES for text in phrasings(self.metres, name)),
            *phrasings(self.hour),
        )
        return list(
            dict.fromkeys(re.sub(r"\{[ab]\}", lambda _: self.region, text) for text in texts)
        )


def phrasings(texts: Texts | Mapping[str, Texts], name: str = "") -> Sequence[str]:
    """Return the phrasings of a question or an answer; the first is the one in use.

    Args:
        texts: one text, several phrasings, or either by name.
        name: of a relation or a quantity; needed if texts are by name.

    Raises:
        PromptError: if there is none.
    """
    chosen = texts[name] if isinstance(texts, Mapping) else texts
    if not chosen:
        raise PromptError(f"no text for {name or 'a question'} about objects")
    return (chosen,) if isinstance(chosen, str) else chosen


def object_question(
    wording: ObjectsWording, template: str, boxes: Iterable[ArrayLike], text_range: int
) -> str:
    """Word a question about one or two objects, or an answer that names them.

    Args:
        wording: of the checkpoint.
        template: one of its questions or answers.
        boxes: (xmin, ymin, xmax, ymax) in text coordinates, for {a} and, if the question is about
            two objects, {b}.
        text_range: of the prompt set.

    Raises:
        PromptError: if a coordinate does not lie in [0, text_range).
    """
    for name, box in zip(("{a}", "{b}"), boxes, strict=False):
        template = template.replace(name, object_region(wording, box, text_range))
    return template


def object_region(wording: ObjectsWording, box: ArrayLike, text_range: int) -> str:
    """Name an object by its box.

    Args:
        wording: of the checkpoint.
        box: (xmin, ymin, xmax, ymax) in text coordinates.
        text_range: of the prompt set.

    Raises:
        PromptError: if a coordinate does not lie in [0, text_range).
    """
    region = wording.region
    for placeholder, value in zip(BOX, map(int, np.asarray(box)), strict=True):
        if not 0 <= value < text_range:
            raise PromptError(f"{value} is outside of the text range [0, {text_range})")
        region = region.replace(placeholder, str(value))
    return region


def relation_answer(wording: ObjectsWording, relation: str, holds: bool) -> str:
    """Return the answer that a model learns to give to whether a relation holds.

    It may hold {a} and {b}.
    """
    return phrasings(wording.yes if holds else wording.no, relation)[0]


def metres_answer(wording: ObjectsWording, metres: float, quantity: str = DISTANCES[0]) -> str:
    """Word the answer that a model learns to give for a length in metres.

    It may hold {a} and {b}.

    Args:
        wording: of the checkpoint.
        metres: the length.
        quantity: one of `QUANTITIES`; it matters if the wording has an answer for each.

    Raises:
        PromptError: if it is not finite, or not positive at the answer's decimals.
    """
    value = f"{metres:.{wording.decimals}f}"
    if not math.isfinite(metres) or float(value) <= 0:
        raise PromptError(f"a length of {metres} m cannot be worded as {value!r}")
    return phrasings(wording.metres, quantity)[0].replace("{value}", value)


def hour_answer(wording: ObjectsWording, hour: int) -> str:
    """Word the answer that a model learns to give for a direction on the face of a clock.

    It may hold {a} and {b}.

    Raises:
        PromptError: if the hour is not from 1 to 12.
    """
    if not 1 <= hour <= 12:
        raise PromptError(f"an hour of {hour} is not on a clock")
    return phrasings(wording.hour)[0].replace("{value}", str(hour))


def parse_relation(text: str, any_form: bool = False) -> bool:
    """Read whether a relation holds, from the first words of an answer in any wording.

    Accepts "Yes" and "No", and the first words of SpatialRGPT's templates ("Indeed", "Correct",
    "That is True"; "Incorrect", "In fact", "Actually", "That is False"). Tags are ignored.

    Args:
        text: the model's whole text.
        any_form: also accept the other words of the authors' notebook ("affirmative", "right";
            "wrong", "not") at the beginning of any sentence, and sentences that deny the relation
            ("A is not smaller than B"). The authors take the first of these words wherever it
            stands; here "to the right of" is a direction, and "it is not clear" is no answer.

    Raises:
        AnswerError: if nothing says yes or no, if the text says both, or if it is too long.
    """
    match = _WORDS.search(_TAG.sub(" ", spoken_text(text)))
    words = match.group() if match else ""
    if any_form:
        return _claimed(text, words)
    holds = _YES.match(words) is not None
    if not holds and not _NO.match(words):
        raise AnswerError(text, "no answer")
    if _OPPOSITE[holds].search(words):
        raise AnswerError(text, "several answers")
    return holds


def _claimed(text: str, words: str) -> bool:
    """Return True if an answer claims the relation, False if it denies it.

    Args:
        text: the model's whole text, for errors.
        words: the answer without tags, from its first word on.

    Raises:
        AnswerError: if it does neither or both.
    """
    words = " ".join(words.split())
    claims = [bool(yes) for yes, _ in _CLAIM.findall(words)]
    if _DENIAL_BEGINS.match(words) or (not claims and _DENIED.search(words)):
        claims.append(False)
    holds = one_value(text, claims)
    if _CONTRADICTION[holds].search(words):
        raise AnswerError(text, "several answers")
    return holds


def parse_length(text: str, any_form: bool = False) -> float:
    """Read metres from the one number with a unit, finite and at least 0, in any wording.

    The unit may be metres, centimetres, feet or inches. Numbers without a unit, such as the
    coordinates of a box, are ignored.

    Args:
        text: the model's whole text.
        any_form: also accept feet and inches as one length, as "5 feet 3 inches".

    Raises:
        AnswerError: if no number has such a unit, if there are different lengths or a range of
            lengths, if the number is no length, or if the text is too long.
    """

    def length(match: tuple[str, ...]) -> float:
        before, number, not_finite, *units, after = match
        if before or after:
            raise AnswerError(text, "several answers")
        named = zip(units, _METRES_PER_UNIT.values(), strict=True)
        factor = next(metres for unit, metres in named if unit)
        return check_length(parse_number(number or not_finite, BARE_NUMBER, text) * factor, text)

    spoken = spoken_text(text)
    if any_form:
        spoken = _FEET_AND_INCHES.sub(_in_inches, spoken)
    return one_value(text, [length(match) for match in _LENGTH.findall(spoken)])


def holds_length(text: str) -> bool:
    """Return whether a text holds a number with a unit of length."""
    return _LENGTH.search(text) is not None


def _in_inches(match: re.Match[str]) -> str:
    return f"{12 * int(match[1]) + float(match[2])} inches"


def parse_hour(text: str) -> int:
    """Read the hour, 1 to 12, from the one "o'clock" in an answer, in digits or as a word.

    Raises:
        AnswerError: if there is no hour or there are different ones, if it is on no clock, or if
            the text is too long.
    """

    def hour(match: tuple[str, str]) -> int:
        if match[0]:
            raise AnswerError(text, "several answers")
        value = _HOUR_WORDS.get(match[1].lower()) or int(match[1])
        if not 1 <= value <= 12:
            raise AnswerError(text, "out of range")
        return value

    return one_value(text, [hour(match) for match in _HOUR.findall(spoken_text(text))])
