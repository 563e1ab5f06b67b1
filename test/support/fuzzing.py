# SPDX-License-Identifier: Apache-2.0
"""Helpers of the tests in test/fuzz."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from hypothesis import strategies as st

Value = TypeVar("Value")


@st.composite
def damaged(draw: st.DrawFn, *whole: bytes) -> bytes:
    """One of the given contents with a few parts replaced, or arbitrary bytes."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=200))
    content = draw(st.sampled_from(whole))
    for _ in range(draw(st.integers(0, 4))):
        begin = draw(st.integers(0, len(content)))
        end = min(len(content), begin + draw(st.integers(0, 16)))
        content = content[:begin] + draw(st.binary(max_size=16)) + content[end:]
    return content[: draw(st.integers(0, len(content)))] if draw(st.booleans()) else content


def damaged_text(*whole: str) -> st.SearchStrategy[str]:
    """As `damaged`, decoded to text."""
    contents = [text.encode() for text in whole]
    return damaged(*contents).map(lambda content: content.decode(errors="replace"))


def attempt(
    refusals: tuple[type[Exception], ...], read: Callable[..., Value], *arguments: object
) -> tuple[Value | None, str]:
    """The result, or the text of an exception of the given types; others are raised."""
    try:
        return read(*arguments), ""
    except refusals as error:
        return None, f"refused: {error}"


def scratch_file(name: str, content: bytes) -> Path:
    """Write a temporary file of this process; a call with the same name overwrites it."""
    path = Path(_scratch().name) / name
    path.write_bytes(content)
    return path


@lru_cache(maxsize=1)
def _scratch() -> tempfile.TemporaryDirectory[str]:
    memory = Path("/dev/shm")
    base = memory if os.access(memory, os.W_OK) else None
    return tempfile.TemporaryDirectory(prefix="vlm3_fuzz_", dir=base)
