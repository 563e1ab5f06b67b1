# SPDX-License-Identifier: Apache-2.0
"""Pairs of views along robot paths, with their exact motion and exact matches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from typing_extensions import override

from vlm3_lab.scenes.sequences import Sequence, sample_sequence
from vlm3_lab.scenes.views import HEIGHTS, PITCH_DEG, sample_camera
from vlm3_ros.datasets.covisibility import MIN_COVISIBILITY
from vlm3_ros.datasets.views import View, ViewPair
from vlm3_ros.geometry.epipolar import transferred_pixels
from vlm3_ros.geometry.motion import Transform, inverse

SAME_DEPTH = 0.01
"""Relative difference of depth up to which two views show the same point.

Depth between pixels is interpolated exactly on planes and closely on balls, so this separates
surfaces, not errors.
"""

GRID_STEP = 8
"""Covisibility is measured at every eighth pixel of rows and columns, about 800 per view."""

RATE = 10.0
GAPS = (1, 20)
"""Poses per second, and least and most poses between the views of a pair: 0.1 to 2 s."""


@dataclass(frozen=True)
class RenderedPair(ViewPair):
    """Two views of one scene with exact depth; the second one is later on the same drive."""

    @override
    def matches(self, pixels1: ArrayLike) -> NDArray[np.float64]:
        return true_matches(self.first, self.second, pixels1)


@dataclass(frozen=True)
class DrivePair:
    """Two views and their drive; they are from its poses `start` and `start + gap`."""

    views: RenderedPair
    sequence: Sequence
    start: int
    gap: int

    @property
    def T_cam1_cam2_at_constant_velocity(self) -> Transform:
        """The motion of a camera that keeps its velocity, shape (4, 4), metres.

        It repeats the last step of the drive before the first view, `1 / RATE` seconds of exact
        motion, for every step between the views. If the drive begins with the first view (9 % of
        pairs, mostly those with the longest gaps), the step after it is used, which flatters this
        guess.
        """
        poses, here = self.sequence.path.T_world_base, max(self.start, 1)
        step = inverse(poses[here - 1]) @ poses[here]
        T_base_camera = self.sequence.T_base_camera
        repeated = np.linalg.matrix_power(step, self.gap)
        return inverse(T_base_camera) @ repeated @ T_base_camera


def true_matches(first: View, second: View, pixels1: ArrayLike) -> NDArray[np.float64]:
    """Pixels of the second view that show the same points as whole pixels of the first view.

    Args:
        first: a view.
        second: a view of the same scene.
        pixels1: (u, v) whole numbers in the first view, shape (n, 2).

    Returns:
        (u, v) in the second view, shape (n, 2), exact between pixels; NaN if the point is out of
        view, hidden by something nearer, or in the sky.
    """
    pixels1 = np.asarray(pixels1, dtype=float).reshape(-1, 2)
    columns, rows = pixels1.astype(int).T
    depth1 = np.where(np.isfinite(first.depth), first.depth, np.nan)[rows, columns].astype(float)
    T_cam2_cam1 = inverse(second.T_world_camera) @ first.T_world_camera
    pixels2 = transferred_pixels(inverse(T_cam2_cam1), first.camera, pixels1, depth1, second.camera)
    points = first.camera.unproject(pixels1, depth1)
    expected = points @ T_cam2_cam1[2, :3] + T_cam2_cam1[2, 3]
    shown = _inverse_depth(second.depth, pixels2)
    is_hidden = ~np.isclose(expected * shown, 1, rtol=0, atol=SAME_DEPTH)
    pixels2[is_hidden] = np.nan
    return pixels2


def covisibility(first: View, second: View) -> float:
    """Share of a view that the other one shows, the smaller of both directions; in [0, 1].

    The sky does not count; a view of the sky alone shares nothing.
    """
    return min(_visible_share(first, second), _visible_share(second, first))


def sample_pair(
    rng: np.random.Generator,
    kind: str | None = None,
    min_covisibility: float = MIN_COVISIBILITY,
    gaps: tuple[int, int] = GAPS,
) -> RenderedPair:
    """Draw two views with enough covisibility from a drive through a new scene.

    The logarithm of the time between them is drawn evenly, from consecutive frames up to a
    keyframe two seconds ago.

    Args:
        kind: one of `KINDS`; drawn evenly if None.
        min_covisibility: see `covisibility`.
        gaps: least and most poses between the views, at `RATE` poses per second.
    """
    return sample_drive_pair(rng, kind, min_covisibility, gaps).views


def sample_drive_pair(
    rng: np.random.Generator,
    kind: str | None = None,
    min_covisibility: float = MIN_COVISIBILITY,
    gaps: tuple[int, int] = GAPS,
) -> DrivePair:
    """Draw a pair as `sample_pair` does, with the drive that the views are from."""
    while True:
        sequence = sample_sequence(
            rng,
            sample_camera(rng),
            kind=kind,
            duration=(GAPS[1] + 1) / RATE,
            rate=RATE,
            camera_height=float(rng.uniform(*HEIGHTS)),
            camera_pitch_deg=float(rng.normal(*PITCH_DEG)),
        )
        gap = round(np.exp(rng.uniform(*np.log(gaps))))
        start = int(rng.integers(len(sequence.path.stamps) - gap))
        pair = RenderedPair(sequence.view(start, rng), sequence.view(start + gap, rng))
        if covisibility(pair.first, pair.second) >= min_covisibility:
            return DrivePair(pair, sequence, start, gap)


def _visible_share(first: View, second: View) -> float:
    """Share of the first view's pixels with depth that the second one shows."""
    rows, columns = np.nonzero(np.isfinite(first.depth[::GRID_STEP, ::GRID_STEP]))
    known = GRID_STEP * np.stack([columns, rows], axis=-1)
    shown = np.isfinite(true_matches(first, second, known)[:, 0])
    return float(shown.mean()) if len(known) else 0.0


def _inverse_depth(depth: NDArray[np.float32], pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inverse depth, which is linear on planes, interpolated between pixels; NaN outside."""
    height, width = depth.shape
    u, v = pixels.T
    inside = (u >= 0) & (u <= width - 1) & (v >= 0) & (v <= height - 1)
    u, v = np.where(inside, u, 0), np.where(inside, v, 0)
    left, top = np.minimum(u.astype(int), width - 2), np.minimum(v.astype(int), height - 2)
    right, down = u - left, v - top
    # The sky is at 1 / inf = 0.
    upper = (1 - right) / depth[top, left] + right / depth[top, left + 1]
    lower = (1 - right) / depth[top + 1, left] + right / depth[top + 1, left + 1]
    return np.where(inside, (1 - down) * upper + down * lower, np.nan)
