# SPDX-License-Identifier: Apache-2.0
"""Locate objects in 3D, and measure them, from their boxes in an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlm3_ros.engines.base import Engine
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.language.wordings.objects import SIZES
from vlm3_ros.tasks.depth import ask_depth
from vlm3_ros.tasks.learned import has_learned
from vlm3_ros.tasks.objects import OBJECTS, Box, Quantity, ask_objects

_SHARES = (0.25, 0.5, 0.75)
"""Where to ask for depth along each side of a box: objects rarely fill its corners."""

QUESTIONS = len(_SHARES) ** 2 + len(SIZES)
"""Number of questions per object."""


@dataclass(frozen=True)
class LocatedObject:
    """A box in 3D, its sides along the axes of the optical frame (X right, Y down, Z forward).

    Attributes:
        centre: metres, shape (3,).
        size: metres along X, Y and Z, shape (3,). A camera does not see how deep an object is:
            the size along Z is assumed to be the smaller of width and height.
        depth_std: standard deviation of the centre's Z, metres; NaN if the engine does not know
            it.
    """

    centre: NDArray[np.float64]
    size: NDArray[np.float64]
    depth_std: float

    @property
    def distance(self) -> float:
        """Metres from the camera to the centre."""
        return float(np.linalg.norm(self.centre))


def locate_objects(
    engine: Engine,
    image: NDArray[np.uint8],
    camera: PinholeCamera,
    boxes: Sequence[Box],
    object_engine: Engine | None = None,
    scale: float = 1.0,
) -> list[LocatedObject | None]:
    """Ask where objects are and how large they are.

    The depth of an object is the lower quartile of the depths of a grid of pixels in its box,
    since other pixels show what is behind it. The centre lies behind it by half of the object's
    size along Z, on the ray through the middle of the box. Width and height are the model's
    answers; if it gives none, or did not learn to, they are those of the box at that depth.
    `benchmarks/object_boxes.py` measures the errors of these choices.

    Args:
        engine: answers about depth.
        image: rectified RGB, shape (camera.height, camera.width, 3), uint8.
        camera: its intrinsics.
        boxes: outermost pixels of each object, in the image.
        object_engine: answers about sizes; None for the same model.
        scale: factor on depths, not on answered sizes.

    Returns:
        One per box; None if no depth could be read.

    Raises:
        GeometryError: if the image does not fit its camera or the engine's limits, or a pixel or
            a box does not lie in the image.
        EngineError: if the model did not learn metric depth, or cannot answer.
    """
    if not boxes:
        return []
    corners = np.array(boxes, dtype=float).reshape(-1, 2, 2)
    depth, std = (scale * x for x in _nearer_depths(engine, image, camera, corners))
    middles, sides = corners.mean(axis=1), corners[:, 1] - corners[:, 0] + 1
    size = sides / (camera.fx, camera.fy) * depth[:, None]
    answered = _answered_sizes(object_engine or engine, image, camera, boxes)
    size = np.where(np.isfinite(answered), answered, size)
    deep = size.min(axis=1)
    centres = camera.unproject(middles, depth + deep / 2)
    return [
        LocatedObject(centre, np.array([*across, z]), float(spread))
        if np.isfinite(centre).all()
        else None
        for centre, across, z, spread in zip(centres, size, deep, std, strict=True)
    ]


def _nearer_depths(
    engine: Engine,
    image: NDArray[np.uint8],
    camera: PinholeCamera,
    corners: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Ask for the depth of each object and its std, metres, shapes (n,); NaN if unread."""
    grid = np.stack(np.meshgrid(_SHARES, _SHARES), axis=-1).reshape(1, -1, 2)
    pixels = corners[:, :1] + grid * (corners[:, 1:] - corners[:, :1])
    answers = ask_depth(engine, image, camera, pixels)
    depth = answers.depth.astype(float).reshape(len(corners), -1)
    std = answers.std.astype(float).reshape(len(corners), -1)
    order = np.argsort(depth, axis=1)  # NaN comes last
    known = np.count_nonzero(np.isfinite(depth), axis=1)
    chosen = order[np.arange(len(order)), np.maximum(known - 1, 0) // 4]
    rows = np.arange(len(order))
    return depth[rows, chosen], std[rows, chosen]


def _answered_sizes(
    engine: Engine, image: NDArray[np.uint8], camera: PinholeCamera, boxes: Sequence[Box]
) -> NDArray[np.float64]:
    """Ask for width and height, metres, shape (n, 2); NaN if unread or not learned."""
    if not has_learned(engine, OBJECTS):
        return np.full((len(boxes), len(SIZES)), np.nan)
    questions = [Quantity(size, box) for box in boxes for size in SIZES]
    sizes = np.array(ask_objects(engine, image, camera, questions).values, dtype=float)
    return np.where(sizes > 0, sizes, np.nan).reshape(-1, len(SIZES))
