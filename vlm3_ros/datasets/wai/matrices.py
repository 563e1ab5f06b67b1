# SPDX-License-Identifier: Apache-2.0
"""Matrices of covisibility that map-anything computed.

Element (i, j) is the share of all pixels of frame i whose point frame j shows, by depth and poses;
element (i, i) is the share of its pixels whose depth is known. A file may have gigabytes, so it is
mapped and only the rows that are needed are read.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlm3_ros.datasets.wai.scene_meta import Scene

FOLDER = "covisibility"

_HEADER = 128
"""Bytes before the numbers, which are of 32 bits."""

_MOST_OPEN = 16
"""Matrices that are kept open."""

logger = logging.getLogger(__name__)


def find_matrices(root: Path, scenes: Sequence[Scene]) -> tuple[list[Path | None], list[str]]:
    """Find the matrices of scenes.

    A matrix that the metadata do not name is the first one in the folders of `FOLDER`: matrices
    that were downloaded apart lie there.

    Args:
        root: folder of the data set.
        scenes: its scenes.

    Returns:
        The file of each scene, None if there is none; and the names of scenes whose matrix is not
        one of their frames.
    """
    files: list[Path | None] = []
    wrong = []
    for scene in scenes:
        folder = root / scene.folder
        named = folder / scene.covisibility
        found = named if scene.covisibility and named.is_file() else None
        if found is None:
            found = next(iter(sorted((folder / FOLDER).glob("*/*.npy"))), None)
        if found is not None and found.stat().st_size != _HEADER + 4 * scene.frames**2:
            wrong.append(scene.name)
            found = None
        files.append(found)
    return files, wrong


class Matrices:
    """The matrices of scenes, mapped when they are needed.

    Attributes:
        has: which scenes have one, shape (n,).
    """

    def __init__(self, files: Sequence[Path | None], scenes: Sequence[Scene]):
        self.has = np.array([file is not None for file in files], bool)
        self._files, self._scenes = files, scenes
        self._opened = lru_cache(_MOST_OPEN)(self._open)

    def covisible(self, scene: int, place: int, least: float) -> NDArray[np.int64]:
        """Return frames that show at least a share of a frame, and of which it shows as much.

        Shares are of the pixels whose depth is known.

        Args:
            scene: number of a scene that has a matrix.
            place: of the frame in it.
            least: share, in (0, 1].

        Returns:
            Their places, without its own, shape (k,); none if it has no depth.
        """
        matrix = self._opened(scene)
        if matrix is None or not matrix[place, place] > 0:
            return np.zeros(0, np.int64)
        others = np.flatnonzero(matrix[place] >= least * matrix[place, place])
        others = others[others != place]
        known = matrix[others, others]
        return others[(known > 0) & (matrix[others, place] >= least * known)]

    def _open(self, scene: int) -> NDArray[np.float32] | None:
        path, frames = self._files[scene], self._scenes[scene].frames
        assert path is not None
        try:
            return np.memmap(path, np.float32, "r", _HEADER, (frames, frames))
        except (OSError, ValueError) as error:
            logger.warning("%s: the matrix of covisibility cannot be read: %s", path, error)
            return None
