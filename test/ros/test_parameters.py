# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import dataclass

import pytest
from rcl_interfaces.msg import SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from vlm3_ros.parameters import ParameterError, ParameterTable, parameter, parameter_specs
from vlm3_ros.ros.parameters import changed, declare_parameters


@dataclass(frozen=True)
class Table(ParameterTable):
    columns: int = parameter(4, "Columns.", minimum=1, maximum=8)
    near: float = parameter(0.5, "Nearest.", minimum=0.0, maximum=10.0)
    far: float = parameter(5.0, "Farthest.", minimum=0.0, maximum=10.0)
    mode: str = parameter("fast", "Mode.", choices=("fast", "good"))
    model: str = parameter("", "Model.", changes="unconfigured")
    autostart: bool = parameter(True, "Start.", changes="start")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.near >= self.far:
            raise ParameterError("parameter 'near' must be smaller than 'far'")


class ParameterNode(Node):
    """A node with the table, whose parameters are judged as a set."""

    def __init__(self, *arguments: str, is_configured: bool = False) -> None:
        cli = [part for argument in arguments for part in ("-p", argument)]
        super().__init__("parameter_node", cli_args=["--ros-args", *cli])
        self.is_configured = is_configured
        self.table = declare_parameters(self, Table)
        self.add_on_set_parameters_callback(self._set)

    def _set(self, parameters: list[Parameter]) -> SetParametersResult:
        try:
            self.table = changed(self.table, parameters, is_configured=self.is_configured)
        except ParameterError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def change(self, **values: object) -> SetParametersResult:
        return self.set_parameters_atomically([Parameter(n, value=v) for n, v in values.items()])


@pytest.fixture
def make_node(ros):
    nodes = []

    def make(*arguments: str, **options: bool) -> ParameterNode:
        nodes.append(ParameterNode(*arguments, **options))
        return nodes[-1]

    yield make
    for node in nodes:
        node.destroy_node()


def test_defaults(make_node):
    node = make_node()
    assert node.table == Table()
    for name in parameter_specs(Table):
        assert node.get_parameter(name).value == getattr(Table(), name)


def test_values_from_the_command_line(make_node):
    assert make_node("columns:=7", "mode:=good", "autostart:=false").table == Table(
        columns=7, mode="good", autostart=False
    )


def test_descriptors(make_node):
    node = make_node()
    columns, near, mode, model, autostart = (
        node.describe_parameter(name) for name in ("columns", "near", "mode", "model", "autostart")
    )
    assert columns.description == "Columns."
    assert [(r.from_value, r.to_value) for r in columns.integer_range] == [(1, 8)]
    assert [(r.from_value, r.to_value) for r in near.floating_point_range] == [(0.0, 10.0)]
    assert mode.additional_constraints == "one of: fast, good"
    assert model.description.endswith("only while the node is unconfigured.")
    assert not model.read_only
    assert autostart.read_only
    assert autostart.description.endswith("Read-only: set at start.")


@pytest.mark.parametrize(
    ("argument", "text"),
    [
        ("columns:=9", "columns.*out of range.*8"),
        ("columns:=2.5", "columns.*DOUBLE.*INTEGER"),
        ("near:=.nan", "near.*out of range"),
        ("mode:=slow", "'mode' is 'slow'; it takes one of fast, good"),
        ("near:=6.0", "'near' must be smaller than 'far'"),
    ],
)
def test_bad_values_at_start(make_node, argument, text):
    with pytest.raises(ParameterError, match=text):
        make_node(argument)


def test_several_changes_are_checked_together(make_node):
    node = make_node()
    result = node.change(near=6.0)
    assert not result.successful
    assert "'near' must be smaller" in result.reason
    assert node.table == Table()
    assert node.get_parameter("near").value == 0.5
    assert node.change(near=6.0, far=7.0).successful
    assert node.table == Table(near=6.0, far=7.0)


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"columns": 0}, "out of range"), ({"mode": "slow"}, "one of"), ({"columns": 2.0}, "type")],
)
def test_bad_changes_are_refused_as_a_whole(make_node, change, reason):
    node = make_node()
    result = node.change(far=7.0, **change)
    assert not result.successful
    assert reason in result.reason
    assert node.table == Table()


def test_some_parameters_change_only_while_unconfigured(make_node):
    assert make_node().change(model="other").successful
    configured = make_node(is_configured=True)
    assert not configured.change(model="other").successful
    assert "'model' changes only while" in configured.change(model="other").reason
    assert configured.change(model="", columns=3).successful
    assert configured.table == Table(columns=3)


def test_read_only_parameters_never_change(make_node):
    node = make_node()
    assert not node.change(autostart=False).successful
    assert node.table.autostart


def test_parameters_outside_the_table_are_ignored(make_node):
    node = make_node()
    node.declare_parameter("other", 1)
    assert node.change(other=2).successful
    assert node.table == Table()


def test_specs_of_a_table():
    specs = parameter_specs(Table)
    assert list(specs) == ["columns", "near", "far", "mode", "model", "autostart"]
    assert (specs["columns"].minimum, specs["columns"].maximum) == (1, 8)
    assert specs["mode"].choices == ("fast", "good")
    assert specs["model"].changes == "unconfigured"
