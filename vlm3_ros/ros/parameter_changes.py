# SPDX-License-Identifier: Apache-2.0
"""Changes of a parameter table: one callback judges, another one lets them take effect.

rclpy and rclcpp ask for this split: an on-set callback may be followed by another one that refuses
the change, so only a post-set callback may act on it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable

from rcl_interfaces.msg import SetParametersResult
from rclpy.parameter import Parameter

from vlm3_ros.parameters import ParameterError, parameter_specs
from vlm3_ros.ros.parameters import Table, changed


def judge_change(
    current: Table, parameters: Iterable[Parameter], *, is_configured: bool
) -> SetParametersResult:
    """Judge a change of one or more parameters, as the result of an on-set callback."""
    try:
        changed(current, parameters, is_configured=is_configured)
    except ParameterError as error:
        return SetParametersResult(successful=False, reason=str(error))
    return SetParametersResult(successful=True)


def apply_change(current: Table, parameters: Iterable[Parameter]) -> Table:
    """Return the table after a change that `judge_change` accepted; for a post-set callback.

    It never raises: rclpy has stored the values already. So values are not checked again, which
    could fail now, for example if a file has disappeared in between. Parameters that are not in
    the table are ignored.
    """
    table = copy.copy(current)
    for parameter in parameters:
        if parameter.name in parameter_specs(type(current)):
            object.__setattr__(table, parameter.name, parameter.value)
    return table
