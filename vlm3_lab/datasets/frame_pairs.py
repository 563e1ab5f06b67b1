# SPDX-License-Identifier: Apache-2.0
"""Two frames of a recording that show the same: how much, and where.

Depth cameras err, have holes, and a LiDAR's points are sparse: an unknown depth stands for the
nearest known one around, and depths are the same within `bag_truth.SAME_DEPTH`.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import distance_transform_edt

from vlm3_lab.datasets.reading import Pair, Split
from vlm3_lab.scenes.view_pairs import MIN_COVISIBILITY
from vlm3_lab.scenes.views import View
from vlm3_ros.evaluation.bag.truth import pixels_shown
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.geometry.motion import Transform, inverse, rotation_angle

HOLE = 0.03
"""Share of the width up to which an unknown depth is that of the nearest known pixel."""

STEPS = (1, 2, 3, 5, 8, 13, 21, 34)
"""How many kept frames later the second one of a pair may be."""

_WIDTH = 160
"""Pixels of a row at which covisibility is measured, about; a depth stands for a block of them."""

_POINTS = 800
"""Pixels of a frame that tell its covisibility, about."""


@dataclass(frozen=True)
class Place:
    """A frame as pairs need it: its reduced depth and its pose.

    `depth`: metres, holes filled, shape (camera.height, camera.width); `pixels`: some where it was
    known, shape (n, 2). `T_world_camera`: None where unknown.
    """

    camera: PinholeCamera
    depth: NDArray[np.float32]
    pixels: NDArray[np.float64]
    T_world_camera: Transform | None
    split: Split


def place(
    camera: PinholeCamera,
    depth: NDArray[np.float32],
    T_world_camera: Transform | None,
    split: Split,
) -> Place:
    """Reduce a frame; `depth` in metres, shape (camera.height, camera.width), NaN where unknown."""
    step = max(1, round(camera.width / _WIDTH))
    height, width = camera.height // step, camera.width // step
    blocks = depth[: height * step, : width * step].reshape(height, step, width, step)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # blocks without any depth
        small = np.nanmedian(blocks, axis=(1, 3)).astype(np.float32)
    cropped = PinholeCamera(width * step, height * step, camera.fx, camera.fy, camera.cx, camera.cy)
    rows, columns = np.nonzero(np.isfinite(small))
    known = np.stack([columns, rows], -1).astype(float)
    return Place(
        cropped.resized(width, height),
        filled(small),
        known[:: max(1, len(known) // _POINTS)],
        T_world_camera,
        split,
    )


def filled(depth: NDArray[np.float32]) -> NDArray[np.float32]:
    """Depth with its holes filled from the nearest known pixel, up to `HOLE`; NaN beyond."""
    unknown = ~np.isfinite(depth)
    if unknown.all() or not unknown.any():
        return depth
    distance, nearest = distance_transform_edt(unknown, return_indices=True)
    whole: NDArray[np.float32] = depth[tuple(nearest)]
    return np.where(distance <= HOLE * depth.shape[1], whole, np.float32(np.nan))


def matches(first: View, second: View, pixels1: ArrayLike) -> NDArray[np.float64]:
    """Where the second frame shows what the first one shows at pixels with known depth.

    Args:
        first: of a data set, with its pose.
        second: of the same bag.
        pixels1: (u, v) whole numbers in the first frame, shape (n, 2).

    Returns:
        (u, v), shape (n, 2), NaN where the depth is unknown, or the second frame shows another
        depth there, or none.
    """
    return pixels_shown(
        (first.camera, second.camera),
        (first.depth, filled(second.depth)),
        inverse(first.T_world_camera) @ second.T_world_camera,
        pixels1,
    )


def covisibility(first: Place, second: Place) -> float:
    """Share of a frame that the other one shows, the smaller of both ways; in [0, 1]."""
    return min(_shown_share(first, second), _shown_share(second, first))


def find_pairs(
    places: Sequence[Place], progress: Callable[[int, int], None] = lambda done, total: None
) -> tuple[list[Pair], Counter[str]]:
    """Pairs of frames of a bag that are up to `STEPS` apart and show enough of the same.

    Args:
        places: in the order of time.
        progress: told how many frames are done, and of all.

    Returns:
        The pairs by places in this order, and how many candidates are none, by reason.
    """
    pairs: list[Pair] = []
    left_out: Counter[str] = Counter()
    for i, first in enumerate(places):
        for step in STEPS:
            if i + step >= len(places) or places[i + step].split != first.split:
                break
            second = places[i + step]
            if first.T_world_camera is None or second.T_world_camera is None:
                left_out["the pose of a frame is unknown"] += 1
                continue
            share = covisibility(first, second)
            if share < MIN_COVISIBILITY:
                left_out[f"covisibility below {MIN_COVISIBILITY:.0%}"] += 1
                continue
            motion = inverse(first.T_world_camera) @ second.T_world_camera
            baseline = float(np.linalg.norm(motion[:3, 3]))
            turned = float(np.degrees(rotation_angle(motion)))
            pairs.append(Pair(i, i + step, share, baseline, turned, first.split))
        progress(i + 1, len(places))
    return pairs, left_out


def _shown_share(first: Place, second: Place) -> float:
    if not len(first.pixels):
        return 0.0
    assert first.T_world_camera is not None and second.T_world_camera is not None
    shown = pixels_shown(
        (first.camera, second.camera),
        (first.depth, second.depth),
        inverse(first.T_world_camera) @ second.T_world_camera,
        first.pixels,
    )
    return float(np.isfinite(shown[:, 0]).mean())
