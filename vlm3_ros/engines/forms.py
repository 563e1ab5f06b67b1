# SPDX-License-Identifier: Apache-2.0
"""The form of a model's answers: the text around their number, learned from free answers.

A form is the text of an answer with {value} in place of its number, which may occur several times.
A checkpoint's profile has a template of it, but the model may use another form: with thoughts that
repeat the number, or with other white space. Answers are forced into the form that the model uses.
"""

from __future__ import annotations

import logging
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import compress

from vlm3_ros.engines.base import Answer
from vlm3_ros.engines.numbers import NUMBER
from vlm3_ros.language.answers import METRES, AnswerError, final_text, value_pattern

logger = logging.getLogger(__name__)

VALUE = "{value}"

SAMPLES = 4
"""Free answers from which a form is learned."""

CHECK_EVERY = 50
"""Forced calls between two checks of a form that has proven itself."""

_SHOWN_CHARACTERS = 200
_NUMBERS = re.compile(r"([0-9]+(?:\.[0-9]+)?)")


class FormError(Exception):
    """No form can be learned from answers; the text says why."""


def follows(form: str, answer: Answer) -> bool:
    """Return whether an answer has a form, ignoring white space.

    An answer that was cut off follows the form if its number is complete.
    """
    if answer.is_cut:
        start = re.match(re.escape(form.partition(VALUE)[0]) + f"({NUMBER})", answer.text)
        return (
            start is not None
            and start.end() < len(answer.text)
            and form.replace(VALUE, start[1]).startswith(answer.text)
        )
    return _pattern(form).fullmatch(answer.text) is not None


def learn_form(template: str, texts: Sequence[str]) -> str | None:
    """Learn the form of answers to several questions.

    Numbers that are equal in all texts are constant text. Where white space varies, the form has
    the most frequent variant; in a tie, the first.

    Args:
        template: form in the checkpoint's profile; its marks enclose the answer's number.
        texts: whole answers.

    Returns:
        None if all texts have the same number: it cannot be told from constant text then.

    Raises:
        FormError: if the texts differ by more than their numbers, or hold other numbers that vary.
    """
    numbers = [_answer_number(template, text) for text in texts]
    parts = [_NUMBERS.split(text) for text in texts]
    if len({tuple(_squeezed(part) for part in split[::2]) for split in parts}) > 1:
        raise FormError("words differ between answers")
    columns = list(zip(*(split[1::2] for split in parts), strict=True))
    varies = [len(set(column)) > 1 for column in columns]
    for column in compress(columns, varies):
        for number, answer in zip(column, numbers, strict=True):
            if number != answer:
                raise FormError(f"it holds {number}, which varies and is not the answer {answer}")
    if len(set(numbers)) == 1:
        return None
    ((common, _),) = Counter(tuple(split[::2]) for split in parts).most_common(1)
    texts_between = [VALUE if v else column[0] for v, column in zip(varies, columns, strict=True)]
    pairs = zip(common, [*texts_between, ""], strict=True)
    return "".join(text for pair in pairs for text in pair)


