# SPDX-License-Identifier: Apache-2.0
"""Pairs of frames of a recording that show enough of the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from vlm3_ros.datasets.covisibility import MIN_COVISIBILITY, ReducedFrame, covisibility
from vlm3_ros.datasets.own import Pair, Split
from vlm3_ros.geometry.motion import inverse, rotation_angle

STEPS = (1, 2, 3, 5, 8, 13, 21, 34)
"""Distances between the frames of a pair, in kept frames."""


def find_pairs(
    frames: Sequence[ReducedFrame],
    splits: Sequence[Split],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[Pair], Counter[str]]:
    """Find pairs of frames of a bag, `STEPS` apart, with enough covisibility.

    Args:
        frames: in order of time.
        splits: of the frames.
        progress: called with the number of frames done and of all frames.

    Returns:
        The pairs, by index in `frames`, and the number of rejected candidates by reason.
    """
    pairs: list[Pair] = []
    left_out: Counter[str] = Counter()
    for i, first in enumerate(frames):
        for step in STEPS:
            if i + step >= len(frames) or splits[i + step] != splits[i]:
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
            pairs.append(Pair(i, i + step, share, baseline, turned, splits[i]))
        progress(i + 1, len(frames))
    return pairs, left_out
