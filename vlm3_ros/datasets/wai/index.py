# SPDX-License-Identifier: Apache-2.0
"""All frames of a data set as arrays, built once and kept in the user's cache folder.

A data set may hold millions of frames: an index holds no Python object per frame, and processes
that are forked from the one that opened it share its memory.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlm3_ros.datasets.cache import cached_arrays, keep_arrays
from vlm3_ros.datasets.wai.scene_meta import (
    DISTORTED_META,
    FRAME,
    SCENE_META,
    FrameFiles,
    Scene,
    read_scene,
)
from vlm3_ros.errors import DatasetError

_VERSION = 1
"""Of the cached arrays; others are built anew."""

_NAMED = 3
"""Frames and scenes that a note names."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Index:
    """The usable frames of a data set.

    Attributes:
        scenes: that hold frames.
        frames: of dtype `scene_meta.FRAME`; those of a scene follow each other.
        files: their `FrameFiles` as JSON texts, one after the other, UTF-8.
        ends: end of each frame's text in `files`.
        notes: what was left out and why.
    """

    scenes: Sequence[Scene]
    frames: NDArray[np.void]
    files: NDArray[np.uint8]
    ends: NDArray[np.int64]
    notes: list[str]

    def files_of(self, frame: int) -> FrameFiles:
        """Return the files of a frame."""
        start = self.ends[frame - 1] if frame else 0
        return FrameFiles(*json.loads(self.files[start : self.ends[frame]].tobytes()))


def scene_folders(root: Path) -> list[str]:
    """Folders of scenes relative to the data set's own; "." if it is one scene.

    Raises:
        DatasetError: if the folder cannot be read or there is none.
    """
    metas = (SCENE_META, DISTORTED_META)
    if any((root / meta).is_file() for meta in metas):
        return ["."]
    try:
        with os.scandir(root) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir())
    except OSError as error:
        raise DatasetError(f"{root}: it cannot be read: {error.strerror}") from error
    scenes = [name for name in names if any((root / name / meta).is_file() for meta in metas)]
    if not scenes:
        raise DatasetError(
            f"{root}: neither it nor a folder in it holds {SCENE_META}: give a data set of "
            "map-anything's WAI format, or one of its scenes"
        )
    return scenes


def load_index(root: Path, folders: Sequence[str], choice: str = "") -> Index:
    """Take the index of scenes from the cache, or build it and keep it there.

    Args:
        root: folder of the data set.
        folders: of its scenes, relative to it.
        choice: what chose them, for example a file: each choice has an index of its own.

    Raises:
        DatasetError: naming a scene and the reason, if no frame can be used.
    """
    key = json.dumps([_VERSION, *([folder, *_state(root / folder)] for folder in folders)])
    kind = f"wai {choice}"
    index = _from_arrays(cached_arrays(kind, root, key))
    if index is None:
        index = build_index(root, folders)
        texts = json.dumps({"scenes": index.scenes, "notes": index.notes})
        arrays = {
            "texts": np.frombuffer(texts.encode(), np.uint8),
            "frames": index.frames,
            "files": index.files,
            "ends": index.ends,
        }
        keep_arrays(kind, root, key, arrays)
    return index


def build_index(root: Path, folders: Sequence[str]) -> Index:
    """Read the metadata of all scenes; see `load_index`."""
    scenes: list[Scene] = []
    frames, files, ends = [np.zeros(0, FRAME)], bytearray(), []
    faults: dict[str, list[str]] = {}
    reasons: list[str] = []
    for folder in folders:
        try:
            read = read_scene(root, folder)
        except DatasetError as error:
            reasons.append(str(error))
            continue
        for fault, names in read.faults.items():
            faults.setdefault(fault, []).extend(names)
        if not len(read.frames):
            reasons.append(f"{root / folder}: no frame of it can be used")
            continue
        read.frames["scene"] = len(scenes)
        scenes.append(read.scene)
        frames.append(read.frames)
        for file in read.files:
            files += json.dumps(file, ensure_ascii=False, separators=(",", ":")).encode()
            ends.append(len(files))
    notes = [f"frames {fault} ({len(names)}: {some_of(names)})" for fault, names in faults.items()]
    if not scenes:
        raise DatasetError("; ".join([*reasons[:_NAMED], *notes]))
    if reasons:
        notes.insert(0, f"scenes left out ({len(reasons)}): {some_of(reasons, '; ')}")
    return Index(
        scenes,
        np.concatenate(frames),
        np.frombuffer(files, np.uint8),
        np.array(ends, np.int64),
        notes,
    )


def some_of(names: Sequence[str], separator: str = ", ") -> str:
    """Name the first few of many frames or scenes, and count the others."""
    more = len(names) - _NAMED
    return separator.join([*names[:_NAMED], *([f"and {more} more"] if more > 0 else [])])


def _state(folder: Path) -> tuple[int, int]:
    """Size and time of the metadata: if they change, the index is built anew."""
    try:
        stat = (folder / SCENE_META).stat()
    except OSError:
        return 0, 0
    return stat.st_size, stat.st_mtime_ns


def _from_arrays(arrays: dict[str, NDArray[Any]] | None) -> Index | None:
    if arrays is None:
        return None
    try:
        texts = json.loads(arrays["texts"].tobytes())
        scenes = [Scene(*scene) for scene in texts["scenes"]]
        index = Index(scenes, arrays["frames"], arrays["files"], arrays["ends"], texts["notes"])
    except (KeyError, TypeError, ValueError):
        return None
    is_whole = index.frames.dtype == FRAME and len(index.frames) == len(index.ends)
    return index if is_whole else None
