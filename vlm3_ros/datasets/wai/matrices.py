# SPDX-License-Identifier: Apache-2.0
"""Matrices of covisibility that map-anything computed.

Element (i, j) is the share of all pixels of frame i whose point frame j shows, by depth and poses;
element (i, i) is the share of its pixels whose depth is known. A file may have gigabytes, so it is
mapped and only the rows that are needed are read.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlm3_ros.errors import DatasetError

FOLDER = "covisibility"


def matrix_file(scene: Path, named: str) -> Path | None:
    """Find the matrix of a scene.

    Args:
        scene: its folder.
        named: the file that its metadata names, relative to it; "" if none.

    Returns:
        The file; where none is named, the first one in the folders of `FOLDER`, as matrices that
        were downloaded apart lie there; None if there is none.
    """
    if named and (scene / named).is_file():
        return scene / named
    return next(iter(sorted((scene / FOLDER).glob("*/*.npy"))), None)


def open_matrix(path: Path, frames: int) -> NDArray[np.floating]:
    """Map a matrix into memory, shape (frames, frames).

    Raises:
        DatasetError: naming the file that is broken or has another shape.
    """
    try:
        matrix: NDArray[np.floating] = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # numpy raises anything on broken files
        raise DatasetError(f"{path}: the matrix cannot be read: {error}") from error
    if matrix.shape != (frames, frames) or matrix.dtype.kind != "f":
        raise DatasetError(
            f"{path}: it holds {matrix.dtype} of shape {matrix.shape}, not the covisibility of "
            f"{frames} frames"
        )
    return matrix


def covisible(matrix: NDArray[np.floating], place: int, least: float) -> NDArray[np.int64]:
    """Return frames that show at least a share of a frame's known pixels.

    Args:
        matrix: shape (n, n).
        place: of the frame.
        least: share, in (0, 1].

    Returns:
        Their places, without its own, shape (k,); none if it has no depth.
    """
    shares = np.array(matrix[place], dtype=float)
    known = shares[place]
    shares[place] = 0
    return np.flatnonzero((shares >= least * known) & (known > 0))


def is_covisible(matrix: NDArray[np.floating], first: int, second: int, least: float) -> bool:
    """Whether the second frame shows at least a share of the first one's known pixels."""
    known = float(matrix[first, first])
    return known > 0 and float(matrix[first, second]) >= least * known
