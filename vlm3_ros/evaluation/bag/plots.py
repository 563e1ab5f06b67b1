# SPDX-License-Identifier: Apache-2.0
"""Plots of the scores of a bag."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vlm3_ros.evaluation.bag.scores import BagScores
from vlm3_ros.evaluation.metrics.trajectories import Trajectory
from vlm3_ros.evaluation.pictures.figures import new_figure
from vlm3_ros.evaluation.scores.trajectory import TrajectoryScores

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TRUE, _ESTIMATED, _FAINT = "#303030", "#c8401e", "#9a9a9a"
_TASK_COLOURS = ("#2c6fae", "#c8401e", "#2a7f3f")
_WIDTH = 7.0  # inches
_MANY = 2000
"""Points above which a curve is rasterised; as SVG paths they would take many megabytes."""
_MAX_GAP = 4
"""Time between two points, in median steps, above which no line joins them."""


def plot_trajectory(scores: TrajectoryScores, truth: Trajectory) -> Figure:
    """Plot the whole true trajectory and the aligned estimate from above.

    Args:
        scores: of the estimate.
        truth: the whole true trajectory.
    """
    figure = new_figure(_WIDTH, 5.6, "constrained")
    axes = figure.subplots()
    whole, matched, estimate = (t.poses[:, :2, 3] for t in (truth, scores.truth, scores.estimate))
    ties = np.stack([matched, estimate], axis=1)
    for tie in ties[:: max(1, len(ties) // 60)]:
        axes.plot(*tie.T, color=_FAINT, linewidth=0.6, zorder=1)
    axes.plot(*whole.T, color=_TRUE, linewidth=2.2, label="ground truth", zorder=2)
    axes.plot(
        *_broken(scores.estimate.stamps_ns, estimate).T,
        color=_ESTIMATED,
        linewidth=1.4,
        marker=".",
        markersize=4,
        label="estimate, SE(3) aligned",
        rasterized=len(estimate) > _MANY,
        zorder=3,
    )
    axes.plot(*whole[0], "o", color=_TRUE, markersize=9, label="start", zorder=4)
    axes.plot(*whole[-1], "s", color=_TRUE, markersize=8, label="end", zorder=4)
    axes.set_aspect("equal", adjustable="datalim")
    axes.margins(0.08)
    axes.set_xlabel("x in m")
    axes.set_ylabel("y in m")
    axes.set_title(
        f"Trajectory from above: APE {scores.ape.translation_m.rmse:.3f} m (RMSE) over "
        f"{scores.length_m:.1f} m",
        fontsize=11,
    )
    _tidy(axes)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def plot_path(estimate: Trajectory, is_camera: bool) -> Figure:
    """Draw an estimated trajectory from above, without truth.

    Args:
        estimate: at least one pose.
        is_camera: whether its body has the axes of a camera (z forward), not of a base.
    """
    across, ahead = ((0, "x (right)"), (2, "z (forward)")) if is_camera else ((0, "x"), (1, "y"))
    points = estimate.poses[:, [across[0], ahead[0]], 3]
    length = float(np.linalg.norm(np.diff(estimate.poses[:, :3, 3], axis=0), axis=1).sum())
    figure = new_figure(_WIDTH, 5.2, "constrained")
    axes = figure.subplots()
    curve = _broken(estimate.stamps_ns, points)
    axes.plot(*curve.T, ".-", color=_ESTIMATED, linewidth=1.4, markersize=4, label="estimate")
    axes.plot(*points[0], "o", color=_ESTIMATED, markersize=9, label="start")
    axes.plot(*points[-1], "s", color=_ESTIMATED, markersize=8, label="end")
    axes.set_aspect("equal", adjustable="datalim")
    axes.margins(0.08)
    axes.set_xlabel(f"{across[1]} in m")
    axes.set_ylabel(f"{ahead[1]} in m")
    axes.set_title(f"Estimated trajectory from above: {length:.1f} m, no truth", fontsize=11)
    _tidy(axes)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def plot_errors(scores: BagScores, start_ns: int) -> Figure | None:
    """Plot errors over time, one strip per kind; None without any.

    Args:
        scores: of the bag.
        start_ns: stamp at which time is zero.
    """
    strips = list(_strips(scores))
    if not strips:
        return None
    figure = new_figure(_WIDTH, 0.9 + 1.55 * len(strips), "constrained")
    all_axes = figure.subplots(len(strips), sharex=True, squeeze=False)[:, 0]
    for axes, (label, stamps_ns, values) in zip(all_axes, strips, strict=True):
        seconds = (stamps_ns - start_ns) / 1e9
        curve = _broken(stamps_ns, np.stack([seconds, values], axis=1))
        axes.plot(
            *curve.T,
            ".-",
            color=_TASK_COLOURS[0],
            linewidth=1,
            markersize=3.5,
            rasterized=len(values) > _MANY,
        )
        answered = np.isfinite(values)
        median = float(np.median(values[answered])) if answered.any() else np.nan
        axes.axhline(median, color=_ESTIMATED, linewidth=0.9, linestyle="--")
        title = f"{label}: median {median:.3g}"
        if not answered.all():
            axes.plot(
                seconds[~answered],
                np.zeros(np.sum(~answered)),
                "x",
                color=_ESTIMATED,
                rasterized=len(values) > _MANY,
            )
            title += f"; {np.sum(~answered)} without an answer (crosses)"
        axes.set_title(title, fontsize=10, loc="left")
        axes.set_ylim(bottom=0)
        _tidy(axes)
    all_axes[-1].set_xlabel("time in s")
    figure.suptitle("Errors over time (dashed: median)", fontsize=11)
    return figure


def plot_latency(latency: Mapping[str, Sequence[float]]) -> Figure | None:
    """Plot histograms of the time per frame, by task; None if no time is known.

    Args:
        latency: seconds by task, NaN where unknown.
    """
    known = {
        task: 1e3 * np.array(seconds)[np.isfinite(seconds)] for task, seconds in latency.items()
    }
    known = {task: ms for task, ms in known.items() if ms.size}
    if not known:
        return None
    figure = new_figure(_WIDTH, 0.5 + 2.2 * len(known), "constrained")
    all_axes = figure.subplots(len(known), squeeze=False)[:, 0]
    for axes, colour, (task, ms) in zip(all_axes, _TASK_COLOURS, known.items(), strict=False):
        axes.hist(ms, bins=min(40, max(8, len(ms) // 3)), color=colour, alpha=0.75)
        p50, p95 = np.percentile(ms, [50, 95])
        axes.axvline(p50, color="black", linewidth=1.2)
        axes.axvline(p95, color="black", linewidth=1.2, linestyle=":")
        axes.set_title(
            f"Latency of {task}: median {p50:.0f} ms (solid), 95 % below {p95:.0f} ms (dotted)",
            fontsize=10,
            loc="left",
        )
        axes.set_xlim(left=0)
        axes.set_ylabel("frames")
        _tidy(axes)
    all_axes[-1].set_xlabel("ms")
    return figure


def _strips(scores: BagScores) -> list[tuple[str, NDArray[np.int64], NDArray[np.float64]]]:
    strips = []
    if scores.depth:
        strips.append(("depth, AbsRel per frame", scores.depth.stamps_ns, scores.depth.abs_rel))
    motions = scores.pose or scores.odometry
    if motions:
        source = "answered motion" if scores.pose else "odometry"
        errors, stamps_ns, directed = motions.errors, motions.stamps_ns, motions.directed
        strips += [
            (f"{source}, rotation error in degrees", stamps_ns, errors.rotation_deg),
            (
                f"{source}, direction error in degrees",
                stamps_ns[directed],
                errors.direction_deg[directed],
            ),
            (f"{source}, distance error in m", stamps_ns, np.abs(errors.distance_m)),
        ]
    if scores.trajectory:
        truth, estimate = scores.trajectory.truth, scores.trajectory.estimate
        distance = np.linalg.norm(estimate.poses[:, :3, 3] - truth.poses[:, :3, 3], axis=1)
        strips.append(("position after alignment, error in m", truth.stamps_ns, distance))
    return strips


def _broken(stamps_ns: NDArray[np.int64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Insert NaN between points (n, 2) that are far apart in time, to break the line."""
    gaps = np.diff(stamps_ns)
    if not gaps.size:
        return points
    after = np.flatnonzero(gaps > _MAX_GAP * np.median(gaps)) + 1
    return np.insert(points, after, np.nan, axis=0)


def _tidy(axes: Axes) -> None:
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
