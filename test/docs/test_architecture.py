# SPDX-License-Identifier: Apache-2.0
"""Every module and folder that docs/architecture.md names exists, and it names every room."""

from __future__ import annotations

import re

from pages import ROOT

PAGE = re.sub(r"\(https?:[^)]*\)", "", (ROOT / "docs" / "architecture.md").read_text())
ROOMS = [
    folder
    for package in ("vlm3_ros", "vlm3_lab")
    for folder in sorted((ROOT / package).iterdir())
    if (folder / "__init__.py").is_file()
]


def named_paths() -> set[str]:
    """Paths such as `tasks/task.py` or `engines/`, without those that contain a placeholder."""
    found = re.findall(r"(?<![\w/.])((?:[a-z_0-9]+/)+(?:[a-z_0-9]+\.(?:py|json|md))?)", PAGE)
    return set(found)


def test_what_the_page_names_exists() -> None:
    roots = (ROOT, ROOT / "vlm3_ros", ROOT / "vlm3_lab")
    paths = named_paths()
    assert len(paths) > 40
    assert [path for path in sorted(paths) if not any((r / path).exists() for r in roots)] == []


def test_the_page_names_every_room() -> None:
    missing = [room.name for room in ROOMS if f"{room.name}/" not in PAGE]
    assert missing == []
