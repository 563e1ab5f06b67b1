# SPDX-License-Identifier: Apache-2.0
"""A child process: its output, memory, threads, and signals."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from soak.waiting import Loss

END_PATIENCE = 30.0
"""Seconds within which a process must end, as in the launch files."""


class Process:
    """A process that starts when it is constructed."""

    def __init__(self, name: str, command: Sequence[str], log: Path) -> None:
        """Start it.

        Args:
            name: for the texts of losses.
            command: program and arguments.
            log: file to which its output is appended.
        """
        self.name = name
        self._log = log
        self._lines: list[str] = []
        self._process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        self._reader = threading.Thread(target=self._read, name=f"output of {name}")
        self._reader.start()

    @property
    def lines(self) -> Sequence[str]:
        """The lines printed so far."""
        return self._lines

    @property
    def is_running(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def resident_bytes(self) -> int:
        """Resident memory (RSS)."""
        return self._status("VmRSS") * 1024

    def threads(self) -> int:
        """Number of threads."""
        return self._status("Threads")

    def processor_seconds(self) -> float:
        """Processor time used so far."""
        # After the name, which may contain spaces; fields 14 and 15 of proc(5).
        fields = self._proc("stat").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def limit_file_size(self, limit: int | None) -> None:
        """Limit the size of files that it writes, in bytes, as a full disk does; None: no limit."""
        _, hard = resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE)
        soft = hard if limit is None else limit
        resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, (soft, hard))

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """Kill it (SIGKILL)."""
        if self.is_running:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join()

    def stop(self) -> float:
        """Stop it as Ctrl-C does (SIGINT). Return the seconds until its end.

        Raises:
            Loss: if it does not end in time, or ends with an error.
        """
        begin = time.monotonic()
        if self.is_running:
            self._process.send_signal(signal.SIGINT)
        try:
            status = self._process.wait(END_PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Loss(f"{self.name} did not end in {END_PATIENCE:.0f} s after SIGINT") from None
        self._reader.join()
        if status:
            raise Loss(f"{self.name} ended with status {status}")
        return time.monotonic() - begin

    def _read(self) -> None:
        output = self._process.stdout
        assert output is not None
        with self._log.open("a") as log, output:
            for line in output:
                self._lines.append(line.rstrip("\n"))
                log.write(line)
                log.flush()

    def _status(self, key: str) -> int:
        for line in self._proc("status").splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1])
        raise Loss(f"{self.name} has ended")

    def _proc(self, file: str) -> str:
        try:
            return Path(f"/proc/{self._process.pid}/{file}").read_text()
        except OSError:
            raise Loss(f"{self.name} has ended") from None


def node_command(
    module: str, parameters: Mapping[str, object], remaps: Mapping[str, str]
) -> list[str]:
    """Return the command that runs a module of `vlm3_ros.nodes`."""
    command = [sys.executable, "-m", f"vlm3_ros.nodes.{module}", "--ros-args"]
    for name, value in parameters.items():
        command += ["-p", f"{name}:={json.dumps(value)}"]  # JSON is YAML, and quotes strings
    for name, topic in remaps.items():
        command += ["-r", f"{name}:={topic}"]
    return command
