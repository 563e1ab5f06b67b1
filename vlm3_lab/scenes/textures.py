# SPDX-License-Identifier: Apache-2.0
"""Surface patterns of standard pitch: bricks, tiles and boards give an image its metric scale.

A pattern is a grey picture that repeats every `period` metres and mixes the two colours of a
surface. Each pattern has smaller copies (mip levels), so that distant surfaces do not flicker.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE = 128
LEVELS = 7

Pattern = Callable[[np.random.Generator], NDArray[np.float32]]


def _noise(rng: np.random.Generator, octaves: tuple[int, ...]) -> NDArray[np.float32]:
    """Tileable value noise in [0, 1]; an octave is the number of cells along a side."""
    picture = np.zeros((SIDE, SIDE), np.float32)
    for cells in octaves:
        coarse = np.pad(rng.random((cells, cells), dtype=np.float32), 2, mode="wrap")
        margin = 2 * SIDE // cells
        fine = cv2.resize(coarse, (SIDE + 2 * margin,) * 2, interpolation=cv2.INTER_CUBIC)
        picture += fine[margin : margin + SIDE, margin : margin + SIDE]
    return np.clip(picture / len(octaves), 0, 1)


def _joints(columns: int, rows: int, width: float, shift: float = 0.0) -> NDArray[np.float32]:
    """1 on stones, 0 in joints of `width` (share of a stone's height); `shift` offsets the rows."""
    v, u = np.meshgrid(
        (np.arange(SIDE) + 0.5) / SIDE, (np.arange(SIDE) + 0.5) / SIDE, indexing="ij"
    )
    row = np.floor(v * rows)
    along = (u * columns + row * shift) % 1
    across = (v * rows) % 1
    edge_u = width * columns / rows if columns < rows else width
    stone = (np.minimum(along, 1 - along) > edge_u / 2) & (
        np.minimum(across, 1 - across) > width / 2
    )
    return stone.astype(np.float32)


def _stones(
    rng: np.random.Generator, columns: int, rows: int, width: float, shift: float, vary: float
) -> NDArray[np.float32]:
    """Stones of slightly different brightness between dark joints."""
    v, u = np.meshgrid(
        (np.arange(SIDE) + 0.5) / SIDE, (np.arange(SIDE) + 0.5) / SIDE, indexing="ij"
    )
    row = np.floor(v * rows).astype(int)
    column = np.floor(u * columns + row * shift).astype(int) % columns
    tone = 1 - vary * rng.random((rows, columns), dtype=np.float32)
    return _joints(columns, rows, width, shift) * tone[row, column]


def _panels(columns: int, rows: int, frame: float) -> NDArray[np.float32]:
    """Panes (1) in a frame (0), as on doors and windows."""
    v, u = np.meshgrid(
        (np.arange(SIDE) + 0.5) / SIDE, (np.arange(SIDE) + 0.5) / SIDE, indexing="ij"
    )
    along, across = (u * columns) % 1, (v * rows) % 1
    pane = (np.minimum(along, 1 - along) > frame * columns / 2) & (
        np.minimum(across, 1 - across) > frame * rows / 2
    )
    return pane.astype(np.float32)


def _checker(rng: np.random.Generator) -> NDArray[np.float32]:
    half = np.arange(SIDE) < SIDE // 2
    return (half[:, None] ^ half[None]).astype(np.float32) * 0.8 + 0.2 * _noise(rng, (32,))


PATTERNS: dict[str, tuple[tuple[float, float], Pattern]] = {
    # name: (period along u and v in metres, or (0, 0) for "once over the surface"; picture)
    "plain": ((3.0, 3.0), lambda rng: 0.85 + 0.15 * _noise(rng, (2, 4))),
    "plaster": ((2.0, 2.0), lambda rng: _noise(rng, (4, 16, 64))),
    "carpet": ((1.0, 1.0), lambda rng: _noise(rng, (64, 128))),
    "asphalt": ((1.0, 1.0), lambda rng: _noise(rng, (2, 32, 128))),
    "grass": ((1.5, 1.5), lambda rng: _noise(rng, (8, 32, 128))),
    "bricks": ((0.5, 0.45), lambda rng: _stones(rng, 2, 6, 0.16, 0.5, 0.35)),
    "blocks": ((0.8, 0.8), lambda rng: _stones(rng, 2, 4, 0.07, 0.5, 0.2)),
    "tiles_30": ((0.6, 0.6), lambda rng: _stones(rng, 2, 2, 0.05, 0.0, 0.15)),
    "tiles_60": ((1.2, 1.2), lambda rng: _stones(rng, 2, 2, 0.03, 0.0, 0.15)),
    "checker_50": ((1.0, 1.0), _checker),
    "boards": ((1.2, 0.56), lambda rng: _stones(rng, 1, 4, 0.07, 0.5, 0.4)),
    "slabs_40": ((0.8, 0.8), lambda rng: _stones(rng, 2, 2, 0.05, 0.5, 0.25)),
    "planks": ((0.48, 2.0), lambda rng: _stones(rng, 4, 1, 0.10, 0.0, 0.35)),
    "door": ((0.0, 0.0), lambda rng: _panels(2, 3, 0.06)),
    "window": ((0.0, 0.0), lambda rng: _panels(2, 2, 0.05)),
    "shelf": ((0.0, 0.0), lambda rng: _panels(1, 5, 0.03)),
    "crate": ((0.0, 0.0), lambda rng: _panels(1, 1, 0.12) * _joints(1, 5, 0.12)),
    "ceiling": ((1.2, 1.2), lambda rng: _joints(2, 2, 0.04)),
}
"""Pitches follow common building practice: bricks of 250 x 75 mm including joints, floor tiles of
300 and 600 mm, boards of 140 mm, paving slabs of 400 mm, fence planks of 120 mm, ceiling panels of
600 mm."""

NAMES = tuple(PATTERNS)
PERIODS = np.array([period for period, _ in PATTERNS.values()], np.float32)


@lru_cache(maxsize=1)
def atlas() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """All patterns and their mip levels in one flat array, and the start of each.

    Returns:
        values, shape (n,), in [0, 1]; offsets, shape (patterns, LEVELS). Level k of a pattern has
        (SIDE >> k) x (SIDE >> k) values in row-major order.
    """
    rng = np.random.default_rng(2000)
    values: list[NDArray[np.float32]] = []
    offsets = np.zeros((len(NAMES), LEVELS), np.int64)
    end = 0
    for index, (_, draw) in enumerate(PATTERNS.values()):
        picture = draw(rng).astype(np.float32)
        for level in range(LEVELS):
            side = SIDE >> level
            offsets[index, level] = end
            small = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
            values.append(small.ravel().astype(np.float32))
            end += side * side
    return np.concatenate(values), offsets
