# SPDX-License-Identifier: Apache-2.0
"""Statuses on /diagnostics, and a log without repetitions."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.node import Node

from vlm3_ros.errors import Vlm3Error
from vlm3_ros.ros.health import Health, error_report, error_text


@pytest.fixture
def health(ros) -> Iterator[Health]:
    node = Node("depth_node", namespace="front")
    yield Health(node, list)
    node.destroy_node()


def test_status_message(health):
    status = health.status("frames", "/image", DiagnosticStatus.WARN, "slow", {"rate (Hz)": "0.10"})
    assert (status.name, status.hardware_id, status.message) == (
        "front/depth_node: frames",
        "/image",
        "slow",
    )
    assert status.level == DiagnosticStatus.WARN
    assert [(pair.key, pair.value) for pair in status.values] == [("rate (Hz)", "0.10")]


def test_an_error_for_users_is_its_text_and_another_one_has_a_traceback():
    def raised(error: Exception) -> Exception:
        try:
            raise error
        except Exception as raised:
            return raised

    expected = raised(Vlm3Error("/image: the data are empty"))
    assert error_text(expected) == error_report(expected) == "/image: the data are empty"
    fault = raised(ZeroDivisionError("never thought of"))
    assert error_text(fault) == "ZeroDivisionError: never thought of"
    assert error_report(fault).startswith("Traceback")
    assert error_report(fault).endswith("ZeroDivisionError: never thought of")
