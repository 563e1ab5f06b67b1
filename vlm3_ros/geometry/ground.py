# SPDX-License-Identifier: Apache-2.0
"""The metric scale of depths from the ground: a camera of known height sees it at known depths."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.geometry.motion import Transform

MIN_ANGLE = math.radians(5.0)
"""Least angle of a ray below the horizon: nearer to it, one degree of pitch changes the depth of
the ground by more than a fifth."""

SAME_PLANE = 0.1
"""Largest difference of the logarithm of two factors of one plane: the spread of the answers."""

MIN_INLIERS = 12
"""Least number of answers about the ground."""

MIN_SHARE = 0.3
"""Least share of the ground among the answers below the horizon, by weight."""

MIN_SPREAD = 1.4
"""Least ratio of the farthest depth of the ground to the nearest one. Answers about a wall agree
with one factor only within exp(2 SAME_PLANE) = 1.22."""

NEAR_PLANE = 0.35
"""Largest difference of the logarithm of factors of the surroundings of a plane."""

MIN_CONCENTRATION = 0.6
"""Least share of the plane among its surroundings, by weight: a spread of the answers of about
10 %. Answers about images that a model does not understand are spread evenly."""

MAX_TREND = 0.25
"""Largest change of the logarithm of the factor with that of the depth, in the surroundings: 0 on
level ground, 1 on a wall, 0.3 on a slope of 10 degrees. Models whose error depends on depth reach
0.15."""

MAX_BELOW = 0.1
"""Largest share of answers more than twice SAME_PLANE below the plane, by weight: nothing is below
the ground."""

FACTORS = (0.5, 1.5)
"""Factors beyond these come from a wrong camera height or another surface: seen from eye height, a
table gives 2."""

MAX_CHANGE = 0.1
"""Largest change of the logarithm of the smoothed factor per second: 10 %."""


MIN_FRAMES = 3
"""Least number of frames that give a factor; a single one may take a sofa for the ground."""

_GRID = (12, 12)
"""Columns and rows of the pixels of `ground_pixels`: half of them lie below the horizon."""

_MAX_FRAMES = 1000
"""Kept at most, if stamps stand still."""


@dataclass(frozen=True)
class GroundFit:
    """The ground in the depths of one frame.

    Attributes:
        factor: takes the depths to metric scale; NaN if the ground was not found.
        inliers: number of depths on the ground.
        candidates: number of known depths sufficiently far below the horizon.
        reason: why the ground was not found; empty otherwise.
    """

    factor: float
    inliers: int
    candidates: int
    reason: str = ""


def ground_pixels(camera: PinholeCamera, T_ground_camera: Transform) -> NDArray[np.float64]:
    """Pixels of a grid, evenly spread, that may show the ground: (u, v), shape (n, 2).

    Args:
        camera: of the rectified image.
        T_ground_camera: see `fit_ground`.
    """
    u, v = (
        (np.arange(cells) + 0.5) * (size / cells) - 0.5
        for cells, size in zip(_GRID, (camera.width, camera.height), strict=True)
    )
    pixels = np.stack(np.meshgrid(u, v), axis=-1).reshape(-1, 2)
    down, level = _steepness(camera, pixels, T_ground_camera)
    return pixels[down > math.tan(MIN_ANGLE) * level]


def fit_ground(
    camera: PinholeCamera, pixels: ArrayLike, depth: ArrayLike, T_ground_camera: Transform
) -> GroundFit:
    """Find the factor that puts the lowest large plane of a frame on the ground.

    The plane is level by the camera's known tilt, so each depth below the horizon alone gives a
    factor: the ground's depth along its ray over the answered one. Depths of one plane agree, and
    those of things that stand on it give larger factors, so the ground is the lowest dense mode.
    A ray counts by its squared slope, up to 45 degrees: the steeper it is, the less a wrong pitch
    changes the factor.

    Args:
        camera: of the rectified image.
        pixels: (u, v), shape (n, 2).
        depth: metres along Z, shape (n,); NaN if unknown.
        T_ground_camera: shape (4, 4), takes points of the optical frame to a frame whose x-y plane
            is the ground, z up.
    """
    pixels, depth = np.asarray(pixels, float).reshape(-1, 2), np.asarray(depth, float).ravel()
    height = float(T_ground_camera[2, 3])
    if not 0 < height < math.inf:
        return GroundFit(math.nan, 0, 0, f"the camera is at a height of {height:.2f} m")
    down, level = _steepness(camera, pixels, T_ground_camera)
    counted = (down > math.tan(MIN_ANGLE) * level) & (depth > 0) & np.isfinite(depth)
    total = int(counted.sum())
    if total < MIN_INLIERS:
        reason = f"only {total} answers lie {math.degrees(MIN_ANGLE):.0f} degrees below the horizon"
        return GroundFit(math.nan, 0, total, reason)
    true_depth = height / down[counted]
    weight = (down[counted] / np.maximum(level[counted], down[counted])) ** 2
    factors = np.log(true_depth / depth[counted])
    middle = _lowest_mode(factors, weight)
    inliers = int(np.count_nonzero(np.abs(factors - middle) <= SAME_PLANE))
    factor = math.exp(middle)
    reason = _doubt(factors - middle, weight, true_depth)
    if not reason and not FACTORS[0] <= factor <= FACTORS[1]:
        reason = (
            f"the factor would be {factor:.2f}: is the height of {height:.2f} m right, and is the "
            "plane the ground?"
        )
    return GroundFit(math.nan if reason else factor, inliers, total, reason)


def _steepness(
    camera: PinholeCamera, pixels: NDArray[np.float64], T_ground_camera: Transform
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How far rays lead down and along the ground, per metre of depth; shapes (n,)."""
    rays = camera.unproject(pixels, np.ones(len(pixels))) @ T_ground_camera[:3, :3].T
    return -rays[:, 2], np.linalg.norm(rays[:, :2], axis=1)


