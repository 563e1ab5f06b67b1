"""Print the parameters of a node as the Markdown table of README.md (needs ROS 2)."""

from __future__ import annotations

import dataclasses

from vlm3_ros.nodes.depth_node import DepthParameters
from vlm3_ros.ros.parameters import ParameterSpec, ParameterTable, parameter_specs


def parameter_table(table: type[ParameterTable]) -> str:
    """One row per parameter: name, default, description with its range, when it can change."""
    defaults = {field.name: field.default for field in dataclasses.fields(table)}
    rows = ["| parameter | default | meaning | changes |", "|---|---|---|---|"]
    rows += [
        f"| `{name}` | {_default(defaults[name])} | {_meaning(spec)} | {spec.changes} |"
        for name, spec in parameter_specs(table).items()
    ]
    return "\n".join(rows)


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


if __name__ == "__main__":
    print(parameter_table(DepthParameters))
