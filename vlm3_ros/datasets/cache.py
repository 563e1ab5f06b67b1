# SPDX-License-Identifier: Apache-2.0
"""Arrays that took long to find in a data set, kept in the user's cache folder.

They are never needed: a cache that is damaged, of another version or cannot be written costs time
only.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

logger = logging.getLogger(__name__)


def cached_arrays(kind: str, source: Path, key: str) -> dict[str, NDArray[Any]] | None:
    """Return the arrays that `keep_arrays` kept with the same arguments; None if there are none."""
    try:
        with np.load(_file(kind, source), allow_pickle=False) as arrays:
            if arrays["key"].tobytes().decode() == key:
                return {name: arrays[name] for name in arrays.files}
    except Exception:  # a damaged file raises anything, and can be made anew
        pass
    return None


def keep_arrays(kind: str, source: Path, key: str, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Keep arrays about a data set, whole or not at all: several processes may do so at once.

    Args:
        kind: of the arrays; each kind keeps its own about a data set.
        source: file or folder of the data set.
        key: state of the data set and of the program, such as sizes, times and a version.
        arrays: by name.
    """
    path = _file(kind, source)
    part = path.with_name(f"{path.stem}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            stored: dict[str, Any] = {"key": np.frombuffer(key.encode(), np.uint8), **arrays}
            np.savez(file, **stored)
        part.replace(path)
    except OSError as error:
        logger.info("%s: the index of %s is not kept: %s", path, source, error.strerror)
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def _file(kind: str, source: Path) -> Path:
    home = Path.home() / ".cache" if "HOME" in os.environ else Path(tempfile.gettempdir())
    base = Path(os.environ.get("XDG_CACHE_HOME") or home)
    name = hashlib.sha256(json.dumps([kind, str(source.resolve())]).encode()).hexdigest()[:32]
    return base / "vlm3_ros" / f"{name}.npz"
