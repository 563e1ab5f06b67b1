# SPDX-License-Identifier: Apache-2.0
"""Results as JSON files."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_json(path: Path | str, content: Mapping[str, Any]) -> None:
    """Write nested mappings, lists, numbers and texts as JSON.

    Numbers keep six digits. NaN and infinity become null, since JSON cannot hold them.
    """
    Path(path).write_text(json.dumps(_plain(content), indent=2) + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
