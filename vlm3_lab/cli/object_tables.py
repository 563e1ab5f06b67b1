# SPDX-License-Identifier: Apache-2.0
"""What `vlm3 evaluate` tells of objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from vlm3_lab.studies.synthetic_objects import ObjectReport, best_median_worst, report_json
from vlm3_ros.evaluation.metrics.objects import DIRECTION
from vlm3_ros.evaluation.pictures.object import draw_object_frames


def add_objects(content: dict[str, Any], report: ObjectReport) -> None:
    """Add the report to the content of a metrics.json."""
    content["objects"] = report_json(report)


def draw_objects(report: ObjectReport, name: str, path: Path) -> None:
    """Draw the best, the median and the worst view."""
    model = report.overall.model
    draw_object_frames(
        best_median_worst(report),
        path,
        f"{name}: relations {model.accuracy:.1%}, lengths and directions {model.success:.1%} right "
        f"of {report.questions}",
    )


def print_objects(console: Console, name: str, report: ObjectReport) -> None:
    """Print relations, lengths and directions as tables, and both by kind of scene."""
    console.print(_relations(name, report))
    console.print(_quantities(name, report))
    console.print(_kinds(name, report))


def _relations(name: str, report: ObjectReport) -> Table:
    scores = report.overall
    table = Table(
        title=f"{name}: relations of objects in {len(report.views)} procedural views, seed "
        f"{report.seed}",
        caption="best answer: the same to all, chosen on these very questions; boxes alone: by "
        "their places and sizes in the image",
    )
    table.add_column("relation")
    for column in ("asked", "right", "best answer", "boxes alone", "failed"):
        table.add_column(column, justify="right")
    for kind, model in scores.model.relations.items():
        table.add_row(
            kind,
            str(model.questions),
            f"{model.success:.1%}",
            f"{scores.constant.relations[kind].success:.1%}",
            f"{scores.boxes.relations[kind].success:.1%}",
            str(model.unanswered),
        )
    asked = scores.model.relations.values()
    table.add_row(
        "all",
        str(sum(some.questions for some in asked)),
        f"{scores.model.accuracy:.1%}",
        f"{scores.constant.accuracy:.1%}",
        f"{scores.boxes.accuracy:.1%}",
        str(sum(some.unanswered for some in asked)),
        style="bold",
    )
    return table


def _quantities(name: str, report: ObjectReport) -> Table:
    scores = report.overall
    table = Table(
        title=f"{name}: lengths within 25 %, directions within 30°",
        caption="constant: the best one, chosen on these very questions; errors: AbsRel, degrees",
    )
    table.add_column("quantity")
    for column in ("asked", "right", "error", "constant", "its error", "failed"):
        table.add_column(column, justify="right")
    for kind, model in scores.model.quantities.items():
        constant = scores.constant.quantities[kind]
        table.add_row(
            kind.replace("_", " "),
            str(model.questions),
            f"{model.success:.1%}",
            _error(kind, model.error),
            f"{constant.success:.1%}",
            _error(kind, constant.error),
            str(model.unanswered),
        )
    asked = scores.model.quantities.values()
    table.add_row(
        "mean",
        str(sum(some.questions for some in asked)),
        f"{scores.model.success:.1%}",
        _error("", scores.model.abs_rel),
        f"{scores.constant.success:.1%}",
        _error("", scores.constant.abs_rel),
        str(sum(some.unanswered for some in asked)),
        style="bold",
    )
    return table


def _kinds(name: str, report: ObjectReport) -> Table:
    table = Table(
        title=f"{name}: objects by kind of scene, {report.questions} questions",
        caption="lengths: with directions",
    )
    table.add_column("views")
    for column in ("relations", "best answer", "boxes alone", "lengths", "constant", "AbsRel"):
        table.add_column(column, justify="right")
    for kind, scores in {**report.kinds, "all": report.overall}.items():
        table.add_row(
            kind,
            f"{scores.model.accuracy:.1%}",
            f"{scores.constant.accuracy:.1%}",
            f"{scores.boxes.accuracy:.1%}",
            f"{scores.model.success:.1%}",
            f"{scores.constant.success:.1%}",
            f"{scores.model.abs_rel:.3f}",
            style="bold" if kind == "all" else "",
        )
    return table


def _error(kind: str, error: float) -> str:
    return f"{error:.1f}°" if kind == DIRECTION else f"{error:.3f}"
