# SPDX-License-Identifier: Apache-2.0
"""The program `vlm3`, also `python -m vlm3_ros.cli`."""

from __future__ import annotations

import signal
import sys
from types import FrameType

from vlm3_ros.cli import main


def run() -> None:
    """Run a command and exit with its status.

    SIGTERM acts like Ctrl-C: the command ends cleanly and stops the processes it has started.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    sys.exit(main())


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    run()
