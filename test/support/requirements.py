# SPDX-License-Identifier: Apache-2.0
"""The requirements in setup.py, read without running it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_SETUP = Path(__file__).resolve().parents[2] / "setup.py"


def _assigned(name: str) -> Any:
    """Value of a literal in setup.py."""
    for node in ast.parse(_SETUP.read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return ast.literal_eval(node.value)
    raise LookupError(name)


REQUIREMENTS: list[str] = _assigned("REQUIREMENTS")
EXTRAS: dict[str, list[str]] = _assigned("EXTRAS")


def versions(lines: Iterable[str]) -> dict[str, str]:
    """Versions by name, such as {"numpy": ">=1.26,<3"}; comments are left out."""
    matches = (re.match(r"([\w-]+)(.*)", line) for line in lines)
    return {match[1]: match[2] for match in matches if match}
