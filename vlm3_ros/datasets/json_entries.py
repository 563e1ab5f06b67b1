# SPDX-License-Identifier: Apache-2.0
"""Entries of a large JSON file, read one at a time.

The file is an array of objects, or one object after the other; a `.jsonl` file has one in each
line. It may hold many gigabytes: only the place of each entry is kept in memory. The places are
found in one pass over the file, and kept in the user's cache folder.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlm3_ros.datasets.cache import cached_arrays, keep_arrays
from vlm3_ros.errors import DatasetError

KEPT_FROM = 64 << 20
"""Bytes of a file whose places are kept: they are found in smaller ones within a moment."""

_VERSION = 1

_BLOCK = 16 << 20
"""Bytes that are scanned at once."""

_QUOTE, _BACKSLASH, _OPEN, _CLOSE, _NEWLINE = b'"\\{}\n'

_SHORT = 64
"""Bytes of a line that may be blank: no data set has shorter entries."""


@dataclass(frozen=True)
class JsonEntries:
    """Entries of a file.

    `starts`, `sizes`: byte where each entry starts, and its number of bytes, shape (n,). `lines`:
    the line of each one, from 1; None if the file is not one of lines.
    """

    path: Path
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]
    lines: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.starts)

    def read(self, index: int) -> dict[str, Any]:
        """Read an entry.

        Raises:
            DatasetError: naming the entry, if it is no JSON object or cannot be read.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(int(self.starts[index]))
                entry = json.loads(file.read(int(self.sizes[index])))
        except (OSError, ValueError) as error:
            raise DatasetError(f"{self.name(index)}: {error}") from error
        if not isinstance(entry, dict):
            raise DatasetError(f"{self.name(index)}: it is not a JSON object")
        return entry

    def name(self, index: int) -> str:
        """Return the name of an entry in messages."""
        if self.lines is not None:
            return f"{self.path}:{self.lines[index]}"
        return f"{self.path}, entry {index + 1}"


def open_entries(path: Path) -> JsonEntries:
    """Find the entries of a file, or read where they were found before.

    Raises:
        DatasetError: if the file cannot be read, holds no entry, or ends within one.
    """
    is_lines = path.suffix == ".jsonl"
    try:
        stat = path.stat()
        key = json.dumps([_VERSION, stat.st_size, stat.st_mtime_ns])
        is_kept = stat.st_size >= KEPT_FROM
        arrays = (cached_arrays("entries", path, key) if is_kept else None) or {}
        if not {"starts", "ends"} <= arrays.keys():
            arrays = _scan_lines(path) if is_lines else _scan(path)
            if is_kept:
                keep_arrays("entries", path, key, arrays)
    except OSError as error:
        raise DatasetError(f"{path}: it cannot be read: {error.strerror}") from error
    if not len(arrays["starts"]):
        raise DatasetError(f"{path}: it holds no JSON object")
    sizes = arrays["ends"] - arrays["starts"]
    return JsonEntries(path, arrays["starts"], sizes, arrays.get("lines"))


def _scan_lines(path: Path) -> dict[str, NDArray[Any]]:
    """Find the lines that are not blank."""
    newlines = [np.flatnonzero(block == _NEWLINE) + offset for offset, block in _blocks(path)]
    ends = np.concatenate([np.zeros(0, np.int64), *newlines, [path.stat().st_size]])
    starts = np.concatenate([[0], ends[:-1] + 1])
    is_blank = ends <= starts
    with path.open("rb") as file:
        for number in np.flatnonzero((ends - starts < _SHORT) & ~is_blank).tolist():
            file.seek(int(starts[number]))
            is_blank[number] = not file.read(int(ends[number] - starts[number])).strip()
    kept = np.flatnonzero(~is_blank)
    return {"starts": starts[kept], "ends": ends[kept], "lines": kept + 1}


def _scan(path: Path) -> dict[str, NDArray[Any]]:
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
    return {"starts": np.concatenate(starts), "ends": np.concatenate(ends)}


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
