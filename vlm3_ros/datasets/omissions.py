# SPDX-License-Identifier: Apache-2.0
"""What of a data set cannot be used, counted by reason."""

from __future__ import annotations

import logging

_SHOWN_REASONS = 10

logger = logging.getLogger(__name__)


class Omissions:
    """What was left out, by reason: how often, and where first."""

    def __init__(self) -> None:
        self._reasons: dict[str, tuple[int, str]] = {}

    def add(self, reason: str, where: str) -> None:
        """Count an omission; the first one of each reason is logged."""
        count, first = self._reasons.get(reason, (0, where))
        self._reasons[reason] = count + 1, first
        if not count:
            logger.warning("left out: %s (%s)", reason, where)

    def __bool__(self) -> bool:
        return bool(self._reasons)

    def __str__(self) -> str:
        ranked = sorted(self._reasons.items(), key=lambda item: -item[1][0])
        return "; ".join(
            f"{count} times: {reason} (first: {first})" if count > 1 else f"{reason} ({first})"
            for reason, (count, first) in ranked[:_SHOWN_REASONS]
        )
