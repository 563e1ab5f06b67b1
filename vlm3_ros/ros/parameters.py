# SPDX-License-Identifier: Apache-2.0
"""Declare a parameter table (`vlm3_ros.parameters`) on a node, and check changes of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, replace
from typing import Any, TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter

from vlm3_ros.parameters import (
    Changes,
    ParameterError,
    ParameterSpec,
    ParameterTable,
    parameter_specs,
)

Table = TypeVar("Table", bound=ParameterTable)

_CHANGES_NOTE: dict[Changes, str] = {
    "any time": "",
    "unconfigured": " Changes only while the node is unconfigured.",
    "start": " Read-only: set at start.",
}


def declare_parameters(node: Node, table: type[Table]) -> Table:
    """Declare all parameters of a table on a node.

    Returns:
        The table with the values that the node was started with.

    Raises:
        ParameterError: if a value has the wrong type, is out of range, or conflicts with another.
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
    """Return the table after a change of parameters; ignore those that it does not hold.

    Raises:
        ParameterError: if a parameter cannot change now, or the new values conflict.
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
