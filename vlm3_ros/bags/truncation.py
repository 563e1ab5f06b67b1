# SPDX-License-Identifier: Apache-2.0
"""Truncated mcap recordings: how much is complete, and how to read it.

An mcap file is a list of records: one byte of type, eight bytes of length, then the content. A
recording that was cut off lacks the index at the end and the end of its last record; the records
before are complete (https://mcap.dev/spec).
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

_MAGIC = b"\x89MCAP0\r\n"
_RECORD_HEAD = struct.Struct("<BQ")
_FOOTER, _MESSAGE, _CHUNK, _MESSAGE_INDEX = 0x02, 0x05, 0x06, 0x07
_NO_SUMMARY = _RECORD_HEAD.pack(_FOOTER, 20) + bytes(20)
"""The footer of a file without an index; readers then scan the records."""


@dataclass(frozen=True)
class WholePart:
    """The complete records at the start of a file.

    `messages`: number of messages whose record or index is complete. `start_ns`, `end_ns`: first
    and last recording time of the chunks and messages among them, 0 without any.
    """

    file_bytes: int
    whole_bytes: int
    messages: int
    start_ns: int
    end_ns: int
    has_footer: bool

    @property
    def truncated(self) -> bool:
        """Whether the end of the file is missing."""
        return not self.has_footer

    def __str__(self) -> str:
        seconds = (self.end_ns - self.start_ns) / 1e9
        return (
            f"{self.whole_bytes:,} of its {self.file_bytes:,} bytes are complete records, "
            f"with {self.messages} messages over {seconds:.1f} s"
        )


def whole_part(path: Path) -> WholePart:
    """Measure how much of an mcap file can be read.

    Raises:
        OSError: if the file cannot be opened.
    """
    size = path.stat().st_size
    messages, whole, footer = 0, 0, False
    stamps: list[int] = []
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) == _MAGIC:
            whole = len(_MAGIC)
            while not footer and (record := _next_record(file, size)) is not None:
                kind, length = record
                start = file.tell()
                if kind == _CHUNK and length >= 16:
                    stamps += struct.unpack("<QQ", file.read(16))
                elif kind == _MESSAGE and length >= 14:
                    stamps.append(struct.unpack("<6xQ", file.read(14))[0])
                    messages += 1
                elif kind == _MESSAGE_INDEX and length >= 6:
                    messages += struct.unpack("<2xI", file.read(6))[0] // 16
                whole = file.seek(start + length)
                footer = kind == _FOOTER
    return WholePart(size, whole, messages, min(stamps, default=0), max(stamps, default=0), footer)


def mcap_files(path: Path) -> list[Path]:
    """The mcap files of a bag folder, or the file itself."""
    if path.is_dir():
        return sorted(path.glob("*.mcap"))
    return [path] if path.suffix == ".mcap" and path.is_file() else []


@contextmanager
def readable_bag(path: Path) -> Iterator[tuple[Path, str | None]]:
    """A bag to open: the bag itself, or a copy of the complete part of one truncated mcap.

    Yields:
        The path and a description of the damage; None if nothing is missing or cannot be repaired.
    """
    files = mcap_files(path)
    part = whole_part(files[0]) if len(files) == 1 else None
    if part is None or not part.truncated or not part.messages:
        yield path, None
        return
    with TemporaryDirectory() as folder:
        copy = Path(folder) / files[0].name
        shutil.copyfile(files[0], copy)
        with copy.open("r+b") as file:
            file.truncate(part.whole_bytes)
            file.seek(part.whole_bytes)
            file.write(_NO_SUMMARY + _MAGIC)
        yield copy, f"{files[0].name}: the recording is truncated: {part}"


def _next_record(file: BinaryIO, size: int) -> tuple[int, int] | None:
    """Type and content length of the next record; None if it is incomplete."""
    head = file.read(_RECORD_HEAD.size)
    if len(head) < _RECORD_HEAD.size:
        return None
    kind, length = _RECORD_HEAD.unpack(head)
    return (kind, length) if file.tell() + length <= size else None
