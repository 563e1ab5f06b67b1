# SPDX-License-Identifier: Apache-2.0
"""Choice of the frames of a recording that are kept, and of those that are held out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlm3_ros.datasets.own import Split
from vlm3_ros.geometry.motion import inverse, rotation_angle

MIN_TURN_DEG = 2.0
"""A camera that turned this far shows something else, even if it did not move."""

_TOLERANCE_NS = 1_000_000
"""Tolerance for the rounded stamps of a regular recording."""


@dataclass(frozen=True)
class Selection:
    """Which frames are kept of each bag.

    Attributes:
        held_out: share of the bag's duration, at its end, whose frames are held out; 0 for none.
        held_out_gap: seconds before the held-out part from which no frame is kept.
        min_gap: least seconds between two frames.
        min_motion: least metres that the camera must move between two frames, unless it turns by
            `MIN_TURN_DEG`; 0 keeps the frames of a camera at rest.
        max_images: most frames, taken evenly.
    """

    held_out: float = 0.2
    held_out_gap: float = 1.0
    min_gap: float = 0.1
    min_motion: float = 0.05
    max_images: int = 1000


def choose_frames(
    stamps_ns: NDArray[np.int64],
    poses: NDArray[np.float64] | None,
    selection: Selection,
) -> tuple[dict[int, Split], Counter[str]]:
    """The stamps of the kept frames with their split, and the number of others by reason.

    Args:
        stamps_ns: ascending, shape (n,), of frames that could be kept.
        poses: T_world_camera at these times, shape (n, 4, 4), NaN where unknown; None if there are
            no poses.
        selection: which frames are kept.
    """
    left_out: Counter[str] = Counter()
    splits = _splits(stamps_ns, selection, left_out)
    last: dict[Split, int] = {}
    kept: list[int] = []
    for index, split in splits.items():
        before = last.get(split)
        if before is not None:
            if stamps_ns[index] - stamps_ns[before] < selection.min_gap * 1e9 - _TOLERANCE_NS:
                left_out[f"less than {selection.min_gap:g} s after the one before"] += 1
                continue
            if poses is not None and _stands(poses[before], poses[index], selection.min_motion):
                left_out[
                    f"the camera moved less than {selection.min_motion:g} m and turned less than "
                    f"{MIN_TURN_DEG:g} degrees since the one before"
                ] += 1
                continue
        last[split] = index
        kept.append(index)
    evenly = evenly_spread(kept, selection.max_images)
    if len(evenly) < len(kept):
        left_out[f"more than {selection.max_images} of a bag"] += len(kept) - len(evenly)
    return {int(stamps_ns[index]): splits[index] for index in evenly}, left_out


def evenly_spread(items: list[int], count: int) -> list[int]:
    """At most `count` items, taken evenly, with the first and the last."""
    if len(items) <= count:
        return items
    return [items[i] for i in np.linspace(0, len(items) - 1, count).round().astype(int)]


def reason_text(reasons: Mapping[str, int]) -> str:
    """Reasons and their counts as text."""
    return "; ".join(f"{count} times: {reason}" for reason, count in reasons.items())


def _splits(
    stamps_ns: NDArray[np.int64], selection: Selection, left_out: Counter[str]
) -> dict[int, Split]:
    if not len(stamps_ns) or not selection.held_out:
        return dict.fromkeys(range(len(stamps_ns)), "train")
    start, end = int(stamps_ns[0]), int(stamps_ns[-1])
    cut = start + (1 - selection.held_out) * (end - start)
    held_out = stamps_ns > cut
    first = stamps_ns[held_out][0] if held_out.any() else end + 1
    splits: dict[int, Split] = {}
    for index, stamp in enumerate(stamps_ns):
        if held_out[index]:
            splits[index] = "held_out"
        elif first - stamp >= selection.held_out_gap * 1e9:
            splits[index] = "train"
        else:
            left_out[f"less than {selection.held_out_gap:g} s before those held out"] += 1
    return splits


def _stands(before: NDArray[np.float64], now: NDArray[np.float64], min_motion: float) -> bool:
    """Whether the camera hardly moved; False if a pose is unknown."""
    motion = inverse(before) @ now
    if not np.isfinite(motion).all() or min_motion == 0:
        return False
    turned = np.degrees(rotation_angle(motion))
    return bool(np.linalg.norm(motion[:3, 3]) < min_motion and turned < MIN_TURN_DEG)
