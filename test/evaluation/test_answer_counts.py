# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from vlm3_ros.errors import NoAnswersError
from vlm3_ros.evaluation.answer_counts import (
    AnswerCounts,
    answer_notes,
    answers_table,
    check_answered,
    count_answers,
    missing_sentences,
    total,
    void_tasks,
)
from vlm3_ros.tasks.reading import Missing, fault

UNREAD = Missing("no answer", "a chair")
CUT = Missing("cut off", "it is")
TIMEOUT = fault("http://a/v1 did not answer within request_timeout (10 s)")
LOST = fault("http://a/v1 cannot be reached (refused)")


def counts(asked: int, *missing: Missing) -> AnswerCounts:
    return count_answers(asked, [None, *missing])


def test_reasons_are_counted_with_their_first_text() -> None:
    other = Missing("no answer", "a table")
    both = total([counts(5, UNREAD, TIMEOUT), counts(4, other, UNREAD, LOST, TIMEOUT)])
    assert both.to_json() == {
        "asked": 9,
        "answered": 3,
        "unreadable": {"no answer": {"count": 3, "sample": "'a chair'"}},
        "faults": {
            "did not answer within request_timeout": {"count": 2, "sample": TIMEOUT.text},
            "cannot be reached": {"count": 1, "sample": LOST.text},
        },
    }
    assert answers_table({"depth": both}).rows == (("depth", "9", "3", "3", "3"),)
    assert answer_notes({"depth": both, "pose": counts(3)}) == {
        "unreadable answers: depth": "3 times no answer, such as 'a chair'",
        "questions without an answer: depth": f"2 times {TIMEOUT.text}; once {LOST.text}",
    }


def test_an_incomplete_run_says_so() -> None:
    assert missing_sentences({"depth": counts(9, UNREAD)}) == []
    of_tasks = {"depth": counts(500, *[TIMEOUT] * 12), "pose": counts(3)}
    assert missing_sentences(of_tasks) == [
        f"Incomplete: 12 of 503 questions had no answer from the engine: {TIMEOUT.text}."
    ]
    of_tasks["pose"] = counts(3, LOST)
    assert (
        f"13 of 503 questions had no answer from the engine: 12 times {TIMEOUT.text}."
        in (missing_sentences(of_tasks)[0])
    )


def test_a_run_whose_answers_are_mostly_unreadable_says_so() -> None:
    of_tasks = {"depth": counts(5, UNREAD, UNREAD, CUT), "pose": counts(2, UNREAD)}
    assert missing_sentences(of_tasks) == [
        "Mostly unreadable: 3 of 5 answers about depth: 2 times no answer, such as 'a chair'."
    ]


@pytest.mark.parametrize(
    ("of_task", "is_void"),
    [
        (counts(0), False),
        (counts(4, TIMEOUT, LOST), False),
        (counts(4, TIMEOUT, TIMEOUT, LOST), True),
        (counts(4, UNREAD, UNREAD, CUT), False),
        (counts(3, UNREAD, UNREAD, CUT), True),
        (counts(3, UNREAD, UNREAD, LOST), True),
    ],
)
def test_wrong_answers_are_scored_and_missing_ones_are_not(
    of_task: AnswerCounts, is_void: bool
) -> None:
    assert of_task.is_void == is_void
    if is_void:
        with pytest.raises(NoAnswersError, match=r"^nothing was scored: "):
            check_answered({"depth": of_task})
    else:
        check_answered({"depth": of_task})


def test_a_task_without_answers_leaves_the_others() -> None:
    of_tasks = {"depth": counts(20), "pose": counts(3, LOST, LOST), "objects": counts(0)}
    check_answered(of_tasks)
    assert list(void_tasks(of_tasks)) == ["pose"]
    assert "2 of 3 questions had no answer" in void_tasks(of_tasks)["pose"]
    with pytest.raises(NoAnswersError):
        check_answered({"depth": counts(3, LOST, LOST), "objects": counts(9, *[UNREAD] * 9)})


def test_the_error_says_what_to_do() -> None:
    assert "for a slow server raise request_timeout" in counts(2, TIMEOUT, LOST).complaint()
    assert "set profile" in counts(1, UNREAD).complaint().lower()
    assert "raise max_new_tokens" in counts(3, UNREAD, CUT, CUT).complaint()
