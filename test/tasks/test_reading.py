# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from vlm3_ros.engines.base import Answer
from vlm3_ros.language.answers import AnswerError, Reason
from vlm3_ros.tasks.reading import Missing, answer_text, fault, faulty, read_answer


def refuse(reason: Reason) -> Missing:
    def parse(answer: Answer) -> float:
        raise AnswerError(answer.text, reason)

    missing = read_answer(Answer("a text", is_cut=True), parse)
    assert isinstance(missing, Missing)
    return missing


def test_a_value_is_returned() -> None:
    assert read_answer(Answer("2"), lambda answer: float(answer.text)) == 2


def test_a_text_that_cannot_be_read_keeps_the_reason() -> None:
    missing = refuse("several answers")
    assert missing == Missing("several answers", "a text")
    assert str(missing) == "several answers in the model's text 'a text'"


def test_a_text_without_answer_that_was_cut_off_lacks_its_end() -> None:
    assert refuse("no answer").reason == "cut off"
    assert len(str(Missing("cut off", "so " * 1000))) < 150


def test_a_question_that_the_engine_could_not_answer_is_not_read() -> None:
    answer = Answer("", fault="the device\nran out of memory")
    missing = read_answer(answer, lambda answer: pytest.fail("it has no text"))
    assert missing == Missing("the device ran out of memory", str(missing), is_fault=True)
    assert answer_text(answer) == "[the device\nran out of memory]"
    assert faulty([None, missing, Missing("cut off", "")]).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "http://10.0.0.1:8000/v1 did not answer within request_timeout (10 s)",
            "did not answer within request_timeout",
        ),
        (
            "http://a/v1 answers 503 Service Unavailable: no slot 17",
            "answers 503 Service Unavailable",
        ),
        ("http://a/v1 cannot be reached (refused): is the server running?", "cannot be reached"),
        ("a.jsonl has no answer to this question", "a.jsonl has no answer to this question"),
    ],
)
def test_faults_of_one_kind_have_one_reason(text: str, reason: str) -> None:
    assert fault(text) == Missing(reason, text, is_fault=True)
