# SPDX-License-Identifier: Apache-2.0
"""What a topic of a bag held at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vlm3_ros.bags.reading import Bag, up_to_damage
from vlm3_ros.messages.classes import stamp_nanoseconds


class NearestMessages:
    """The message of a topic that is nearest in time, for times that ascend.

    Args:
        bag: an open bag, which nothing else reads meanwhile.
        topic: its messages have a header; None for none.
        damage: is told where the bag is damaged; messages before count.
    """

    def __init__(self, bag: Bag, topic: str | None, damage: list[str]) -> None:
        self._messages: Iterator[Any] = iter(())
        if topic is not None:
            messages = up_to_damage(bag.messages([topic]), damage)
            self._messages = (message.content for message in messages)
        self._around: list[Any] = []

    def at(self, stamp_ns: int, seconds: float) -> Any | None:
        """The nearest one by its header's stamp; None where it is more than `seconds` off."""
        while not self._around or stamp_nanoseconds(self._around[-1].header) < stamp_ns:
            following = next(self._messages, None)
            if following is None:
                break
            self._around = [*self._around[-1:], following]
        gaps = [abs(stamp_nanoseconds(message.header) - stamp_ns) for message in self._around]
        if not gaps or min(gaps) > seconds * 1e9:
            return None
        return self._around[gaps.index(min(gaps))]
