# SPDX-License-Identifier: Apache-2.0
"""Read the Markdown pages."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "models").glob("*/README.md")),
]


def page_name(page: Path) -> str:
    """The names of the pages, for test ids."""
    return str(page.relative_to(ROOT))


def fenced_blocks(page: Path) -> list[tuple[str, str]]:
    """Language (may be empty) and text of each fenced block."""
    return re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def commands(page: Path) -> Iterator[list[str]]:
    """The words of each command in the fenced blocks, without prompts, comments and `...`."""
    for _, block in fenced_blocks(page):
        for line in re.sub(r"\\\n\s*", " ", block).splitlines():
            try:
                words = shlex.split(line.removeprefix("$ "), comments=True)
            except ValueError:  # a table with an apostrophe, say
                continue
            if words:
                yield [word for word in words if word != "..."]


def inline_commands(page: Path) -> Iterator[list[str]]:
    """The words of each code span."""
    for span in re.findall(r"`([^`]+)`", prose(page)):
        try:
            words = shlex.split(span)
        except ValueError:
            continue
        if words:
            yield words


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
