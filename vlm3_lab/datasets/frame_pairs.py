# SPDX-License-Identifier: Apache-2.0
"""Pairs of frames of a recording that show the same: covisibility and matches.

Depth cameras have errors and holes, and the points of a LiDAR are sparse. So holes are filled with
the nearest known depth, and depths are equal within `evaluation.bag.truth.SAME_DEPTH`.
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
"""Largest distance, as a share of the width, over which an unknown depth is filled."""

STEPS = (1, 2, 3, 5, 8, 13, 21, 34)
"""Distances between the frames of a pair, in kept frames."""

_WIDTH = 160
"""Approximate width at which covisibility is measured; images are reduced to it in blocks."""

_POINTS = 800
"""Approximate number of pixels per frame at which covisibility is measured."""


@dataclass(frozen=True)
class ReducedFrame:
    """A frame at reduced size, as needed to find pairs.

    `depth`: metres, holes filled, shape (camera.height, camera.width). `pixels`: a sample of pixels
    with known depth, shape (n, 2). `T_world_camera`: None if unknown.
    """

    camera: PinholeCamera
    depth: NDArray[np.float32]
    pixels: NDArray[np.float64]
    T_world_camera: Transform | None
    split: Split


def reduced_frame(
    camera: PinholeCamera,
    depth: NDArray[np.float32],
    T_world_camera: Transform | None,
    split: Split,
) -> ReducedFrame:
    """Reduce a frame; `depth`: metres, shape (camera.height, camera.width), NaN where unknown."""
    step = max(1, round(camera.width / _WIDTH))
    height, width = camera.height // step, camera.width // step
    blocks = depth[: height * step, : width * step].reshape(height, step, width, step)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # blocks without any depth
        small = np.nanmedian(blocks, axis=(1, 3)).astype(np.float32)
    cropped = PinholeCamera(width * step, height * step, camera.fx, camera.fy, camera.cx, camera.cy)
    rows, columns = np.nonzero(np.isfinite(small))
    known = np.stack([columns, rows], -1).astype(float)
    return ReducedFrame(
        cropped.resized(width, height),
        filled(small),
        known[:: max(1, len(known) // _POINTS)],
        T_world_camera,
        split,
    )


def filled(depth: NDArray[np.float32]) -> NDArray[np.float32]:
    """Fill holes in depth from the nearest known pixel within `HOLE`; NaN beyond."""
    unknown = ~np.isfinite(depth)
    if unknown.all() or not unknown.any():
        return depth
    distance, nearest = distance_transform_edt(unknown, return_indices=True)
    whole: NDArray[np.float32] = depth[tuple(nearest)]
    return np.where(distance <= HOLE * depth.shape[1], whole, np.float32(np.nan))


def matches(first: View, second: View, pixels1: ArrayLike) -> NDArray[np.float64]:
    """Pixels of the second frame that show the same points as pixels of the first frame.

    Args:
        first: a frame with its pose.
        second: a frame of the same bag.
        pixels1: (u, v) whole numbers in the first frame, shape (n, 2).

    Returns:
        (u, v), shape (n, 2); NaN if the depth is unknown in a frame, or differs between them.
    """
    return pixels_shown(
        (first.camera, second.camera),
        (first.depth, filled(second.depth)),
        inverse(first.T_world_camera) @ second.T_world_camera,
        pixels1,
    )


def covisibility(first: ReducedFrame, second: ReducedFrame) -> float:
    """Share of a frame that the other one shows, the smaller of both directions; in [0, 1]."""
    return min(_shown_share(first, second), _shown_share(second, first))


def find_pairs(
    frames: Sequence[ReducedFrame], progress: Callable[[int, int], None] = lambda done, total: None
) -> tuple[list[Pair], Counter[str]]:
    """Find pairs of frames of a bag, `STEPS` apart, with enough covisibility.

    Args:
        frames: in order of time.
        progress: called with the number of frames done and of all frames.

    Returns:
        The pairs, by index in `frames`, and the number of rejected candidates by reason.
    """
    pairs: list[Pair] = []
    left_out: Counter[str] = Counter()
    for i, first in enumerate(frames):
        for step in STEPS:
            if i + step >= len(frames) or frames[i + step].split != first.split:
                break
            second = frames[i + step]
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
        progress(i + 1, len(frames))
    return pairs, left_out


def _shown_share(first: ReducedFrame, second: ReducedFrame) -> float:
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
