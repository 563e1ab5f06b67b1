# SPDX-License-Identifier: Apache-2.0
"""Pixel correspondence in words (paper section 3.2): a question about a pixel, and its answer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, SupportsInt

import numpy as np
from numpy.typing import NDArray

from vlm3_ros.language.answers import AnswerError, read_numbers
from vlm3_ros.language.free_text import read_tuple
from vlm3_ros.language.templates import THINKING_ENDS, check_answer, check_once, fill_point

_POINT = ("{x}", "{y}")


@dataclass(frozen=True)
class CorrespondenceWording:
    """Wording of pixel correspondence, in text coordinates.

    Attributes:
        question: text with {x} and {y}, of the pixel in the first image.
        answer: text with {x} and {y}, of the pixel in the second image.
        any_form: whether any answer that holds one pair of numbers is read, such as "338, 52".

    Raises:
        PromptError: if a placeholder is missing or repeated, or those of the answer are out of
            order or not enclosed in text.
    """

    task: ClassVar[str] = "correspondence"

    question: str
    answer: str
    any_form: bool = False

    def __post_init__(self) -> None:
        check_once("the correspondence question", self.question, _POINT)
        check_answer("the correspondence answer", self.answer, _POINT)

    def templates(self) -> list[str]:
        """Return all templates of questions and answers."""
        return [self.question, self.answer]


def correspondence_question(
    wording: CorrespondenceWording, coordinates: Iterable[SupportsInt], text_range: int
) -> str:
    """Word the question where a pixel of the first image is in the second one.

    Args:
        wording: of the checkpoint.
        coordinates: text coordinates (x, y) in the first image, shape (2,).
        text_range: of the prompt set.

    Raises:
        PromptError: if they do not lie in [0, text_range).
    """
    return fill_point(wording.question, coordinates, text_range)


def correspondence_answer(
    wording: CorrespondenceWording, coordinates: Iterable[SupportsInt], text_range: int
) -> str:
    """Word the answer that a model learns to give, from text coordinates in the second image.

    Raises:
        PromptError: if they do not lie in [0, text_range).
    """
    return fill_point(wording.answer, coordinates, text_range)


def parse_point(
    text: str, wording: CorrespondenceWording, text_range: int, may_be_cut: bool = True
) -> NDArray[np.float64]:
    """Read text coordinates (x, y) in the second image, shape (2,).

    They are whole numbers, or may have decimals if the wording allows any form.

    Args:
        text: the model's whole text.
        wording: of the checkpoint.
        text_range: of the prompt set.
        may_be_cut: whether the model may have been stopped in the middle of its answer; "338, 5"
            may then be the beginning of "338, 52".

    Raises:
        AnswerError: if the text does not follow the wording, if several points do and differ, if a
            coordinate is no whole number or not in [0, text_range), if the text is cut off, or if
            it is too long.
    """
    if wording.any_form:
        if may_be_cut and THINKING_ENDS in wording.answer and THINKING_ENDS not in text:
            raise AnswerError(text, "cut off")
        point = read_tuple(text, len(_POINT), 0, may_be_cut)
        # (0.34, 0.05) is more likely a share of the image than its first pixel.
        if max(point) <= 1 and not all(value.is_integer() for value in point):
            raise AnswerError(text, "not a whole number")
    else:
        point = read_numbers(text, wording.answer, _POINT, decimals=0)
        if not all(value.is_integer() for value in point):
            raise AnswerError(text, "not a whole number")
    if not all(0 <= value < text_range for value in point):
        raise AnswerError(text, "out of range")
    return np.array(point)
