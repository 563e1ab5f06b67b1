# SPDX-License-Identifier: Apache-2.0
"""Poses over time, interpolated."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from vlm3_ros.errors import BagError
from vlm3_ros.geometry.motion import Transform

MAX_GAP = 0.5
"""Seconds between two poses beyond which nothing is interpolated: the motion is unknown."""


@dataclass(frozen=True)
class TimedPoses:
    """Poses over time: `stamps_ns`, shape (n,), int64, ascending; `poses`, shape (n, 4, 4)."""

    stamps_ns: NDArray[np.int64]
    poses: NDArray[np.float64]

    @staticmethod
    def from_stamped(stamped: Iterable[tuple[int, Transform]], what: str = "poses") -> TimedPoses:
        """Sort poses by their stamps in nanoseconds. The last of equal stamps is kept.

        Args:
            stamped: in the order of recording. A stamp of 0 among later ones was not set, and is
                left out.
            what: the poses, for the error.

        Raises:
            BagError: if the stamps go back by more than `MAX_GAP`: a clock that started again gives
                two poses for one time.
        """
        poses: dict[int, Transform] = {}
        latest = 0
        for stamp, pose in stamped:
            if latest - stamp > MAX_GAP * 1e9:
                if stamp == 0:
                    continue
                raise BagError(
                    f"{what} go back in time, from {latest / 1e9:.3f} s to {stamp / 1e9:.3f} s: "
                    "the clock started again; cut the recording there"
                )
            latest = max(latest, stamp)
            poses[stamp] = pose
        stamps_ns = sorted(poses)
        stacked = np.array([poses[stamp] for stamp in stamps_ns]).reshape(-1, 4, 4)
        return TimedPoses(np.array(stamps_ns, dtype=np.int64), stacked)

    def at(self, stamps_ns: ArrayLike, max_gap: float = MAX_GAP) -> NDArray[np.float64]:
        """Interpolate poses at these times, shape (m, 4, 4).

        NaN before the first pose, after the last one, and between two poses more than `max_gap`
        seconds apart.
        """
        wanted = np.asarray(stamps_ns, dtype=np.int64)
        after = np.searchsorted(self.stamps_ns, wanted).clip(0, len(self.stamps_ns) - 1)
        is_exact = self.stamps_ns[after] == wanted
        before = np.where(is_exact, after, np.maximum(after - 1, 0))
        start, end = self.stamps_ns[before], self.stamps_ns[after]
        gap = np.maximum(end - start, 1)
        share = (wanted - start) / gap
        first, last = self.poses[before], self.poses[after]
        turn = Rotation.from_matrix(first[:, :3, :3])
        rest = turn.inv() * Rotation.from_matrix(last[:, :3, :3])
        poses = np.tile(np.eye(4), (len(wanted), 1, 1))
        poses[:, :3, :3] = (
            turn * Rotation.from_rotvec(share[:, None] * rest.as_rotvec())
        ).as_matrix()
        poses[:, :3, 3] = first[:, :3, 3] + share[:, None] * (last[:, :3, 3] - first[:, :3, 3])
        is_known = is_exact | ((start < wanted) & (wanted < end) & (gap <= max_gap * 1e9))
        poses[~is_known] = np.nan
        return poses
