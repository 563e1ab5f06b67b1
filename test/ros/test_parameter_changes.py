# SPDX-License-Identifier: Apache-2.0
"""A change of parameters is judged first, and takes effect after rclpy has stored it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

pytest.importorskip("rclpy")

from rcl_interfaces.msg import SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from vlm3_ros.parameters import ParameterError, ParameterTable, parameter
from vlm3_ros.ros.parameter_changes import apply_change, judge_change
from vlm3_ros.ros.parameters import declare_parameters


@dataclass(frozen=True)
class Limits(ParameterTable):
    least: float = parameter(1.0, "Least.")
    most: float = parameter(2.0, "Most.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.least >= self.most:
            raise ParameterError("least must be smaller than most")


class LimitedNode(Node):
    """Counts how often its parameters take effect."""

    def __init__(self) -> None:
        super().__init__("limited")
        self.parameters = declare_parameters(self, Limits)
        self.applied: list[Limits] = []
        self.add_on_set_parameters_callback(
            lambda changes: judge_change(self.parameters, changes, is_configured=False)
        )
        self.add_post_set_parameters_callback(self._apply)

    def _apply(self, changes: list[Parameter]) -> None:
        self.parameters = apply_change(self.parameters, changes)
        self.applied.append(self.parameters)


@pytest.fixture
def node(ros) -> Iterator[LimitedNode]:
    node = LimitedNode()
    yield node
    node.destroy_node()


def test_several_parameters_take_effect_as_one(node):
    both = [Parameter("least", value=3.0), Parameter("most", value=4.0)]
    assert node.set_parameters_atomically(both).successful
    assert node.applied == [Limits(3.0, 4.0)]
    one_by_one = node.set_parameters([Parameter("least", value=9.0), Parameter("most", value=10.0)])
    assert [result.successful for result in one_by_one] == [False, True]
    assert node.parameters == Limits(3.0, 10.0)


def test_a_refused_change_does_not_take_effect(node):
    result = node.set_parameters_atomically([Parameter("least", value=5.0)])
    assert (result.successful, result.reason) == (False, "least must be smaller than most")
    assert node.applied == []
    assert node.parameters == Limits(1.0, 2.0)


def test_a_change_that_another_callback_refuses_does_not_take_effect(node):
    refusal = SetParametersResult(successful=False, reason="not now")
    # rclpy calls the newest callback first: let the refusal come after the judgement.
    node._on_set_parameters_callbacks.append(lambda changes: refusal)
    assert not node.set_parameters_atomically([Parameter("most", value=5.0)]).successful
    assert node.applied == []
    assert node.get_parameter("most").value == node.parameters.most == 2.0


def test_other_parameters_of_the_node_are_ignored(node):
    node.declare_parameter("other", 1)
    assert node.set_parameters_atomically([Parameter("other", value=2)]).successful
    assert node.parameters == Limits(1.0, 2.0)