class FormLearner:
    """Learns the form of a model's answers under one template, checks it, and learns it anew.

    In every call, ask what `questions` yields without a form, give the answers to `observe`, then
    force all answers into `form`.
    """

    def __init__(
        self,
        model: str,
        template: str,
        refusal: Callable[[str], str | None] = lambda form: None,
    ) -> None:
        """Start without a form.

        Args:
            model: name of the model in the log.
            template: form in the checkpoint's profile.
            refusal: returns why answers cannot be forced into a form; None if they can.
        """
        self.form: str | None = None
        """Form to force answers into; None: answers are free."""
        self._model = model
        self._template = template
        self._refusal = refusal
        self._samples: Counter[str] = Counter()
        self._is_learning = True
        self._calls_left = 0
        """Calls until the next check of the form, or until the next try to learn one."""
        self._pause = 1
        """Calls between checks, or between tries; doubles while their result stays the same."""
        self._checks = 0
        self._logged: str | None = template

    def force_template(self) -> None:
        """Use the template as the form, whatever the model says, and never check it."""
        self.form = self._template
        self._wait(sys.maxsize)

    def questions(self, count: int) -> Iterator[list[int]]:
        """Yield indices of questions to answer freely, before the others are answered.

        `observe` their answers before the next ones are taken.

        Args:
            count: number of questions of the call.
        """
        self._calls_left -= 1
        if not self._is_learning and self._calls_left > 0:
            return
        asked = []
        if self.form is not None:
            # Multiples of the golden ratio spread checks over the places of a grid.
            asked = [int(self._checks * 0.618034 % 1 * count)]
            self._checks += 1
            yield list(asked)
        else:
            self._is_learning = True
        while self._is_learning and len(asked) < count:
            others = [i for i in range(count) if i not in asked]
            # One answer in the template's form suffices. Otherwise several are needed, and more
            # while their numbers are equal.
            needed = max(1, len(asked), SAMPLES - self._samples.total())
            needed = min(needed if asked or self._samples else 1, len(others))
            chosen = [others[k * len(others) // needed] for k in range(needed)]
            yield chosen
            asked += chosen

    def observe(self, answers: Sequence[Answer]) -> None:
        """Learn from free answers, or check the form by them."""
        answers = [answer for answer in answers if answer.fault is None]
        if not answers:
            return
        if self.form is None:
            self._learn(answers)
        elif all(follows(self.form, answer) for answer in answers):
            self._wait(min(2 * self._pause, CHECK_EVERY))
        else:
            self.form = None
            self._is_learning = True
            self._pause = 1

    def _learn(self, answers: Sequence[Answer]) -> None:
        try:
            form = self._form_of(answers)
            if form is not None and (reason := self._refusal(form)):
                raise FormError(reason)
        except FormError as error:
            self._wait(self._pause)
            self._pause = min(2 * self._pause, CHECK_EVERY)
            if self._logged is not None:
                logger.warning(
                    "%s answers %r, which does not match the form %r, and no other form can be "
                    "learned (%s): its answers are decoded as free text, without standard "
                    "deviations",
                    self._model,
                    _shown(answers[-1].text),
                    self._template,
                    error,
                )
            self._logged = None
            return
        if form is None:
            return
        # The profile's own form needs no proof.
        self._wait(CHECK_EVERY if form == self._template else 1)
        self.form = form
        if self._logged != form:
            logger.info(
                "%s answers %r: numbers are forced into this form", self._model, _shown(form)
            )
        self._logged = form

    def _form_of(self, answers: Sequence[Answer]) -> str | None:
        """Return the form of these answers and earlier ones; None if more are needed."""
        if not self._samples and all(_has_exactly(self._template, answer) for answer in answers):
            return self._template
        if any(answer.is_cut for answer in answers):
            raise FormError("max_new_tokens cut it off")
        self._samples.update(answer.text for answer in answers)
        # Bounded, even if the model always answers the same.
        self._samples = Counter({text: min(n, SAMPLES) for text, n in self._samples.items()})
        form = learn_form(self._template, list(self._samples.elements()))
        return form if self._samples.total() >= SAMPLES else None

    def _wait(self, calls: int) -> None:
        self._samples.clear()
        self._is_learning = False
        self._pause = self._calls_left = calls


def _has_exactly(form: str, answer: Answer) -> bool:
    """Return whether an answer has a form, with the same white space except at its end."""
    if answer.is_cut:
        return follows(form, answer)
    match = _pattern(form).fullmatch(answer.text)
    return match is not None and form.replace(VALUE, match[1]).rstrip() == answer.text.rstrip()


def _answer_number(template: str, text: str) -> str:
    """Return the number at {value} of a template, as it is written in an answer.

    It must have the template's unit and grammar: the text around forced numbers is not read.

    Raises:
        FormError: if the text has no such number, or several that differ.
    """
    try:
        marked = value_pattern(template).findall(final_text(text))
    except AnswerError as error:
        raise FormError(error.reason) from None
    matches = [METRES.fullmatch(part.strip()) for part in marked]
    numbers = {match[1] for match in matches if match}
    if not matches or None in matches or len(numbers) != 1:
        raise FormError("it has no single number where the form has it")
    number: str = numbers.pop()
    if not re.fullmatch(NUMBER, number):
        raise FormError(f"{number} is not written as numbers of the form are")
    return number


@lru_cache(maxsize=64)
def _pattern(form: str) -> re.Pattern[str]:
    """Compile a pattern for answers of a form with any white space; its group is the number."""
    first, *others = (r"\s*".join(map(re.escape, _squeezed(part))) for part in form.split(VALUE))
    rest = r"\s*\1\s*".join(others)
    return re.compile(rf"\s*{first}\s*({NUMBER})\s*{rest}\s*")


def _squeezed(text: str) -> str:
    return "".join(text.split())


def _shown(text: str) -> str:
    half = _SHOWN_CHARACTERS // 2
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:half]} ... {text[-half:]}"