def _doubt(
    differences: NDArray[np.float64],
    weight: NDArray[np.float64],
    true_depth: NDArray[np.float64],
) -> str:
    """Why answers are not those of level ground; empty if they are.

    Args:
        differences: logarithms of the factors less that of the plane, shape (n,).
        weight: of the answers, shape (n,).
        true_depth: of the ground, metres, shape (n,).
    """
    total = weight.sum()
    inlier, near = np.abs(differences) <= SAME_PLANE, np.abs(differences) <= NEAR_PLANE
    inliers, on_plane = int(inlier.sum()), weight[inlier].sum()
    if inliers < MIN_INLIERS or on_plane < MIN_SHARE * total:
        return f"only {inliers} of {len(weight)} answers below the horizon lie in one level plane"
    if true_depth[inlier].max() < MIN_SPREAD * true_depth[inlier].min():
        return "the answers below the horizon are those of a wall"
    trend = np.polyfit(np.log(true_depth[near]), differences[near], 1, w=np.sqrt(weight[near]))[0]
    if abs(trend) > MAX_TREND:
        return f"the answers lie on a slope or a wall: the factor changes by depth^{trend:.2f}"
    below = weight[differences < -2 * SAME_PLANE].sum() / total
    if below > MAX_BELOW:
        return f"{below:.0%} of the answers lie below the plane, so it is not the ground"
    concentration = on_plane / weight[near].sum()
    if concentration < MIN_CONCENTRATION:
        return f"the answers are spread: {concentration:.0%} of those near the plane lie in it"
    return ""


