# SPDX-License-Identifier: Apache-2.0
"""What the paper reports, to stand beside measured scores; never mixed with them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from typing_extensions import override

from vlm3_ros.evaluation.scores.base import Scores
from vlm3_ros.evaluation.tables import TextTable


@cache
def published_numbers() -> Mapping[str, Any]:
    """Return tables 1 and 2 of the paper by task, with their source and remarks.

    Each task has a list of tables: `table`, its number; `metric`; `decimals` as printed; `columns`,
    data sets, and their `headings` where these are too long; `rows`, by method, a number per
    column, None where the paper has none.
    """
    content = files("vlm3_ros.evaluation.dataset").joinpath("published.json")
    numbers: Mapping[str, Any] = json.loads(content.read_text(encoding="utf-8"))
    return numbers


@dataclass(frozen=True)
class PublishedNumbers(Scores):
    """Numbers of the paper about these tasks."""

    tasks: Sequence[str]

    @override
    def to_json(self) -> dict[str, Any]:
        numbers = published_numbers()
        return {key: numbers[key] for key in ("source", "remarks", *self.tasks)}

    @override
    def tables(self, groups: Mapping[str, PublishedNumbers]) -> list[TextTable]:
        numbers = published_numbers()
        return [_table(task, table, numbers) for task in self.tasks for table in numbers[task]]


def published(tasks: Iterable[str]) -> PublishedNumbers:
    """Return the paper's numbers about those of these tasks that it reports on."""
    return PublishedNumbers([task for task in tasks if task in published_numbers()])


def _table(task: str, table: Mapping[str, Any], numbers: Mapping[str, Any]) -> TextTable:
    decimals, columns = table["decimals"], table["columns"]
    headings = table.get("headings", columns)
    short = [f"{a}: {b}" for a, b in zip(headings, columns, strict=True) if not b.startswith(a)]
    note = f"Not measured here. Source: {numbers['source']}, table {table['table']}."
    return TextTable(
        f"published, {task}: {table['metric']}",
        ("", *headings),
        tuple(
            (method, *("-" if value is None else f"{value:.{decimals}f}" for value in values))
            for method, values in table["rows"].items()
        ),
        " ".join([note, *([f"{', '.join(short)}."] if short else [])]),
        has_baselines=False,
    )
