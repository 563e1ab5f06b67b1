# SPDX-License-Identifier: Apache-2.0
"""Tables of text, and how the terminal shows them; `html` shows them on pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class TextTable:
    """A table of texts.

    Attributes:
        title: stands above the table.
        columns: headings; the first column holds the rows' names.
        rows: as many cells each as there are columns.
        note: stands below the table.
        has_baselines: the first row is the model's and stands out; the others are baselines.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    has_baselines: bool = True


def split_table(content: TextTable, width: int) -> list[TextTable]:
    """Split a table that is wider than the terminal into several with fewer columns each.

    Args:
        content: the table.
        width: characters of a line. A table of two columns is not split.
    """
    sizes = [
        max(len(text) for text in texts) + 2
        for texts in zip(content.columns, *content.rows, strict=True)
    ]
    parts: list[list[int]] = [[]]
    for index, size in enumerate(sizes[1:], 1):
        used = sizes[0] + sum(sizes[other] for other in parts[-1])
        if parts[-1] and used + size > width:
            parts.append([])
        parts[-1].append(index)
    return [
        replace(
            content,
            title=content.title if not number else f"{content.title} (continued)",
            columns=_chosen(content.columns, part),
            rows=tuple(_chosen(row, part) for row in content.rows),
            note=content.note if number == len(parts) - 1 else "",
        )
        for number, part in enumerate(parts)
    ]


def _chosen(row: tuple[str, ...], columns: Sequence[int]) -> tuple[str, ...]:
    return (row[0], *(row[column] for column in columns))


def rich_table(content: TextTable) -> Table:
    """Build a table for the terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    table = Table(
        title=escape(content.title),
        caption=escape(content.note) or None,
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    for index, column in enumerate(content.columns):
        table.add_column(escape(column), justify="right" if index else "left", no_wrap=True)
    for index, row in enumerate(content.rows):
        table.add_row(
            *map(escape, row), style="bold" if content.has_baselines and not index else ""
        )
    return table
