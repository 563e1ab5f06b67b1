# SPDX-License-Identifier: Apache-2.0
"""Parts of a check that end in every way."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator


def rows(count: int) -> Iterator[dict]:
    yield from ({"number": number} for number in range(count))


def hanging(seconds: float, file: str) -> Iterator[dict]:
    """Has a row, then hangs with a process of its own that would write a file later."""
    yield {"number": 0}
    subprocess.Popen(["sh", "-c", f"sleep {seconds}; touch {file}"])
    time.sleep(60)


def failing() -> Iterator[dict]:
    yield {"number": 0}
    raise ValueError("no such\nmodel")


def killed() -> Iterator[dict]:
    yield {"number": 0}
    os.kill(os.getpid(), signal.SIGKILL)
