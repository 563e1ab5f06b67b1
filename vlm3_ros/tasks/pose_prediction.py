# SPDX-License-Identifier: Apache-2.0
"""Poses at camera rate between the poses of a slow odometry.

A pose comes seconds after its image. Until then it is predicted: the last twist, applied to the
last pose. Where the next pose shows the prediction to be wrong, stamps that were predicted already
are not corrected (tf2 ignores a second transform of a stamp or keeps both, and warns); the
correction is spread over the images that follow, since odometry must not jump (REP-105).
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlm3_ros.geometry.motion import (
    Transform,
    body_twist,
    compose,
    inverse,
    motion_of_twist,
)

BLEND = 0.3
"""Seconds after which a correction is applied except for 1 / e of it.

docs/odometry.md has the figures: without blending, steps of TF are wrong by up to 0.66 m where
answers err as the authors' do; with 0.3 s by up to 0.21 m, and the error of TF is the same.
"""


@dataclass(frozen=True)
class _Known:
    """The last pose, its twist, and what is left of the correction since `since_ns`.

    `correction`: (6,), the logarithm of the motion from the predicted to the published pose.
    """

    stamp_ns: int
    T_odom_base: Transform
    twist: NDArray[np.float64]
    correction: NDArray[np.float64]
    since_ns: int

    def predicted(self, stamp_ns: int) -> Transform:
        """Return the pose at a stamp if the twist stays."""
        seconds = (stamp_ns - self.stamp_ns) / 1e9
        return compose(self.T_odom_base, motion_of_twist(self.twist, seconds))

    def published(self, stamp_ns: int) -> Transform:
        """Return the predicted pose with what is left of the correction."""
        rest = math.exp(-(stamp_ns - self.since_ns) / 1e9 / BLEND)
        return compose(self.predicted(stamp_ns), motion_of_twist(self.correction, rest))


class PosePrediction:
    """The pose of the base at the stamps of images, as they come. Thread-safe.

    Attributes:
        missed: number of images that had no pose when they came, because the last one was too old.
    """

    def __init__(self) -> None:
        """Begin without a pose."""
        self.missed = 0
        self._lock = threading.Lock()
        self._known: _Known | None = None
        self._last_ns: int | None = None
        """Stamp of the last pose that was returned: later ones are newer."""
        self._image_ns: int | None = None
        """Stamp of the last image."""
        self._pose_ns: int | None = None
        """Stamp of the last pose that was known."""

    def begin(self, stamp_ns: int, T_odom_base: Transform) -> None:
        """Begin a chain at a pose, shape (4, 4), metres."""
        with self._lock:
            if self._pose_ns is not None and stamp_ns < self._pose_ns:
                self._last_ns = None  # time has jumped back: poses of a chain never do
            self._pose_ns = stamp_ns
            self._known = _Known(stamp_ns, T_odom_base, np.zeros(6), np.zeros(6), stamp_ns)

    def correct(self, stamp_ns: int, T_odom_base: Transform, twist: NDArray[np.float64]) -> None:
        """Learn of a pose of the same chain and its twist (6,), m/s and rad/s."""
        with self._lock:
            before, last = self._known, self._last_ns
            known = _Known(stamp_ns, T_odom_base, twist, np.zeros(6), stamp_ns)
            if before is not None and last is not None:
                gap = compose(inverse(known.predicted(last)), before.published(last))
                known = _Known(stamp_ns, T_odom_base, twist, body_twist(gap, 1.0), last)
            self._known, self._pose_ns = known, stamp_ns

    def end(self, time_jumped: bool = False) -> None:
        """End the chain: no poses until the next one begins.

        Args:
            time_jumped: whether the next chain may begin at an older stamp.
        """
        with self._lock:
            self._known = None
            if time_jumped:
                self._last_ns = self._image_ns = None

    def at_image(self, stamp_ns: int, horizon: float) -> Transform | None:
        """Return the pose at an image that has come in, shape (4, 4), metres.

        Args:
            stamp_ns: of the image.
            horizon: seconds for which a prediction may reach beyond the last pose.

        Returns:
            None if there is no chain, the last pose is too old, or a pose at this or a newer stamp
            was returned before.
        """
        with self._lock:
            self._image_ns = stamp_ns
            known = self._known
            if known is not None and (stamp_ns - known.stamp_ns) / 1e9 > horizon:
                self.missed += 1
            return self._at(stamp_ns, horizon)

    def at_known(self, horizon: float) -> list[tuple[int, Transform]]:
        """Return the poses that became known with the last pose: at its stamp, at the newest image.

        Args:
            horizon: see `at_image`.

        Returns:
            Stamps in nanoseconds and poses, oldest first; without those returned before.
        """
        with self._lock:
            known_ns = None if self._known is None else self._known.stamp_ns
            stamps = {stamp for stamp in (known_ns, self._image_ns) if stamp is not None}
            poses = [(stamp, self._at(stamp, horizon)) for stamp in sorted(stamps)]
        return [(stamp, pose) for stamp, pose in poses if pose is not None]

    def _at(self, stamp_ns: int, horizon: float) -> Transform | None:
        known = self._known
        if known is None or stamp_ns < known.stamp_ns:
            return None
        if self._last_ns is not None and stamp_ns <= self._last_ns:
            return None
        if (stamp_ns - known.stamp_ns) / 1e9 > horizon:
            return None
        self._last_ns = stamp_ns
        return known.published(stamp_ns)
