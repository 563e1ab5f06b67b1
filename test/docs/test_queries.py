# SPDX-License-Identifier: Apache-2.0
"""The questions and the answer in docs/queries.md are valid."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

from vlm3_ros.language.wordings.objects import RELATIONS
from vlm3_ros.tasks.queries import QueryAnswer, TextQuery, refused
from vlm3_ros.tasks.query_json import answer_json, parse_question

PAGE = (Path(__file__).parents[2] / "docs" / "queries.md").read_text()
QUESTIONS, ANSWER = re.findall(r"```json\n(.*?)\n```", PAGE, re.DOTALL)


def test_the_questions_are_understood() -> None:
    asked = [parse_question(line).query for line in QUESTIONS.splitlines()]
    assert len(asked) == 8
    assert not any(isinstance(query, TextQuery) for query in asked)


def test_the_answer_has_the_form_of_answers() -> None:
    shown = json.loads(ANSWER)
    assert list(shown) == list(json.loads(answer_json(refused("why"), "what")))
    values = {field.name: shown[field.name] for field in fields(QueryAnswer)}
    stamp = shown["stamp"]["sec"], shown["stamp"]["nanosec"]
    text = answer_json(QueryAnswer(**values), shown["question"], shown["id"], shown["frame"], stamp)
    assert json.loads(text) == shown


def test_every_relation_is_named() -> None:
    assert all(f"`{relation}`" in PAGE for relation in RELATIONS)
