# SPDX-License-Identifier: Apache-2.0
"""A result as files and on the terminal, the same for every source."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vlm3_ros.evaluation.html import write_page
from vlm3_ros.evaluation.json_file import write_json
from vlm3_ros.evaluation.result import Result, result_json, result_tables, verdict
from vlm3_ros.evaluation.scene import Scene3D
from vlm3_ros.evaluation.tables import rich_table, split_table

if TYPE_CHECKING:
    from rich.console import Console


def write_result(
    result: Result,
    out: Path,
    pictures: Sequence[tuple[str, str]] = (),
    scene: Scene3D | None = None,
) -> list[str]:
    """Write metrics.json and report.html.

    Args:
        result: of any source.
        out: folder, which exists.
        pictures: title and data URL of each.
        scene: clouds and trajectories that the page shows in 3D.

    Returns:
        Names of the files.
    """
    write_json(out / "metrics.json", result_json(result))
    write_page(
        out / "report.html",
        result.title,
        verdict(result),
        pictures,
        scene,
        result_tables(result),
        result.all_notes,
    )
    return ["metrics.json", "report.html"]


def print_result(console: Console, result: Result) -> None:
    """Print verdict, tables and notes."""
    from rich.markup import escape

    # Names of files and models may hold brackets, which are rich's markup.
    console.rule(escape(result.title))
    console.print(verdict(result), soft_wrap=True, markup=False)
    for table in result_tables(result):
        for part in split_table(table, console.width):
            console.print(rich_table(part))
    for name, text in result.all_notes.items():
        console.print(f"[bold]{escape(name)}[/bold]: {escape(text)}", soft_wrap=True)
