# SPDX-License-Identifier: Apache-2.0
"""Parameter tables as Markdown for docs/parameters.md, and as YAML for config/."""

from __future__ import annotations

import dataclasses
import textwrap

import yaml

from vlm3_ros.parameters import ParameterSpec, ParameterTable, parameter_specs

_WIDTH = 100


def parameter_table(table: type, beyond: type = ParameterTable) -> str:
    """Return a Markdown table: name, default, description with range, when it can change.

    Rows that are the same in the table `beyond` are left out.
    """
    heading = ["| parameter | default | meaning | changes |", "|---|---|---|---|"]
    known = _rows(beyond)
    return "\n".join(heading + [row for row in _rows(table) if row not in known])


def parameter_file(node: str, table: type[ParameterTable]) -> str:
    """Return a ROS parameter file with every parameter, its default and its description.

    Args:
        node: name of the node; the file applies to it in any namespace.
        table: its parameters.
    """
    lines = [f"/**/{node}:", "  ros__parameters:"]
    group = ""
    for field in dataclasses.fields(table):
        spec: ParameterSpec = field.metadata["spec"]
        if (new_group := spec.group or _origin(table, field.name)) != group:
            group = new_group
            lines += [f"    # --- {group[0].upper()}{group[1:]}", ""]
        comment = f"{spec.description} {spec.accepted_values}".strip()
        lines += textwrap.wrap(comment, _WIDTH, initial_indent="    # ", subsequent_indent="    # ")
        lines += [f"    {field.name}: {_scalar(field.default)}", ""]
    return "\n".join(lines[:-1]) + "\n"


def _origin(table: type, name: str) -> str:
    """Summary of the class that first declares a parameter, without its full stop."""
    owner = next(
        base for base in reversed(table.__mro__) if name in vars(base).get("__annotations__", ())
    )
    return (owner.__doc__ or "").splitlines()[0].rstrip(".")


def _scalar(value: object) -> str:
    return yaml.safe_dump(value, default_flow_style=True).splitlines()[0]


def _rows(table: type) -> list[str]:
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
    return f"{spec.description} {spec.accepted_values}".strip()
