# SPDX-License-Identifier: Apache-2.0
"""The parameters of a node as a Markdown table."""

from __future__ import annotations

import dataclasses

from vlm3_ros.ros.parameters import ParameterSpec, ParameterTable, parameter_specs


def parameter_table(
    table: type[ParameterTable], beyond: type[ParameterTable] = ParameterTable
) -> str:
    """One row per parameter: name, default, description with its range, when it can change.

    Those that are the same in another table, `beyond`, are left out.
    """
    heading = ["| parameter | default | meaning | changes |", "|---|---|---|---|"]
    known = _rows(beyond)
    return "\n".join(heading + [row for row in _rows(table) if row not in known])


def _rows(table: type[ParameterTable]) -> list[str]:
    defaults = {field.name: field.default for field in dataclasses.fields(table)}
    return [
        f"| `{name}` | {_default(defaults[name])} | {_meaning(spec)} | {spec.changes} |"
        for name, spec in parameter_specs(table).items()
    ]


def _default(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`" if value != "" else "empty"


def _meaning(spec: ParameterSpec) -> str:
    if spec.choices:
        return f"{spec.description} One of {', '.join(f'`{choice}`' for choice in spec.choices)}."
    if spec.minimum is not None:
        return f"{spec.description} From {spec.minimum:g} to {spec.maximum:g}."
    return spec.description
