# SPDX-License-Identifier: Apache-2.0
"""How metrics are shown, declared with the field that holds them.

    delta1: Annotated[float, Metric("δ1", ".3f")]

Tables, metrics.json, captions and recordings follow from the declaration, so that a new metric is
one field.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, get_type_hints


@dataclass(frozen=True)
class Metric:
    """How a metric is shown.

    Attributes:
        title: heading of its column; "{}" stands for the key of a metric that is a mapping.
        form: format of its values.
        key: its name in metrics.json, the field's by default; "/" leads into an object, "{}" as
            in the title.
        repeated: heading of a mapping's columns after the first one, `title` by default.
        is_headline: also shown for single images, in captions and recordings.
    """

    title: str
    form: str
    key: str = ""
    repeated: str = ""
    is_headline: bool = False


def metric_json(metrics: Any) -> dict[str, Any]:
    """Return all fields of a metrics dataclass under their keys."""
    content: dict[str, Any] = {}
    for name, declared, value in _declared(metrics):
        key = (declared.key if declared else "") or name
        entries = value.items() if isinstance(value, dict) else [(None, value)]
        for index, entry in entries:
            *path, last = key.format(index).split("/")
            target = content
            for step in path:
                target = target.setdefault(step, {})
            target[last] = entry
    return content


def metric_titles(metrics: Any) -> tuple[str, ...]:
    """Return the headings of the columns of a metrics dataclass."""
    return tuple(title for title, _ in _columns(metrics))


def metric_cells(metrics: Any) -> tuple[str, ...]:
    """Return the values of a metrics dataclass as texts, one for each heading; "-" for NaN."""
    return tuple(cell for _, cell in _columns(metrics))


def cell_text(value: float, form: str) -> str:
    """Format a number of a table; "-" for NaN, where there is nothing to measure."""
    return "-" if value != value else f"{value:{form}}"


def headlines(metrics: Any) -> dict[str, float]:
    """Return the headline metrics by field name."""
    return {
        name: value
        for name, declared, value in _declared(metrics)
        if declared and declared.is_headline
    }


def headline_text(metrics: Any) -> str:
    """Return the headline metrics in one line, such as "δ1 0.87, AbsRel 0.12"."""
    return ", ".join(
        f"{declared.title} {value:{declared.form}}"
        for _, declared, value in _declared(metrics)
        if declared and declared.is_headline
    )


def _columns(metrics: Any) -> Iterator[tuple[str, str]]:
    for _, declared, value in _declared(metrics):
        if declared is None:
            continue
        if not isinstance(value, dict):
            yield declared.title, cell_text(value, declared.form)
            continue
        for place, (index, entry) in enumerate(value.items()):
            title = declared.repeated if place and declared.repeated else declared.title
            yield title.format(index), cell_text(entry, declared.form)


def _declared(metrics: Any) -> Iterator[tuple[str, Metric | None, Any]]:
    for name, declared in _declarations(type(metrics)).items():
        yield name, declared, getattr(metrics, name)


def _declarations(metrics_class: type) -> dict[str, Metric | None]:
    """Declarations by field; None for fields without one, which are counts for metrics.json."""
    hints = get_type_hints(metrics_class, include_extras=True)
    return {
        one.name: next(iter(getattr(hints[one.name], "__metadata__", ())), None)
        for one in fields(metrics_class)
    }
