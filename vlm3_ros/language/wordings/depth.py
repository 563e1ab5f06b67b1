# SPDX-License-Identifier: Apache-2.0
"""Metric depth in words (paper section 3.2): the question about a pixel, and its answer."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, SupportsInt

from vlm3_ros.language.answers import (
    FARTHEST_METRES,
    METRES,
    NEAREST_METRES,
    AnswerError,
    parse_number,
    read_value,
    value_pattern,
)
from vlm3_ros.language.templates import (
    PromptError,
    after_thinking,
    check_answer,
    check_decimals,
    check_once,
    fill_point,
)


@dataclass(frozen=True)
class DepthWording:
    """Wording of metric depth; answers are in metres.

    Attributes:
        question: text with {x} and {y}, the text coordinates of the pixel.
        answer: text with {value}. The tags next to {value} mark the number in an answer, or all
            of the text if there are no tags. Thinking that ends in "</think>" may repeat {value};
            only the number after it is read.
        decimals: of an answer.

    Raises:
        PromptError: if a placeholder is missing or repeated outside of the thinking, or nothing
            encloses {value}.
    """

    task: ClassVar[str] = "depth"

    question: str
    answer: str
    decimals: int

    def __post_init__(self) -> None:
        check_once("the depth question", self.question, ("{x}", "{y}"))
        is_repeated = self.answer.count("{value}") > 1
        spoken = after_thinking(self.answer) if is_repeated else self.answer
        check_answer("the depth answer", spoken, ("{value}",))
        check_decimals(self.decimals)

    def templates(self) -> list[str]:
        """Return all templates of questions and answers."""
        return [self.question, self.answer]


def depth_question(
    wording: DepthWording, coordinates: Iterable[SupportsInt], text_range: int
) -> str:
    """Word the question for the depth of one pixel.

    Args:
        wording: of the checkpoint.
        coordinates: text coordinates (x, y), shape (2,).
        text_range: of the prompt set.

    Raises:
        PromptError: if they do not lie in [0, text_range).
    """
    return fill_point(wording.question, coordinates, text_range)


def depth_answer(wording: DepthWording, metres: float) -> str:
    """Word the answer that a model learns to give for a depth in metres.

    Raises:
        PromptError: if the depth is not finite, or not positive at the answer's decimals.
    """
    value = f"{metres:.{wording.decimals}f}"
    if not math.isfinite(metres) or float(value) <= 0:
        raise PromptError(f"a depth of {metres} m cannot be worded as {value!r}")
    return wording.answer.replace("{value}", value)


def parse_depth(text: str, wording: DepthWording) -> float:
    """Read a depth in metres, finite and positive.

    Any text may surround the answer, such as thinking before it. The number may carry the unit of
    metres.

    Raises:
        AnswerError: if the text does not follow the wording, if several numbers do and differ, if
            the number is no depth, or if the text is longer than `MAX_CHARACTERS`.
    """

    def depth(part: str) -> float:
        value = parse_number(part, METRES, text)
        if value <= 0:
            raise AnswerError(text, "not positive")
        if not NEAREST_METRES <= value <= FARTHEST_METRES:
            raise AnswerError(text, "out of range")
        return value

    return read_value(text, value_pattern(wording.answer), depth)
