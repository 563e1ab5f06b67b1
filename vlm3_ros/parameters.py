# SPDX-License-Identifier: Apache-2.0
"""Parameters, declared once: frozen dataclasses whose fields carry what users need to know.

    @dataclass(frozen=True)
    class GridParameters(ParameterTable):
        columns: int = parameter(32, "Columns of the grid.", minimum=1, maximum=512)

From these declarations come the parameters of nodes (`vlm3_ros.ros.parameters`), options of
commands (`vlm3_ros.cli.model_options`), arguments of launch files (`vlm3_ros.ros.launching`),
config/*.yaml and docs/parameters.md (tools/interface_pages.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeVar

from vlm3_ros.errors import Vlm3Error

Changes = Literal["any time", "unconfigured", "start"]


class ParameterError(Vlm3Error, ValueError):
    """A parameter value that the node does not accept; the text names the parameter."""


@dataclass(frozen=True)
class ParameterSpec:
    """What users need to know about a parameter besides its name, type and default.

    Attributes:
        description: one or two plain sentences.
        minimum, maximum: the accepted range; both or neither are given.
        choices: the accepted values; empty if any value is.
        changes: when it can be set: at any time, only while the lifecycle node is unconfigured,
            or only at start.
        group: heading of the parameter among the options of commands and in files.
        metavar: what its value is, as the help of commands names it, such as FILE.
        launch: whether launch files have an argument for it.
    """

    description: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    changes: Changes = "any time"
    group: str = ""
    metavar: str = ""
    launch: bool = False

    @property
    def accepted_values(self) -> str:
        """The choices or the range as a sentence; empty if any value is accepted."""
        if self.choices:
            return f"One of {', '.join(self.choices)}."
        if self.minimum is not None:
            return f"From {self.minimum:g} to {self.maximum:g}."
        return ""


@dataclass(frozen=True)
class ParameterTable:
    """Base class of parameter tables. Refuses values that are not among a parameter's choices."""

    def __post_init__(self) -> None:
        for name, spec in parameter_specs(type(self)).items():
            value = getattr(self, name)
            if spec.choices and value not in spec.choices:
                raise ParameterError(
                    f"parameter {name!r} is {value!r}; it takes one of {', '.join(spec.choices)}"
                )


Value = TypeVar("Value", bound="str | bool | int | float")


def parameter(
    default: Value,
    description: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] = (),
    changes: Changes = "any time",
    group: str = "",
    metavar: str = "",
    launch: bool = False,
) -> Value:
    """Declare a field of a table; see `ParameterSpec`."""
    spec = ParameterSpec(description, minimum, maximum, choices, changes, group, metavar, launch)
    return field(default=default, metadata={"spec": spec})


def parameter_specs(table: type[Any]) -> dict[str, ParameterSpec]:
    """Return the specifications of a table by name, in the order of declaration."""
    return {f.name: f.metadata["spec"] for f in fields(table)}
