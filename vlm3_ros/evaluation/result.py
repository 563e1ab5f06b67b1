# SPDX-License-Identifier: Apache-2.0
"""The result of an evaluation, the same for every source: metrics.json, tables and a verdict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from vlm3_ros.evaluation.answer_counts import (
    AnswerCounts,
    answer_notes,
    answers_table,
    missing_sentences,
)
from vlm3_ros.evaluation.scores.base import Scores, TaskScores
from vlm3_ros.evaluation.tables import TextTable

LEFT_OUT = "left out: "
"""How the note begins that says why tasks have no scores."""


@dataclass(frozen=True)
class Result:
    """What an evaluation found.

    Attributes:
        models: names of the checkpoints by their key in metrics.json, such as "model".
        title: model and data in one line.
        source: what was evaluated: its kind ("bag", "jsonl", "scenes"), its name and more.
        scores: by task, in the order in which they are shown.
        left_out: why tasks have no scores, by task.
        notes: what else a reader must know, by title.
        answers: what became of the questions, by task.
    """

    models: Mapping[str, str]
    title: str
    source: Mapping[str, Any]
    scores: Mapping[str, TaskScores[Scores]]
    left_out: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    answers: Mapping[str, AnswerCounts] = field(default_factory=dict)

    @property
    def all_notes(self) -> dict[str, str]:
        """Notes, first those on missing answers and on tasks without scores."""
        reasons: dict[str, list[str]] = {}
        for task, reason in self.left_out.items():
            reasons.setdefault(reason, []).append(task)
        left_out = {f"{LEFT_OUT}{', '.join(tasks)}": reason for reason, tasks in reasons.items()}
        return {**answer_notes(self.answers), **left_out, **self.notes}


def joined_names(names: Iterable[str]) -> str:
    """Join names of models, each once: A, B and C."""
    *others, last = dict.fromkeys(names)
    return f"{', '.join(others)} and {last}" if others else last


def result_json(result: Result) -> dict[str, Any]:
    """Return the content of metrics.json.

    Every task has its name as key. `baselines.NAME.TASK` holds the baselines, `groups.GROUP` the
    same again for each group.
    """
    overall = {task: scores.overall for task, scores in result.scores.items()}
    groups: dict[str, dict[str, Scores]] = {}
    for task, scores in result.scores.items():
        for group, of_group in scores.groups.items():
            groups.setdefault(group, {})[task] = of_group
    answers = {task: counts.to_json() for task, counts in result.answers.items()}
    return {
        **result.models,
        "source": result.source,
        **_scores_json(overall),
        **({"groups": {name: _scores_json(of_group) for name, of_group in groups.items()}}),
        **({"answers": answers} if answers else {}),
        "left_out": result.left_out,
        "notes": result.all_notes,
    }


def result_tables(result: Result) -> list[TextTable]:
    """Return the tables of all tasks."""
    tables = [table for scores in result.scores.values() for table in scores.tables()]
    return [*tables, answers_table(result.answers)] if result.answers else tables


def verdict(result: Result) -> str:
    """Return the scores that matter most in a few short sentences."""
    sentences = missing_sentences(result.answers)
    sentences += [scores.overall.verdict() for scores in result.scores.values()]
    if result.left_out:
        sentences.append(f"Not scored: {', '.join(result.left_out)}.")
    return " ".join(filter(None, sentences))


def _scores_json(scores: Mapping[str, Scores]) -> dict[str, Any]:
    baselines: dict[str, dict[str, Any]] = {}
    for task, of_task in scores.items():
        for name, content in of_task.baselines_json().items():
            baselines.setdefault(name, {})[task] = content
    return {**{task: of_task.to_json() for task, of_task in scores.items()}, "baselines": baselines}
