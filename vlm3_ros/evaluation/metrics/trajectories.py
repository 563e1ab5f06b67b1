# SPDX-License-Identifier: Apache-2.0
"""Trajectories: TUM files, alignment, and absolute and relative pose error as evo defines them.

The definitions are those of Sturm et al. 2012 (the TUM RGB-D benchmark). Scale
is never aligned: a metric trajectory is judged in metres.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from vlm3_ros.geometry.motion import transform

ASSOCIATION_SECONDS = 0.01
"""Largest distance in time of stamps that belong together; evo's default."""


@dataclass(frozen=True)
class Trajectory:
    """Poses over time.

    `stamps_ns`: nanoseconds, int64, shape (n,), ascending. `poses`: T_world_body, shape (n, 4, 4).
    """

    stamps_ns: NDArray[np.int64]
    poses: NDArray[np.float64]


@dataclass(frozen=True)
class ErrorStatistics:
    """Statistics of the errors of single poses or steps, in their unit."""

    rmse: float
    mean: float
    median: float
    max: float


@dataclass(frozen=True)
class TrajectoryErrors:
    """Errors of a trajectory in position, metres, and in orientation, degrees."""

    translation_m: ErrorStatistics
    rotation_deg: ErrorStatistics


def read_tum(path: Path | str) -> Trajectory:
    """Read lines of "stamp x y z qx qy qz qw": seconds, metres, a quaternion of any length.

    Lines that begin with # are comments.

    Raises:
        OSError: if the file cannot be read.
        ValueError: naming the broken line.
    """
    stamps, rows = [], []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            stamp, *values = map(Decimal, line.split())
            row = np.array(values, dtype=float)
            if row.shape != (7,) or not np.isfinite(row).all() or not row[3:].any():
                raise ValueError
            stamps.append(int((stamp * 10**9).to_integral_value()))
        except (ValueError, InvalidOperation, OverflowError) as error:
            raise ValueError(f"{path}, line {number}: no TUM pose: {line[:80]!r}") from error
        rows.append(row)
    if not rows:
        raise ValueError(f"{path}: it holds no pose")
    stamps_ns = np.array(stamps, dtype=np.int64)
    if (np.diff(stamps_ns) <= 0).any():
        raise ValueError(f"{path}: its stamps do not ascend")
    poses = [transform(Rotation.from_quat(row[3:]), row[:3]) for row in rows]
    return Trajectory(stamps_ns, np.stack(poses))


def write_tum(path: Path | str, trajectory: Trajectory) -> None:
    """Write a trajectory for `read_tum`: stamps exactly, the rest with 9 decimals."""
    quaternions = Rotation.from_matrix(trajectory.poses[:, :3, :3]).as_quat()
    rows = np.hstack([trajectory.poses[:, :3, 3], quaternions])
    lines = [
        f"{stamp // 10**9}.{stamp % 10**9:09d} " + " ".join(f"{value:.9f}" for value in row)
        for stamp, row in zip(trajectory.stamps_ns.tolist(), rows, strict=True)
    ]
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")


def associate(
    estimate: Trajectory, truth: Trajectory, max_seconds: float = ASSOCIATION_SECONDS
) -> tuple[Trajectory, Trajectory]:
    """Return the poses of both at the same times.

    Each pose of the shorter trajectory is matched with the nearest pose in time of the other one,
    at most `max_seconds` away.

    Raises:
        ValueError: if no stamps belong together.
    """
    is_shorter = len(estimate.stamps_ns) <= len(truth.stamps_ns)
    few, many = (estimate, truth) if is_shorter else (truth, estimate)
    after = np.searchsorted(many.stamps_ns, few.stamps_ns).clip(1, len(many.stamps_ns) - 1)
    if len(many.stamps_ns) == 1:
        after = np.zeros(len(few.stamps_ns), int)
    before = np.maximum(after - 1, 0)
    gaps = np.abs(many.stamps_ns[np.stack([before, after])] - few.stamps_ns)
    nearest = np.where(gaps[0] <= gaps[1], before, after)
    close = gaps.min(axis=0) <= max_seconds * 1e9
    if not close.any():
        raise ValueError(
            f"no pose of the estimate is within {max_seconds:g} s of one of the ground truth"
        )
    few, many = _chosen(few, np.flatnonzero(close)), _chosen(many, nearest[close])
    return (few, many) if is_shorter else (many, few)


def aligned(estimate: Trajectory, truth: Trajectory) -> Trajectory:
    """Move the estimate as a whole so that its positions are nearest to the true ones.

    The SE(3) motion of least squares (Umeyama 1991 without scale). If all positions lie on a line,
    the rotation about it is arbitrary.

    Args:
        estimate: associated with the truth.
        truth: of equal length.

    Raises:
        ValueError: if there is only one pose.
    """
    if len(estimate.poses) < 2:
        raise ValueError("one pose cannot be aligned: its rotation is undetermined")
    places, goals = estimate.poses[:, :3, 3], truth.poses[:, :3, 3]
    centre, goal = places.mean(0), goals.mean(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy warns about positions on a line
        rotation, _ = Rotation.align_vectors(goals - goal, places - centre)
    T = transform(rotation, goal - rotation.apply(centre))
    return Trajectory(estimate.stamps_ns, T @ estimate.poses)


def absolute_pose_error(estimate: Trajectory, truth: Trajectory) -> TrajectoryErrors:
    """Return the APE: errors of the poses, without any alignment.

    Args:
        estimate: associated with the truth, and aligned if wanted.
        truth: of equal length.
    """
    shift = estimate.poses[:, :3, 3] - truth.poses[:, :3, 3]
    turn = _rotations(truth.poses).inv() * _rotations(estimate.poses)
    return TrajectoryErrors(
        _statistics(np.linalg.norm(shift, axis=1)), _statistics(np.degrees(turn.magnitude()))
    )


def relative_pose_error(estimate: Trajectory, truth: Trajectory, step: int = 1) -> TrajectoryErrors:
    """Return the RPE: errors of the motions over `step` poses; alignment does not matter.

    Motions do not overlap, as is evo's default: from pose 0 to `step`, then to 2 `step`, and so on.

    Args:
        estimate: associated with the truth.
        truth: of equal length.

    Raises:
        ValueError: if the trajectories are not longer than the step.
    """
    if len(estimate.poses) <= step:
        raise ValueError(f"{len(estimate.poses)} poses make no motion over {step}")
    missed = np.linalg.inv(_steps(truth, step)) @ _steps(estimate, step)
    return TrajectoryErrors(
        _statistics(np.linalg.norm(missed[:, :3, 3], axis=1)),
        _statistics(np.degrees(_rotations(missed).magnitude())),
    )


def _chosen(trajectory: Trajectory, indices: NDArray[np.intp]) -> Trajectory:
    return Trajectory(trajectory.stamps_ns[indices], trajectory.poses[indices])


def _rotations(poses: NDArray[np.float64]) -> Rotation:
    return Rotation.from_matrix(poses[:, :3, :3])


def _steps(trajectory: Trajectory, step: int) -> NDArray[np.float64]:
    poses = trajectory.poses[::step]
    return np.asarray(np.linalg.inv(poses[:-1]) @ poses[1:], dtype=float)


def _statistics(errors: NDArray[np.float64]) -> ErrorStatistics:
    return ErrorStatistics(
        rmse=float(np.sqrt(np.mean(errors**2))),
        mean=float(np.mean(errors)),
        median=float(np.median(errors)),
        max=float(np.max(errors)),
    )
