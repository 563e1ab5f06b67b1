# SPDX-License-Identifier: Apache-2.0
"""Waiting for things that should happen, and what it is called when they do not."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 600.0
"""Seconds until a wait is a loss: generous, since a busy machine takes minutes to load torch."""


class Loss(Exception):
    """Something happened that must not, or did not happen that must; the text says what."""


def wait_for(condition: Callable[[], object], what: str) -> None:
    """Until something happens.

    Raises:
        Loss: when it does not in time, or the condition raises it.
    """
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise Loss(f"{what} did not happen in {PATIENCE:.0f} s")
        time.sleep(0.01)
