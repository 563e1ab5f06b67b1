# SPDX-License-Identifier: Apache-2.0
"""Stamps of a topic's messages, and the message that is nearest in time."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlm3_ros.bags.reading import Bag, SerializedMessage, up_to_damage
from vlm3_ros.errors import BagError

_KEPT = 16
"""Messages that are kept behind the newest one read: stamps of one topic swap by a few."""


def header_stamps(bag: Bag, topic: str, damage: list[str]) -> NDArray[np.int64]:
    """Stamps of the headers of a topic's messages in the order of recording, ns, shape (n,).

    Args:
        bag: an open bag that nothing else reads in the meantime.
        topic: of messages whose first field is a header.
        damage: gets a text if the bag is damaged; messages before count.
    """
    messages = up_to_damage(bag.serialized([topic]), damage)
    return np.array([_header_stamp(message.cdr) for message in messages], dtype=np.int64)


def backward_text(stamps_ns: NDArray[np.int64]) -> str:
    """Say in one sentence how often and how far stamps go back; empty if they never do."""
    steps = np.diff(stamps_ns)
    if not (steps < 0).any():
        return ""
    seconds = float(-steps.min()) / 1e9
    return f"stamps go back {int((steps < 0).sum())} times, by up to {seconds:.3g} s"


def stamps_note(bag: Bag, topic: str, damage: list[str]) -> str:
    """Say in words what is wrong with the stamps of a topic; empty if nothing.

    Raises:
        BagError: if no stamp was set.
    """
    stamps = header_stamps(bag, topic, damage)
    if len(stamps) > 1 and not stamps.any():
        raise BagError(
            f"{bag.path}: header.stamp is 0 in all messages on '{topic}': set it in the driver"
        )
    text = backward_text(stamps)
    return f"on '{topic}' {text}" if text else ""


def half_period(stamps_ns: NDArray[np.int64]) -> float:
    """Half the median time between stamps, in seconds; 0 for fewer than two."""
    unique = np.unique(stamps_ns)
    return float(np.median(np.diff(unique))) / 2e9 if len(unique) > 1 else 0.0


class NearestMessages:
    """Finds the messages of a topic that are nearest to given times, by the stamps of headers.

    Stamps and times may go back; reading is fastest if both ascend.

    Args:
        bag: an open bag that nothing else reads in the meantime.
        topic: of messages whose first field is a header; None finds nothing.
        damage: gets a text if the bag is damaged; messages before count.
    """

    def __init__(self, bag: Bag, topic: str | None, damage: list[str]) -> None:
        self._bag, self._topic, self._damage = bag, topic, damage
        stamps = np.empty(0, np.int64) if topic is None else header_stamps(bag, topic, damage)
        self._order = np.argsort(stamps, kind="stable")
        self._stamps = stamps[self._order]
        self._start()

    def at(self, stamp_ns: int, seconds: float) -> Any | None:
        """The message with the nearest header stamp; None if it is more than `seconds` away."""
        if not len(self._stamps):
            return None
        after = int(np.searchsorted(self._stamps, stamp_ns).clip(0, len(self._stamps) - 1))
        before = max(after - 1, 0)
        gaps = [abs(int(self._stamps[index]) - stamp_ns) for index in (before, after)]
        if min(gaps) > seconds * 1e9:
            return None
        return self._read(int(self._order[before if gaps[0] <= gaps[1] else after]))

    def _read(self, index: int) -> Any | None:
        """The message of this index in the order of recording."""
        if self._recent and index < self._recent[0][0]:
            self._start()
        while not self._recent or self._recent[-1][0] < index:
            following = next(self._messages, None)
            if following is None:
                return None
            self._recent.append((self._recent[-1][0] + 1 if self._recent else 0, following))
        cdr = next(message for number, message in self._recent if number == index)
        return self._bag.deserialized(cdr).content

    def _start(self) -> None:
        self._messages: Iterator[SerializedMessage] = iter(())
        if self._topic is not None:
            self._messages = up_to_damage(self._bag.serialized([self._topic]), self._damage)
        self._recent: deque[tuple[int, SerializedMessage]] = deque(maxlen=_KEPT)


def _header_stamp(cdr: bytes) -> int:
    """Stamp of the header that a serialized message begins with."""
    order = "<" if cdr[1] & 1 else ">"
    sec, nanosec = struct.unpack_from(f"{order}iI", cdr, 4)
    return int(sec) * 1_000_000_000 + int(nanosec)
