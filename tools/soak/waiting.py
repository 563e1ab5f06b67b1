# SPDX-License-Identifier: Apache-2.0
"""Wait for events, and raise an error if they do not happen."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 600.0
"""Seconds until a wait is a loss: generous, since a busy machine takes minutes to load torch."""


class Loss(Exception):
    """Something happened that must not, or did not happen though it must; the text says what."""


def wait_for(condition: Callable[[], object], what: str) -> None:
    """Wait until a condition holds.

    Raises:
        Loss: if it does not hold in time; or from the condition.
    """
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise Loss(f"{what} did not happen in {PATIENCE:.0f} s")
        time.sleep(0.01)
