"""Typed values out of the text that a model answered."""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import Literal

from vlm3_ros.language.prompts import PromptSet

Reason = Literal[
    "no answer",
    "several answers",
    "not a number",
    "not finite",
    "not positive",
    "out of range",
    "too long",
]

MAX_CHARACTERS = 100_000
"""Longer texts are runaway generations, not answers."""

NEAREST_METRES, FARTHEST_METRES = 1e-6, 1e6
"""No camera measures beyond; within, a depth survives float32 and every later scaling."""

_SHOWN_CHARACTERS = 80
_THINKING_ENDS = "</think>"
_METRES = re.compile(
    r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?)(?:\s*(?:m|met(?:er|re)s?))?",
    re.ASCII | re.IGNORECASE,
)
_NOT_FINITE = re.compile(r"[+-]?(?:nan|inf|infinity)", re.IGNORECASE)


class AnswerError(ValueError):
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
    if len(text) > MAX_CHARACTERS:
        raise AnswerError(text, "too long")
    spoken = text.rpartition(_THINKING_ENDS)[2]
    answers = _answer_pattern(prompts.depth.answer).findall(spoken)
    if not answers:
        raise AnswerError(text, "no answer")
    values = [_metres(answer, text) for answer in answers]
    if len(set(values)) > 1:
        raise AnswerError(text, "several answers")
    return values[0]


@lru_cache(maxsize=64)
def _answer_pattern(template: str) -> re.Pattern[str]:
    """Finds what a text has in the place of {value}, enclosed as in the template."""
    before, after = template.split("{value}")
    opening_tag = re.search(r"<[^<>]*>\s*\Z", before)
    closing_tag = re.match(r"\s*<[^<>]*>", after)
    opening = re.escape((opening_tag.group() if opening_tag else before).strip())
    closing = re.escape((closing_tag.group() if closing_tag else after).strip())
    # Stopping at the next opening keeps the search linear in the length of the text.
    return re.compile(f"{opening}((?:(?!{opening}).)*?){closing}", re.DOTALL)


def _metres(answer: str, text: str) -> float:
    if _NOT_FINITE.fullmatch(answer.strip()):
        raise AnswerError(text, "not finite")
    number = _METRES.fullmatch(answer.strip())
    if not number:
        raise AnswerError(text, "not a number")
    value = float(number[1])
    if not math.isfinite(value):
        raise AnswerError(text, "not finite")
    if value <= 0:
        raise AnswerError(text, "not positive")
    if not NEAREST_METRES <= value <= FARTHEST_METRES:
        raise AnswerError(text, "out of range")
    return value
