# SPDX-License-Identifier: Apache-2.0
"""Waiting for things that should happen, and what it is called when they do not."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 60.0
"""Seconds after which something that should happen is taken not to."""


class Loss(Exception):
    """Something happened that must not, or did not happen that must; the text says what."""


def wait_for(condition: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
    """Until something happens.

    Raises:
        Loss: when it does not in time, or the condition raises it.
    """
    end = time.monotonic() + patience
    while not condition():
        if time.monotonic() > end:
            raise Loss(f"{what} did not happen in {patience:.0f} s")
        time.sleep(0.01)
