# SPDX-License-Identifier: Apache-2.0
"""Point clouds as PLY files, which MeshLab, CloudCompare, Open3D and Blender open."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

_VERTEX = np.dtype(
    [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("red", "u1"), ("green", "u1"), ("blue", "u1")]
)


def write_ply(path: Path | str, points: ArrayLike, colours: NDArray[np.uint8]) -> int:
    """Write a coloured cloud as binary little-endian PLY.

    Args:
        path: of the file, whose folder exists.
        points: metres, shape (n, 3); points that are not finite are left out.
        colours: RGB, shape (n, 3), uint8.

    Returns:
        The number of points written.
    """
    points = np.asarray(points, dtype=float)
    finite = np.isfinite(points).all(axis=1)
    vertices = np.empty(int(finite.sum()), _VERTEX)
    for axis, name in enumerate("xyz"):
        vertices[name] = points[finite, axis]
    for channel, name in enumerate(("red", "green", "blue")):
        vertices[name] = colours[finite, channel]
    types = {"<f4": "float", "|u1": "uchar"}
    properties = "".join(f"property {types[_VERTEX[n].str]} {n}\n" for n in _VERTEX.names or ())
    head = (
        f"ply\nformat binary_little_endian 1.0\nelement vertex {len(vertices)}\n"
        f"{properties}end_header\n"
    )
    Path(path).write_bytes(head.encode("ascii") + vertices.tobytes())
    return len(vertices)
