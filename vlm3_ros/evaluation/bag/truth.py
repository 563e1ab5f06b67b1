# SPDX-License-Identifier: Apache-2.0
"""The truth about the frames of a bag: depth, motions and matches; and what classical vision finds.

All of it follows from the bag alone, so that offline answers and nodes in real time are scored
alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlm3_ros.bags.poses import TruePoses
from vlm3_ros.datasets.covisibility import pixels_shown
from vlm3_ros.evaluation.bag.answers import GRID, Pair
from vlm3_ros.evaluation.bag.frames import BagFrame
from vlm3_ros.evaluation.metrics.pair_baselines import SIFT_FEATURES, motion_of_features
from vlm3_ros.geometry.features import Features, sift_features
from vlm3_ros.geometry.motion import Transform, inverse
from vlm3_ros.tasks.depth import uniform_grid


@dataclass(frozen=True)
class TrueMatches:
    """Where the second image of a pair shows the asked pixels of the first one.

    `pixels2`: (u, v), shape (n, 2), NaN where unknown or hidden. `width`, `height`: of the second
    image, px.
    """

    pixels2: NDArray[np.float64]
    width: int
    height: int


@dataclass
class BagTruth:
    """The truth about a bag's frames, by stamps in nanoseconds.

    Attributes:
        stamps_ns: of all frames, ascending.
        depths: metres at `uniform_grid(camera, *GRID)`, shape (n,), NaN where unknown, and where
            the rectified image shows nothing: no model is asked there.
        rows: heights of these pixels in the image, in [0, 1], shape (n,).
        matches: by pair, of the pixels that were asked.
        sift: by pair, T_cam1_cam2 of unit displacement; None where SIFT finds none.
    """

    stamps_ns: list[int] = field(default_factory=list)
    depths: dict[int, NDArray[np.floating]] = field(default_factory=dict)
    rows: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    matches: dict[Pair, TrueMatches] = field(default_factory=dict)
    sift: dict[Pair, Transform | None] = field(default_factory=dict)


def read_truth(
    frames: Iterable[BagFrame],
    poses: TruePoses | None,
    pairs: Iterable[Pair],
    pixels: Mapping[Pair, NDArray[np.float64]],
) -> BagTruth:
    """Read the truth about a bag.

    Args:
        frames: all of the bag.
        poses: the ground truth; None if unknown.
        pairs: pairs whose motion is compared.
        pixels: (u, v) of the first image whose matches are compared, shape (n, 2), by pair.
    """
    truth = BagTruth()
    wanted: dict[int, list[Pair]] = {}
    last_use: dict[int, int] = {}
    for pair in {*pairs, *pixels}:
        wanted.setdefault(pair[1], []).append(pair)
        last_use[pair[0]] = max(pair[1], last_use.get(pair[0], 0))
    kept: dict[int, _KeptFrame] = {}
    for frame in frames:
        stamp = frame.stamp_ns
        truth.stamps_ns.append(stamp)
        grid = uniform_grid(frame.camera, *GRID)
        truth.rows = (grid[:, 1] + 0.5) / frame.camera.height
        if frame.depth is not None:
            u, v = np.rint(grid).astype(int).T
            truth.depths[stamp] = np.where(frame.visible[v, u], frame.depth[v, u], np.nan)
        kept = {s: f for s, f in kept.items() if last_use[s] >= stamp}
        if poses is None or (stamp not in wanted and stamp not in last_use):
            continue
        seen = _KeptFrame(frame, sift_features(frame.image, SIFT_FEATURES))
        for pair in wanted.get(stamp, ()):
            if pair[0] in kept:
                _compare(truth, pair, kept[pair[0]], seen, poses, pixels)
        if last_use.get(stamp, 0) > stamp:
            kept[stamp] = seen
    truth.stamps_ns = sorted(set(truth.stamps_ns))
    return truth


def true_motions(poses: TruePoses, pairs: ArrayLike) -> NDArray[np.float64]:
    """Return T_cam1_cam2 of pairs of stamps (n, 2), shape (n, 4, 4), NaN where unknown."""
    stamps = np.asarray(pairs, dtype=np.int64).reshape(-1, 2)
    T_base_camera = poses.T_base_camera
    first, second = (poses.base.at(stamps[:, i]) @ T_base_camera for i in range(2))
    return np.stack([inverse(T1) @ T2 for T1, T2 in zip(first, second, strict=True)])


def true_matches(
    first: BagFrame, second: BagFrame, T_cam1_cam2: Transform, pixels1: ArrayLike
) -> NDArray[np.float64]:
    """Find pixels of the first image in the second one, by depth and motion.

    Args:
        first: with depth.
        second: with depth.
        T_cam1_cam2: shape (4, 4), metres.
        pixels1: (u, v), shape (n, 2); the depth of the nearest pixel counts.

    Returns:
        (u, v), shape (n, 2); NaN where the depth is unknown, or the point lies outside of the
        second image or is hidden there: the depths differ.
    """
    assert first.depth is not None and second.depth is not None
    cameras, depths = (first.camera, second.camera), (first.depth, second.depth)
    return pixels_shown(cameras, depths, T_cam1_cam2, pixels1)


@dataclass(frozen=True)
class _KeptFrame:
    frame: BagFrame
    features: Features


def _compare(
    truth: BagTruth,
    pair: Pair,
    first: _KeptFrame,
    second: _KeptFrame,
    poses: TruePoses,
    pixels: Mapping[Pair, NDArray[np.float64]],
) -> None:
    (motion,) = true_motions(poses, [pair])
    if not np.isfinite(motion).all():
        return
    one, two = first.frame, second.frame
    cameras = (one.camera, two.camera)
    truth.sift[pair] = motion_of_features(first.features, second.features, cameras)
    if pair in pixels and one.depth is not None and two.depth is not None:
        pixels2 = true_matches(one, two, motion, pixels[pair])
        truth.matches[pair] = TrueMatches(pixels2, two.camera.width, two.camera.height)
