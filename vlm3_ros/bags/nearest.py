# SPDX-License-Identifier: Apache-2.0
"""The message of a topic that is nearest in time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vlm3_ros.bags.reading import Bag, up_to_damage
from vlm3_ros.messages.classes import stamp_nanoseconds


class NearestMessages:
    """Finds the messages of a topic that are nearest to ascending times.

    Args:
        bag: an open bag that nothing else reads in the meantime.
        topic: of messages with a header; None finds nothing.
        damage: gets a text if the bag is damaged; messages before count.
    """

    def __init__(self, bag: Bag, topic: str | None, damage: list[str]) -> None:
        self._messages: Iterator[Any] = iter(())
        if topic is not None:
            messages = up_to_damage(bag.messages([topic]), damage)
            self._messages = (message.content for message in messages)
        self._around: list[Any] = []

    def at(self, stamp_ns: int, seconds: float) -> Any | None:
        """The message with the nearest header stamp; None if it is more than `seconds` away."""
        while not self._around or stamp_nanoseconds(self._around[-1].header) < stamp_ns:
            following = next(self._messages, None)
            if following is None:
                break
            self._around = [*self._around[-1:], following]
        gaps = [abs(stamp_nanoseconds(message.header) - stamp_ns) for message in self._around]
        if not gaps or min(gaps) > seconds * 1e9:
            return None
        return self._around[gaps.index(min(gaps))]
