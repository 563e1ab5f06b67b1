# SPDX-License-Identifier: Apache-2.0
"""`ros2 launch` in its own process group, and a listening node."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from rclpy.node import Node

PATIENCE = 600.0
"""Seconds for a process to import torch and load a model on a busy machine."""


@dataclass
class Launched:
    """A running `ros2 launch` and its output."""

    process: subprocess.Popen
    log: Path

    def stop(self) -> int:
        """Interrupt it, as Ctrl-C does in a terminal."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGINT)
        return self.end()

    def end(self) -> int:
        """Wait for its end and return its exit status."""
        return self.process.wait(timeout=PATIENCE)

    def wait_for(self, peer: Node, condition: Callable[[], object], what: str) -> None:
        """Spin a node until something happens."""
        import rclpy

        end = time.monotonic() + PATIENCE
        while not condition():
            assert self.process.poll() is None, f"launch ended:\n{self.log.read_text()}"
            assert time.monotonic() < end, f"{what} did not happen:\n{self.log.read_text()}"
            rclpy.spin_once(peer, timeout_sec=0.05)


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., Launched]]:
    running: list[Launched] = []

    def start(file: Path, *arguments: str) -> Launched:
        log = tmp_path / f"launch{len(running)}.log"
        with log.open("w") as output:
            process = subprocess.Popen(
                ["ros2", "launch", file, *arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "ROS_LOG_DIR": str(tmp_path / "ros_log")},
            )
        running.append(Launched(process, log))
        return running[-1]

    yield start
    for launched in running:
        launched.stop()


@pytest.fixture
def peer(ros: None) -> Iterator[Node]:
    from rclpy.node import Node

    node = Node("peer")
    yield node
    node.destroy_node()