class GroundScale:
    """Smooths the factors of the ground over frames.

    The factor follows the median of the last `window` seconds, by at most `MAX_CHANGE`, while the
    ground was found in at least half of their frames. It starts anew if the camera or its mount
    changes, or the time goes back.

    Attributes:
        fit: of the last frame; None before the first one.
        factor: smoothed; NaN while the ground was not found in `min_frames` frames.
        age: seconds from the last frame in which the ground was found to the last frame.
    """

    def __init__(self, window: float = 5.0, min_frames: int = MIN_FRAMES) -> None:
        """Start without a factor.

        Args:
            window: seconds, positive.
            min_frames: least number of frames with ground that give a factor.
        """
        self.window = window
        self.min_frames = min_frames
        self.reset()

    def reset(self) -> None:
        """Forget all frames."""
        self.fit: GroundFit | None = None
        self.factor = math.nan
        self.age = math.inf
        self._fits: deque[tuple[float, float]] = deque(maxlen=_MAX_FRAMES)
        """Time, logarithm of the factor or NaN."""
        self._time = self._time_found = -math.inf
        self._place: tuple[PinholeCamera, Transform] | None = None

    @property
    def frames(self) -> int:
        """Number of frames in the window, at least the last `min_frames`."""
        return len(self._fits)

    @property
    def found(self) -> int:
        """Number of frames in the window in which the ground was found."""
        return len(self._factors())

    def update(
        self,
        camera: PinholeCamera,
        pixels: ArrayLike,
        depth: ArrayLike,
        T_ground_camera: Transform,
        seconds: float,
    ) -> float:
        """Fit the ground of a frame and return the smoothed factor; NaN if none is known.

        Args:
            camera, pixels, depth, T_ground_camera: see `fit_ground`.
            seconds: time of the frame.
        """
        if seconds < self._time or not self._is_same_place(camera, T_ground_camera):
            self.reset()
        passed = seconds - self._time
        self._place, self._time = (camera, T_ground_camera), seconds
        self.fit = fit_ground(camera, pixels, depth, T_ground_camera)
        self._fits.append((seconds, math.log(self.fit.factor)))
        while len(self._fits) > self.min_frames and self._fits[0][0] < seconds - self.window:
            self._fits.popleft()
        if not self.fit.reason:
            self._time_found = seconds
        self.age = seconds - self._time_found
        factors = self._factors()
        if len(factors) < max(self.min_frames, len(self._fits) / 2):
            return self.factor
        wanted = float(np.median(factors))
        if math.isnan(self.factor):
            self.factor = math.exp(wanted)
        else:
            limit, present = MAX_CHANGE * passed, math.log(self.factor)
            self.factor = math.exp(present + min(max(wanted - present, -limit), limit))
        return self.factor

    def _factors(self) -> list[float]:
        return [factor for _, factor in self._fits if not math.isnan(factor)]

    def _is_same_place(self, camera: PinholeCamera, T_ground_camera: Transform) -> bool:
        if self._place is None:
            return True
        old, mount = self._place
        # A focusing camera changes its focal length by less, springs move the mount by less.
        return bool(
            np.allclose(astuple(old), astuple(camera), rtol=0.02)
            and np.allclose(mount, T_ground_camera, atol=0.01)
        )


def _lowest_mode(values: NDArray[np.float64], weight: NDArray[np.float64]) -> float:
    """Return the weighted median of the lowest window that is at least half as heavy as any."""
    order = np.argsort(values)
    values, weight = values[order], weight[order]
    sums = np.concatenate([[0.0], np.cumsum(weight)])

    def window(middle: ArrayLike) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        low, high = np.subtract(middle, SAME_PLANE), np.add(middle, SAME_PLANE)
        return np.searchsorted(values, low, "left"), np.searchsorted(values, high, "right")

    first, last = window(values)
    heavy = sums[last] - sums[first]
    middle = float(values[int(np.argmax(heavy >= heavy.max() / 2))])
    for _ in range(20):  # it climbs to the mode
        start, end = window(middle)
        half = (sums[start] + sums[end]) / 2
        moved = float(values[min(int(np.searchsorted(sums, half)) - 1, len(values) - 1)])
        if moved == middle:
            break
        middle = moved
    return middle
