# SPDX-License-Identifier: Apache-2.0
"""How many questions were answered, and why the others were not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from vlm3_ros.errors import NoAnswersError
from vlm3_ros.evaluation.tables import TextTable
from vlm3_ros.language.answers import shortened
from vlm3_ros.tasks.reading import Missing

_MAX_REASONS = 3
"""Reasons in a note; metrics.json has all."""


@dataclass(frozen=True)
class Reason:
    """How often a reason occurred, and one text."""

    count: int
    sample: str

    def after(self, earlier: Reason | None) -> Reason:
        """Add the count of an earlier one, and keep its sample."""
        return self if earlier is None else Reason(earlier.count + self.count, earlier.sample)


@dataclass(frozen=True)
class AnswerCounts:
    """Questions of a task by what became of them.

    Attributes:
        asked: number of questions.
        unreadable: answers without a value, by what is wrong with the model's text. They count as
            wrong.
        faults: questions that the engine could not answer, such as those that timed out, by its
            fault. They are not scored.
    """

    asked: int = 0
    unreadable: Mapping[str, Reason] = field(default_factory=dict)
    faults: Mapping[str, Reason] = field(default_factory=dict)

    @property
    def unreadable_count(self) -> int:
        """Number of answers without a value."""
        return sum(reason.count for reason in self.unreadable.values())

    @property
    def fault_count(self) -> int:
        """Number of questions that the engine could not answer."""
        return sum(reason.count for reason in self.faults.values())

    @property
    def answered(self) -> int:
        """Number of questions with a value."""
        return self.asked - self.unreadable_count - self.fault_count

    @property
    def is_void(self) -> bool:
        """Whether scores would mislead.

        They do if the engine could not answer most questions, or if no answer could be read.
        """
        return self.asked > 0 and (2 * self.fault_count > self.asked or not self.answered)

    def __add__(self, other: AnswerCounts) -> AnswerCounts:
        return AnswerCounts(
            self.asked + other.asked,
            _merged(self.unreadable, other.unreadable),
            _merged(self.faults, other.faults),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the entry of the task in metrics.json."""
        return {
            "asked": self.asked,
            "answered": self.answered,
            "unreadable": {name: asdict(reason) for name, reason in self.unreadable.items()},
            "faults": {name: asdict(reason) for name, reason in self.faults.items()},
        }

    def complaint(self) -> str:
        """Return what is missing, why, and what to do, in one line."""
        if 2 * self.fault_count > self.asked or self.fault_count > self.unreadable_count:
            return (
                f"{self.fault_count} of {self.asked} questions had no answer from the engine: "
                f"{_main(self.faults)} (make the engine answer; for a slow server raise "
                "request_timeout and frame_timeout, for a busy one lower concurrency)"
            )
        advice = "does the profile fit the model? Set profile, or ask another model"
        if _ranked(self.unreadable)[0][0] == "cut off":
            advice = "raise max_new_tokens"
        return (
            f"{self.unreadable_count} of {self.asked} answers could not be read: "
            f"{_main(self.unreadable)} ({advice})"
        )


def count_answers(asked: int, missing: Iterable[Missing | None]) -> AnswerCounts:
    """Count the answers of one result.

    Args:
        asked: number of questions.
        missing: why questions have no value; None entries do not count.
    """
    by_kind: tuple[dict[str, Reason], dict[str, Reason]] = {}, {}
    for one in filter(None, missing):
        reasons = by_kind[one.is_fault]
        sample = one.text if one.is_fault else repr(shortened(one.text))
        reasons[one.reason] = Reason(1, sample).after(reasons.get(one.reason))
    return AnswerCounts(asked, *by_kind)


def total(counts: Iterable[AnswerCounts]) -> AnswerCounts:
    """Add up counts."""
    return sum(counts, AnswerCounts())


def check_answered(counts: Mapping[str, AnswerCounts]) -> None:
    """Check that a run has enough answers to be scored.

    Raises:
        NoAnswersError: if the engines could not answer most questions, no answer could be read, or
            no task can be scored.
    """
    of_all = total(counts.values())
    asked = [of_task for of_task in counts.values() if of_task.asked]
    if of_all.is_void or (asked and all(of_task.is_void for of_task in asked)):
        raise NoAnswersError(f"nothing was scored: {of_all.complaint()}")


def void_tasks(counts: Mapping[str, AnswerCounts]) -> dict[str, str]:
    """Return why tasks cannot be scored, by task."""
    return {task: one.complaint() for task, one in counts.items() if one.is_void}


def answers_table(counts: Mapping[str, AnswerCounts]) -> TextTable:
    """Return a table with a row per task."""
    return TextTable(
        "answers",
        ("", "asked", "answered", "unreadable", "faults"),
        tuple(
            (task, *map(str, (one.asked, one.answered, one.unreadable_count, one.fault_count)))
            for task, one in counts.items()
        ),
        "Unreadable answers count as wrong. Faults: the engine had no answer; not scored.",
        has_baselines=False,
    )


def answer_notes(counts: Mapping[str, AnswerCounts]) -> dict[str, str]:
    """Return the reasons for missing answers, by title."""
    notes = {}
    for task, one in counts.items():
        for title, reasons in (
            ("unreadable answers", one.unreadable),
            ("questions without an answer", one.faults),
        ):
            if reasons:
                notes[f"{title}: {task}"] = "; ".join(
                    map(_counted_words, _ranked(reasons)[:_MAX_REASONS])
                )
    return notes


def missing_sentences(counts: Mapping[str, AnswerCounts]) -> list[str]:
    """Return the sentences that lead the verdict of a run without answers to many questions."""
    sentences = []
    of_all = total(counts.values())
    if of_all.faults:
        sentences.append(
            f"Incomplete: {of_all.fault_count} of {of_all.asked} questions had no answer from the "
            f"engine: {_main(of_all.faults)}."
        )
    for task, one in counts.items():
        if 2 * one.unreadable_count > one.asked and not one.is_void:
            sentences.append(
                f"Mostly unreadable: {one.unreadable_count} of {one.asked} answers about {task}: "
                f"{_main(one.unreadable)}."
            )
    return sentences


def _merged(one: Mapping[str, Reason], other: Mapping[str, Reason]) -> dict[str, Reason]:
    merged = dict(one)
    for name, reason in other.items():
        merged[name] = reason.after(merged.get(name))
    return merged


def _ranked(reasons: Mapping[str, Reason]) -> list[tuple[str, Reason]]:
    return sorted(reasons.items(), key=lambda item: -item[1].count)


def _main(reasons: Mapping[str, Reason]) -> str:
    """The most frequent reason in words."""
    first, *others = _ranked(reasons)
    return _counted_words(first) if others else _words(*first)


def _counted_words(item: tuple[str, Reason]) -> str:
    count = item[1].count
    return f"{count} times {_words(*item)}" if count > 1 else f"once {_words(*item)}"


def _words(name: str, reason: Reason) -> str:
    # The sample of a fault often holds the name.
    return reason.sample if name in reason.sample else f"{name}, such as {reason.sample}"
