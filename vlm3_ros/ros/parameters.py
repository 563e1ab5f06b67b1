# SPDX-License-Identifier: Apache-2.0
"""Node parameters as one table: a frozen dataclass whose fields carry what ROS declares.

    @dataclass(frozen=True)
    class GridParameters(ParameterTable):
        columns: int = parameter(32, "Columns of the grid.", minimum=1, maximum=512)

The same table declares the parameters, checks a change of several of them as one, holds their
values, and is what a manual page is made from (`parameter_specs`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter

from vlm3_ros.errors import Vlm3Error

Changes = Literal["any time", "unconfigured", "start"]

_CHANGES_NOTE: dict[Changes, str] = {
    "any time": "",
    "unconfigured": " Changes only while the node is unconfigured.",
    "start": " Read-only: set at start.",
}


class ParameterError(Vlm3Error, ValueError):
    """A parameter value that the node does not take; the text names the parameter."""


@dataclass(frozen=True)
class ParameterSpec:
    """What is known of a parameter beside its name, type and default.

    `minimum` and `maximum` are both given or both absent. `changes` says when it can be set:
    at any time, only while the lifecycle node is unconfigured, or only at start.
    """

    description: str
    minimum: float | None
    maximum: float | None
    choices: tuple[str, ...]
    changes: Changes


@dataclass(frozen=True)
class ParameterTable:
    """Base of the tables: values that do not fit their choices do not come into being."""

    def __post_init__(self) -> None:
        for name, spec in parameter_specs(type(self)).items():
            value = getattr(self, name)
            if spec.choices and value not in spec.choices:
                raise ParameterError(
                    f"parameter {name!r} is {value!r}; it takes one of {', '.join(spec.choices)}"
                )


Value = TypeVar("Value", str, bool, int, float)
Table = TypeVar("Table", bound=ParameterTable)


def parameter(
    default: Value,
    description: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] = (),
    changes: Changes = "any time",
) -> Value:
    """A field of a `ParameterTable`."""
    spec = ParameterSpec(description, minimum, maximum, choices, changes)
    return field(default=default, metadata={"spec": spec})


def parameter_specs(table: type[ParameterTable]) -> dict[str, ParameterSpec]:
    """The table's specifications by name, in the order of definition."""
    return {f.name: f.metadata["spec"] for f in fields(table)}


def declare_parameters(node: Node, table: type[Table]) -> Table:
    """Declare all parameters of a table on a node.

    Returns:
        the table with the values that the node was started with.

    Raises:
        ParameterError: when one of these has the wrong type, is out of range, or they do not go
            together.
    """
    values = {}
    for f in fields(table):
        try:
            values[f.name] = node.declare_parameter(
                f.name, f.default, _descriptor(f.name, f.default, f.metadata["spec"])
            ).value
        except (InvalidParameterTypeException, InvalidParameterValueException) as error:
            raise ParameterError(str(error)) from None
    return table(**values)


def changed(current: Table, parameters: Iterable[Parameter], *, is_configured: bool) -> Table:
    """The table after a change of some parameters, for a set-parameters callback.

    Parameters that are not of the table are left to the node.

    Raises:
        ParameterError: when one of them cannot change now, or the new values do not go together.
    """
    specs = parameter_specs(type(current))
    values: dict[str, Any] = {p.name: p.value for p in parameters if p.name in specs}
    for name, value in values.items():
        is_fixed = specs[name].changes == "unconfigured" and is_configured
        if is_fixed and value != getattr(current, name):
            raise ParameterError(
                f"parameter {name!r} changes only while the node is unconfigured: "
                "`ros2 lifecycle set NODE deactivate`, then `cleanup`, first"
            )
    return replace(current, **values)


def _descriptor(name: str, default: object, spec: ParameterSpec) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(
        name=name,
        description=spec.description + _CHANGES_NOTE[spec.changes],
        read_only=spec.changes == "start",
    )
    if spec.choices:
        descriptor.additional_constraints = f"one of: {', '.join(spec.choices)}"
    if spec.minimum is None or spec.maximum is None:
        return descriptor
    if isinstance(default, float):
        descriptor.floating_point_range = [
            FloatingPointRange(from_value=float(spec.minimum), to_value=float(spec.maximum))
        ]
    else:
        descriptor.integer_range = [
            IntegerRange(from_value=int(spec.minimum), to_value=int(spec.maximum))
        ]
    return descriptor
