# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from vlm3_ros.engines.circuit import Circuit


def test_it_opens_lets_one_attempt_through_and_closes():
    now = [100.0]
    circuit = Circuit(pause=2.0, clock=lambda: now[0])
    assert circuit.reason is None
    assert circuit.fault is None
    circuit.open("it is gone")
    for now[0], fault in ((100.0, "it is gone"), (101.9, "it is gone"), (102.0, None)):
        assert circuit.fault == fault
        assert circuit.reason == "it is gone"
    circuit.open("it is still gone")
    now[0] = 103.9
    assert circuit.fault == "it is still gone"
    circuit.close()
    assert circuit.fault is None
    assert circuit.reason is None
