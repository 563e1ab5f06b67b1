# SPDX-License-Identifier: Apache-2.0
"""Read answers, and keep the reason where there is none: the same for every task."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from vlm3_ros.engines.base import Answer
from vlm3_ros.language.answers import AnswerError, shortened

Value = TypeVar("Value")

_ADDRESS = re.compile(r"https?://\S+\s*")


@dataclass(frozen=True)
class Missing:
    """Why a question has no value.

    Attributes:
        reason: in a few words; the same for all questions that fail in the same way.
        text: the model's text; the whole fault if the engine had no answer.
        is_fault: whether the engine had no answer. Otherwise its text could not be read.
    """

    reason: str
    text: str
    is_fault: bool = False

    def __str__(self) -> str:
        if self.is_fault:
            return self.text
        return f"{self.reason} in the model's text {shortened(self.text)!r}"


def read_answer(answer: Answer, parse: Callable[[Answer], Value]) -> Value | Missing:
    """Read one answer.

    Args:
        answer: of an engine.
        parse: reads an answer without fault; raises AnswerError if it cannot.
    """
    if answer.fault is not None:
        return fault(answer.fault)
    try:
        return parse(answer)
    except AnswerError as error:
        # A text without an answer may only lack its end.
        is_cut = answer.is_cut and error.reason == "no answer"
        return Missing("cut off" if is_cut else error.reason, answer.text)


def fault(text: str) -> Missing:
    """Return the reason of a question that the engine could not answer, by the engine's words."""
    line = " ".join(text.split())
    reason = re.split(r": | \(", _ADDRESS.sub("", line), maxsplit=1)[0]
    return Missing(reason, line, is_fault=True)


def faulty(missing: Sequence[Missing | None]) -> NDArray[np.bool_]:
    """Mask of the questions that the engine could not answer, shape (n,)."""
    return np.array([one is not None and one.is_fault for one in missing], dtype=bool)


def answer_text(answer: Answer) -> str:
    """Return the model's text; the fault in brackets if the engine had no answer."""
    return answer.text if answer.fault is None else f"[{answer.fault}]"
