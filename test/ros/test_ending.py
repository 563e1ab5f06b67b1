# SPDX-License-Identifier: Apache-2.0
"""A node ends soon after SIGINT, whatever its model does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from vlm3_ros.ros.ending import MARGIN, PATIENCE

pytest.importorskip("rclpy")

NODE = """
import ctypes, sys, threading, time
from functools import partial
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from vlm3_ros.ros import running
from vlm3_ros.ros.executor import SlowCallbackGroup
from vlm3_ros.ros.worker import QueueWorker

running.ending_in_time = partial(running.ending_in_time, patience={patience}, margin={margin})

def block():
    print("blocked", flush=True)
    {block}

class Blocked(Node):
    def __init__(self):
        super().__init__("blocked")
        self.worker = QueueWorker(lambda item: block(), lambda: 1, "model")
        self.worker.start()
        if {is_loading}:
            self.create_timer(0.0, self.load, SlowCallbackGroup())
        else:
            self.worker.put(1)

    def load(self):
        block()

    def destroy_node(self):
        self.worker.stop()
        super().destroy_node()

sys.exit(running.run_nodes(lambda end: [Blocked()], []))
"""

BLOCKS = {
    "returns": "pass",
    "waits for ever": "threading.Event().wait()",
    "waits in C": "ctypes.CDLL(None).sleep(100)",
    "computes in C, holding Python's lock": "time.sleep(0.2); ctypes.PyDLL(None).sleep(100)",
    "takes no notice": "\n    while True: sum(range(1000))",
}


@pytest.mark.slow
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("is_loading", [True, False], ids=["loading", "asking"])
@pytest.mark.parametrize("block", BLOCKS)
def test_a_node_ends_whatever_its_model_does(
    block: str, is_loading: bool, ending: signal.Signals
) -> None:
    """Who ends it must not depend on the load of the machine, so the limits are other ones."""
    is_killed = "holding" in block
    limits = {"patience": 60.0 if block == "returns" else 1.0, "margin": 1.0 if is_killed else 60.0}
    program = NODE.format(block=BLOCKS[block], is_loading=is_loading, **limits)
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout
    try:
        assert process.stdout.readline() == "blocked\n"
        time.sleep(0.5)
        process.send_signal(ending)
        process.wait(100)
    finally:
        process.kill()
    said = process.stdout.read()  # ends: nothing that the node started is left
    process.stdout.close()
    assert process.returncode == (-signal.SIGKILL if is_killed else 0), said
    assert ("a model does not return" in said) == (block != "returns" and not is_killed)


def test_a_node_ends_within_five_seconds() -> None:
    assert PATIENCE + MARGIN < 5


def test_another_end_leaves_nothing_behind() -> None:
    """As for a node whose parameters are refused: no signal has come."""
    program = (
        "import sys\n"
        "from vlm3_ros.ros.ending import ending_in_time\n"
        "with ending_in_time(lambda: None, lambda: None): pass\n"
        "with ending_in_time(lambda: None, lambda: None) as begin: begin(3)\n"
        "sys.exit(7)"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 7


def test_the_guard_ends_with_a_process_that_is_killed() -> None:
    program = (
        "import time\n"
        "from vlm3_ros.ros.ending import ending_in_time\n"
        "with ending_in_time(lambda: None, lambda: None):\n"
        "    print(open('/proc/thread-self/children').read(), flush=True)\n"
        "    time.sleep(100)"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    guard = int(process.stdout.readline())
    process.kill()
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            os.kill(guard, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail("the guard lives on")
