# SPDX-License-Identifier: Apache-2.0
"""Entries of a large JSON file, read one at a time.

The file is an array of objects, or one object after the other (JSON lines). It may hold many
gigabytes: only the place of each entry is kept in memory. The places are found in one pass over
the file and stored beside it.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlm3_ros.errors import DatasetError

STORED_FROM = 64 << 20
"""Bytes of a file whose places are stored: they are found in smaller ones within a moment."""

_BLOCK = 16 << 20
"""Bytes that are scanned at once."""

_QUOTE, _BACKSLASH, _OPEN, _CLOSE = b'"\\{}'

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class JsonEntries:
    """Entries of a file.

    `starts`, `sizes`: byte where each entry starts, and its number of bytes, shape (n,).
    """

    path: Path
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts)

    def read(self, index: int) -> dict[str, Any]:
        """Read an entry.

        Raises:
            DatasetError: naming the entry, from 1, if it is no JSON or cannot be read.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(int(self.starts[index]))
                entry = json.loads(file.read(int(self.sizes[index])))
        except (OSError, ValueError) as error:
            raise DatasetError(f"{self.name(index)}: {error}") from error
        assert isinstance(entry, dict)  # starts with a brace
        return entry

    def name(self, index: int) -> str:
        """Return the name of an entry in messages."""
        return f"{self.path}, entry {index + 1}"


def open_entries(path: Path) -> JsonEntries:
    """Find the entries of a file, or read where they were found before.

    Raises:
        DatasetError: if the file cannot be read, holds no entry, or ends within one.
    """
    try:
        stat = path.stat()
        stored = path.with_name(f"{path.name}.index.npz")
        version = np.array([stat.st_size, stat.st_mtime_ns])
        places = _load(stored, version)
        if places is None:
            places = _scan(path)
            if stat.st_size >= STORED_FROM:
                _store(stored, version, places)
    except OSError as error:
        raise DatasetError(f"{path}: it cannot be read: {error}") from error
    starts, ends = places
    if not len(starts):
        raise DatasetError(f"{path}: it holds no JSON object")
    return JsonEntries(path, starts, ends - starts)


def _scan(path: Path) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find where the outermost objects start and end."""
    starts, ends = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    depth, is_in_string, backslashes = 0, False, 0
    for offset, block in _blocks(path):
        quotes = np.flatnonzero(block == _QUOTE)
        quotes, backslashes = _unescaped(block, quotes, backslashes)
        braces = np.flatnonzero((block == _OPEN) | (block == _CLOSE))
        in_string = (np.searchsorted(quotes, braces) + is_in_string) % 2 == 1
        braces = braces[~in_string]
        is_open = block[braces] == _OPEN
        depths = depth + np.cumsum(np.where(is_open, 1, -1))
        if (depths < 0).any():
            raise DatasetError(f"{path}: it is no JSON: a brace closes none")
        starts.append(braces[is_open & (depths == 1)] + offset)
        ends.append(braces[~is_open & (depths == 0)] + offset + 1)
        depth = int(depths[-1]) if len(depths) else depth
        is_in_string = bool((len(quotes) + is_in_string) % 2)
    if depth or is_in_string:
        raise DatasetError(f"{path}: it ends within an entry: it was cut off; fetch it again")
    return np.concatenate(starts), np.concatenate(ends)


def _blocks(path: Path) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Read a file block by block, each with its place."""
    offset = 0
    with path.open("rb", buffering=0) as file:
        while data := file.read(_BLOCK):
            yield offset, np.frombuffer(data, np.uint8)
            offset += len(data)


def _unescaped(
    block: NDArray[np.uint8], quotes: NDArray[np.int64], before: int
) -> tuple[NDArray[np.int64], int]:
    """Leave out quotes after an odd number of backslashes.

    Args:
        block: bytes.
        quotes: their places in it.
        before: number of backslashes right before the block.

    Returns:
        The places that are left, and the number of backslashes at the end of the block.
    """
    follows = block[quotes - 1] == _BACKSLASH  # for a quote at 0, the last byte: checked again
    is_escaped = np.zeros(len(quotes), bool)
    for number in np.flatnonzero(follows | (quotes == 0)).tolist():
        is_escaped[number] = _backslashes(block, int(quotes[number]), before) % 2
    return quotes[~is_escaped], _backslashes(block, len(block), before)


def _backslashes(block: NDArray[np.uint8], place: int, before: int) -> int:
    """Count the backslashes right before a place in a block."""
    start = place
    while start and block[start - 1] == _BACKSLASH:
        start -= 1
    return place - start + (before if start == 0 else 0)


def _load(
    stored: Path, version: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Read places that were stored; None if there are none of this version of the file."""
    try:
        with np.load(stored) as content:
            if np.array_equal(content["version"], version):
                return content["starts"], content["ends"]
    except (OSError, ValueError, KeyError, EOFError):
        pass
    return None


def _store(
    stored: Path,
    version: NDArray[np.int64],
    places: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> None:
    """Store places, whole or not at all: several processes may do so at once."""
    try:
        handle, name = tempfile.mkstemp(dir=stored.parent, prefix=f"{stored.name}.")
        with os.fdopen(handle, "wb") as file:
            np.savez(file, version=version, starts=places[0], ends=places[1])
        Path(name).replace(stored)
    except OSError as error:
        logger.warning("%s cannot be written, so the next start scans again: %s", stored, error)
