# SPDX-License-Identifier: Apache-2.0
"""Wait for events, and raise an error if they do not happen."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 60.0
"""Seconds to wait for an event."""


class Loss(Exception):
    """Something happened that must not, or did not happen though it must; the text says what."""


def wait_for(condition: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
    """Wait until a condition holds.

    Raises:
        Loss: if it does not hold in time; or from the condition.
    """
    end = time.monotonic() + patience
    while not condition():
        if time.monotonic() > end:
            raise Loss(f"{what} did not happen in {patience:.0f} s")
        time.sleep(0.01)
