# SPDX-License-Identifier: Apache-2.0
"""What not every server can do: tried, used or left alone, and tried again later."""

from __future__ import annotations

import logging

logger = logging.getLogger(__name__)

TRY_AGAIN_EVERY = 50
"""Calls between two tries of a feature that the server refused."""


class Feature:
    """Something that not every server can do. Unknown at first, then proven or refused.

    A refusal holds for a number of calls, and is logged once.
    """

    def __init__(self, refusal: str) -> None:
        """Start unknown.

        Args:
            refusal: line for the log: who does not do what, and what follows from that.
        """
        self.is_proven = False
        self._refusal = refusal
        self._calls_left = 0
        self._pause = 1
        """Calls without the feature after a try that failed; doubles with each such try."""
        self._is_postponed = False
        self._is_logged = False

    @property
    def is_refused(self) -> bool:
        """Whether the server refused or failed it lately, so that it is not tried."""
        return self._calls_left > 0

    def start_call(self) -> None:
        """Count a call that could use the feature."""
        self._calls_left = max(0, self._calls_left - 1)

    def prove(self) -> None:
        """Use the feature: the server has done it."""
        self.is_proven = True
        self._pause = 1

    def refuse(self) -> None:
        """Leave the feature alone: the server has not done it."""
        self._is_postponed = False
        self._leave_out(TRY_AGAIN_EVERY)

    def postpone(self) -> None:
        """Leave the feature alone for a while: a try failed, maybe for an unrelated reason.

        If the feature is the reason, each try costs time, and may even kill the server. So tries
        become rare.
        """
        self._is_postponed = True
        self._leave_out(self._pause)
        self._pause = min(2 * self._pause, TRY_AGAIN_EVERY)

    def doubt(self) -> None:
        """Try the feature again, unless postponed: the server may have changed."""
        self.is_proven = False
        if not self._is_postponed:
            self._calls_left = 0

    def _leave_out(self, calls: int) -> None:
        if not self._is_logged:
            logger.info(self._refusal)
        self._is_logged = True
        self.is_proven = False
        self._calls_left = calls + 1  # the next call counts down first
