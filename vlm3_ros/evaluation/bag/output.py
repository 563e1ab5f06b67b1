# SPDX-License-Identifier: Apache-2.0
"""The evaluation of a bag as files: pictures, trajectories, the report and its 3D view."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vlm3_ros.evaluation.bag.answers import GRID
from vlm3_ros.evaluation.bag.clicks import plot_clicks
from vlm3_ros.evaluation.bag.evaluate import BagEvaluation, bag_result
from vlm3_ros.evaluation.bag.frames import BagFrame
from vlm3_ros.evaluation.bag.plots import (
    plot_errors,
    plot_latency,
    plot_path,
    plot_trajectory,
)
from vlm3_ros.evaluation.bag.scene import bag_scene
from vlm3_ros.evaluation.bag.scores import odometry_chains
from vlm3_ros.evaluation.metrics.declared import headline_text
from vlm3_ros.evaluation.metrics.trajectories import Trajectory, write_tum
from vlm3_ros.evaluation.output import write_result
from vlm3_ros.evaluation.pictures.depth import DepthFrame, draw_depth_frames
from vlm3_ros.evaluation.pictures.figures import png_source, save_png, svg_source
from vlm3_ros.evaluation.pictures.occupancy import plot_occupancy
from vlm3_ros.evaluation.ply import write_ply
from vlm3_ros.evaluation.scores.base import best_median_worst
from vlm3_ros.tasks.depth import uniform_grid
from vlm3_ros.tasks.frame_depth import dense_depth

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OVERVIEW = 4
"""Frames that overview.png shows, evenly over time."""

SHOWN = 3
"""Frames whose depth is shown: of the smallest, the median and the largest error."""


def write_evaluation(evaluation: BagEvaluation, out: Path) -> list[str]:
    """Write metrics.json, report.html, trajectories as TUM files, occupancy.png and clicks.png.

    Files without data are left out.

    Returns:
        The names of the files.
    """
    wrote = []
    for name, trajectory in trajectories(evaluation).items():
        write_tum(out / f"{name}.tum", trajectory)
        wrote.append(f"{name}.tum")
    if figure := occupancy_figure(evaluation):
        save_png(figure, out / "occupancy.png")
        wrote.append("occupancy.png")
    if figure := clicks_figure(evaluation):
        save_png(figure, out / "clicks.png")
        wrote.append("clicks.png")
    pictures, scene = _pictures(evaluation), bag_scene(evaluation)
    metrics, page = write_result(bag_result(evaluation), out, pictures, scene)
    return [metrics, *wrote, page]


def write_pictures(evaluation: BagEvaluation, out: Path) -> list[str]:
    """Write overview.png, cloud.ply and trajectory.png, as far as there is something to show.

    Returns:
        The names of the files.
    """
    wrote = []
    shown = evenly(sorted(evaluation.answers.depths), OVERVIEW)
    if frames := depth_frames(evaluation, shown):
        title = f"{evaluation.model} on {evaluation.source.path.name}"
        if depth := evaluation.scores.depth:
            title += f": {headline_text(depth.model)}"
        draw_depth_frames(frames, out / "overview.png", title)
        _write_cloud(evaluation, list(shown)[len(shown) // 2], out / "cloud.ply")
        wrote += ["overview.png", "cloud.ply"]
    if figure := trajectory_figure(evaluation):
        save_png(figure, out / "trajectory.png")
        wrote.append("trajectory.png")
    return wrote


def trajectory_figure(evaluation: BagEvaluation) -> Figure | None:
    """Draw the trajectory from above; None without any pose after the first."""
    scores, found = evaluation.scores.trajectory, trajectories(evaluation)
    if scores is not None:
        return plot_trajectory(scores, found["truth"])
    estimate = found.get("estimate")
    if estimate is None or len(estimate.stamps_ns) < 2 or evaluation.source.poses is not None:
        return None
    return plot_path(estimate, np.array_equal(evaluation.source.T_base_camera, np.eye(4)))


def occupancy_figure(evaluation: BagEvaluation) -> Figure | None:
    """Draw the maps from above; None if there are none."""
    return plot_occupancy(evaluation.occupancy) if evaluation.occupancy else None


def clicks_figure(evaluation: BagEvaluation) -> Figure | None:
    """Draw the clicked image with the answered points; None if there are none."""
    return plot_clicks(evaluation.clicks) if evaluation.clicks else None


def trajectories(evaluation: BagEvaluation) -> dict[str, Trajectory]:
    """Return the estimate as published, in odom (its longest part), and the truth at all frames."""
    found = {}
    chain = max(odometry_chains(evaluation.answers), key=len, default=[])
    if chain:
        poses = np.stack([evaluation.answers.odom[stamp] for stamp in chain])
        found["estimate"] = Trajectory(np.array(chain, dtype=np.int64), poses)
    if evaluation.source.poses and evaluation.truth.stamps_ns:
        stamps = np.array(evaluation.truth.stamps_ns, dtype=np.int64)
        true = evaluation.source.poses.base.at(stamps)
        known = np.isfinite(true).all(axis=(1, 2))
        if known.any():
            found["truth"] = Trajectory(stamps[known], true[known])
    return found


def evenly(stamps_ns: Sequence[int], count: int) -> dict[int, str]:
    """Choose some of these stamps, evenly, for `depth_frames`."""
    indices = np.linspace(0, len(stamps_ns) - 1, min(count, len(stamps_ns)), dtype=int)
    return {stamps_ns[i]: "" for i in indices}


def depth_frames(evaluation: BagEvaluation, names: Mapping[int, str]) -> list[DepthFrame]:
    """Return answered frames with their depth, to draw them.

    Args:
        evaluation: of the bag.
        names: text before the scores of a frame, by stamp in nanoseconds.
    """
    depth, start = evaluation.scores.depth, min(evaluation.truth.stamps_ns, default=0)
    scores = {}
    if depth is not None:
        scores = {
            view.index: headline_text(metrics)
            for view, metrics in zip(depth.views, depth.by_view, strict=True)
        }
    frames = {
        frame.stamp_ns: _depth_frame(
            frame,
            evaluation.answers.depths[frame.stamp_ns],
            f"{(frame.stamp_ns - start) / 1e9:.1f} s\n{names[frame.stamp_ns]}"
            f"{scores.get(frame.stamp_ns, '')}",
        )
        for frame in evaluation.source.frames.at(names)
    }
    return [frames[stamp] for stamp in names if stamp in frames]


def _write_cloud(evaluation: BagEvaluation, stamp_ns: int, path: Path) -> None:
    frame = next(evaluation.source.frames.at([stamp_ns]))
    camera, depth = frame.camera, evaluation.answers.depths[stamp_ns]
    dense = dense_depth(frame, uniform_grid(camera, *GRID), depth)
    points = camera.unproject(camera.pixel_grid(), dense)
    write_ply(path, points.reshape(-1, 3), frame.image.reshape(-1, 3))


def _pictures(evaluation: BagEvaluation) -> list[tuple[str, str]]:
    """Titles and data URLs of the pictures of the report."""
    pictures = []
    if frames := _shown_frames(evaluation):
        png = io.BytesIO()
        draw_depth_frames(frames, png, f"{evaluation.model}: depth along Z")
        pictures.append(("Depth and its errors", png_source(png.getvalue())))
    start = min(evaluation.truth.stamps_ns, default=0)
    figures = {
        "Trajectory": trajectory_figure(evaluation),
        "Map from above": occupancy_figure(evaluation),
        "Clicked pixels": clicks_figure(evaluation),
        "Errors over time": plot_errors(evaluation.scores, start),
        "Latency": plot_latency(evaluation.answers.latency),
    }
    return pictures + [(title, svg_source(figure)) for title, figure in figures.items() if figure]


def _shown_frames(evaluation: BagEvaluation) -> list[DepthFrame]:
    """Frames of the smallest, the median and the largest error; evenly over time without truth."""
    depth = evaluation.scores.depth
    if depth is None:
        return depth_frames(evaluation, evenly(sorted(evaluation.answers.depths), SHOWN))
    chosen = best_median_worst(depth.views, lambda view: view.error)
    return depth_frames(evaluation, {view.index: f"{name}: " for name, view in chosen.items()})


def _depth_frame(frame: BagFrame, depth: NDArray[np.floating], title: str) -> DepthFrame:
    pixels = uniform_grid(frame.camera, *GRID)
    dense = dense_depth(frame, pixels, depth)
    return DepthFrame(title.strip(), frame.image, pixels, depth, dense, frame.depth)
