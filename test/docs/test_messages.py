# SPDX-License-Identifier: Apache-2.0
"""The code can print the messages quoted in the pages."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from pages import ROOT, fenced_blocks

OTHERS = (
    "offering incompatible QoS",
    "out of range. Min:",
    "Trying to set parameter",
    "A module that was compiled using NumPy 1.x cannot be run in",
    "NumPy 2.0.0 as it may crash.",
)
"""Texts of rclpy and of NumPy."""


def test_quoted_messages_are_in_the_code():
    page = ROOT / "docs" / "troubleshooting.md"
    quoted = [
        re.sub(r"^\[[A-Z]+\] \[\w+\]: ", "", line)
        for language, block in fenced_blocks(page)
        if language == "text"
        for line in block.splitlines()
    ]
    ours = [line for line in quoted if not any(other in line for other in OTHERS)]
    assert ours
    templates = [t for file in (ROOT / "vlm3_ros").rglob("*.py") for t in message_templates(file)]
    assert [line for line in ours if known_share(line, templates) < 0.45] == []


def message_templates(file: Path) -> list[re.Pattern[str]]:
    """Patterns of the texts in a source file: fields of f-strings match anything."""
    patterns = []
    for node in ast.walk(ast.parse(file.read_text())):
        parts = node.values if isinstance(node, ast.JoinedStr) else [node]
        fixed = [p.value for p in parts if isinstance(p, ast.Constant) and isinstance(p.value, str)]
        if sum(map(len, fixed)) >= 10:
            pattern = "".join(
                f"({re.escape(part.value)})" if isinstance(part, ast.Constant) else ".*?"
                for part in parts
            )
            patterns.append(re.compile(pattern))
    return patterns


def known_share(line: str, templates: list[re.Pattern[str]]) -> float:
    """Share of a line that is fixed text of a template that fits the whole line."""
    known = [False] * len(line)
    for template in templates:
        if match := template.search(line):
            for group in range(1, 1 + template.groups):
                start, end = match.span(group)
                known[start:end] = [True] * (end - start)
    return sum(known) / len(line)
