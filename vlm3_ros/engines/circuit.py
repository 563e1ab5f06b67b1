# SPDX-License-Identifier: Apache-2.0
"""Whether a server is worth asking."""

from __future__ import annotations

import time
from collections.abc import Callable


class Circuit:
    """Open while a server is known to be gone, so that nobody waits for it.

    After a pause one attempt is let through; it closes the circuit, or opens it anew. For use in
    one thread; others may read `reason`.
    """

    def __init__(self, pause: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin closed.

        Args:
            pause: seconds between attempts to reach a server that is gone.
            clock: seconds.
        """
        self._pause = pause
        self._clock = clock
        self._reason: str | None = None
        self._next_attempt = 0.0

    @property
    def reason(self) -> str | None:
        """Why the circuit is open; None if the server was there when it was last asked."""
        return self._reason

    @property
    def fault(self) -> str | None:
        """Why not to ask now; None when it is worth a try."""
        return self._reason if self._clock() < self._next_attempt else None

    def open(self, reason: str) -> None:
        """The server is gone."""
        self._reason = reason
        self._next_attempt = self._clock() + self._pause

    def close(self) -> None:
        """The server is there."""
        self._reason = None
        self._next_attempt = 0.0
