# SPDX-License-Identifier: Apache-2.0
"""The answers about a bag in 3D: clouds of a few frames, the true and the estimated trajectory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vlm3_ros.evaluation.bag.answers import GRID, BagAnswers
from vlm3_ros.evaluation.bag.frames import BagFrame
from vlm3_ros.evaluation.bag.scores import odometry_chains
from vlm3_ros.evaluation.scene import Cloud, Polyline, Scene3D
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.geometry.motion import Transform, inverse
from vlm3_ros.tasks.depth import uniform_grid
from vlm3_ros.tasks.frame_depth import dense_depth

if TYPE_CHECKING:
    from vlm3_ros.evaluation.bag.evaluate import BagEvaluation

SHOWN = 4
"""Frames whose clouds are shown, evenly over time."""

_TRUE, _ESTIMATED, _CAMERA = "#2a7f3f", "#c8401e", "#404040"
_CAMERA_DEPTH = 0.3
"""Metres from a camera to the image plane of its outline."""

_T_BODY_OPTICAL = np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1.0]])
"""Axes of REP-103: X forward, Z up, from an optical frame's Z forward, Y down."""


def bag_scene(evaluation: BagEvaluation) -> Scene3D | None:
    """Build the scene of a bag: Z up, in the frame of its true poses if known, else in odom.

    Clouds stand at the true poses, or at the poses of the odometry if these are unknown.

    Returns:
        None if no answered frame has a pose.
    """
    answers, poses = evaluation.answers, evaluation.source.poses
    T_world_odom = odom_origins(evaluation)
    if poses is None:  # The base is the camera: its first view is taken as level.
        T_world_odom = {stamp: _T_BODY_OPTICAL @ T for stamp, T in T_world_odom.items()}
    T_world_base = _poses(evaluation, T_world_odom)
    answered = [
        stamp
        for stamp in sorted(answers.depths)
        if stamp in T_world_base and np.isfinite(answers.depths[stamp]).any()
    ]
    if not answered:
        return None
    chosen = {answered[i] for i in np.linspace(0, len(answered) - 1, SHOWN, dtype=int)}
    start = min(evaluation.truth.stamps_ns, default=answered[0])
    clouds, truths, outlines = [], [], []
    for frame in evaluation.source.frames.at(chosen):
        T_world_camera = T_world_base[frame.stamp_ns] @ evaluation.source.T_base_camera
        name = f"{(frame.stamp_ns - start) / 1e9:.1f} s"
        pixels = uniform_grid(frame.camera, *GRID)
        dense = dense_depth(frame, pixels, answers.depths[frame.stamp_ns])
        if frame.depth is not None:
            dense[~np.isfinite(frame.depth)] = np.nan
            truths.append(_cloud(f"true depth, {name}", frame, frame.depth, T_world_camera, False))
        clouds.append(_cloud(f"answers, {name}", frame, dense, T_world_camera))
        outlines.append(_outline(frame.camera, T_world_camera))
    lines = [Polyline("cameras", np.concatenate(outlines), _CAMERA, width=2.0)]
    if poses is not None:
        stamps = np.array(evaluation.truth.stamps_ns, np.int64)
        lines.append(Polyline("true trajectory", poses.base.at(stamps)[:, :3, 3], _TRUE))
    if answers.odom:
        lines.append(Polyline("odometry", _odometry_line(answers, T_world_odom), _ESTIMATED))
    first = T_world_base[answered[0]] @ evaluation.source.T_base_camera
    place = "at their poses by odometry" if poses is None else "at their true poses"
    note = (
        f"Dense depth from the answers about {len(clouds)} frames, {place}; metres, Z up. Pixels "
        "whose true depth is unknown, such as sky, are left out."
    )
    return Scene3D(clouds + truths, lines, _horizontal(first[:3, 2]), note)


def odom_origins(evaluation: BagEvaluation) -> dict[int, Transform]:
    """T_world_odom by the stamp from which it holds, the start of a part of the odometry.

    The first pose of each part is put on the true one; the identity if that is unknown.
    """
    answers, poses = evaluation.answers, evaluation.source.poses
    origins = {}
    for chain in odometry_chains(answers):
        start = chain[0]
        true = np.full((4, 4), np.nan) if poses is None else poses.base.at([start])[0]
        is_known = np.isfinite(true).all()
        origins[start] = true @ inverse(answers.odom[start]) if is_known else np.eye(4)
    return origins


def _poses(
    evaluation: BagEvaluation, T_world_odom: Mapping[int, Transform]
) -> dict[int, Transform]:
    """T_world_base by stamp: true if known, else of the odometry."""
    answers, poses = evaluation.answers, evaluation.source.poses
    known = {
        stamp: T_world_odom[chain[0]] @ answers.odom[stamp]
        for chain in odometry_chains(answers)
        for stamp in chain
    }
    stamps = sorted(answers.depths)
    if poses is None or not stamps:
        return known
    true = poses.base.at(stamps)
    return known | {
        stamp: pose for stamp, pose in zip(stamps, true, strict=True) if np.isfinite(pose).all()
    }


def _odometry_line(
    answers: BagAnswers, T_world_odom: Mapping[int, Transform]
) -> NDArray[np.float64]:
    """Positions of the base by odometry, shape (n, 3), NaN between its parts."""
    parts: list[NDArray[np.float64]] = []
    for chain in odometry_chains(answers):
        poses = T_world_odom[chain[0]] @ np.stack([answers.odom[stamp] for stamp in chain])
        parts += [poses[:, :3, 3], np.full((1, 3), np.nan)]
    return np.concatenate(parts)


def _cloud(
    name: str,
    frame: BagFrame,
    depth: NDArray[np.floating[Any]],
    T_world_camera: Transform,
    is_shown: bool = True,
) -> Cloud:
    depth = np.where(np.isfinite(depth) & (depth > 0), depth, np.nan)
    points = frame.camera.unproject(frame.camera.pixel_grid(), depth).reshape(-1, 3)
    points = points @ T_world_camera[:3, :3].T + T_world_camera[:3, 3]
    return Cloud(name, points, frame.image.reshape(-1, 3), is_shown)


def _outline(camera: PinholeCamera, T_world_camera: Transform) -> NDArray[np.float64]:
    """A camera as a pyramid drawn in one line, shape (11, 3); NaN ends it."""
    right, bottom = camera.width - 1, camera.height - 1
    corners = camera.unproject(
        [[0, 0], [right, 0], [right, bottom], [0, bottom]], np.full(4, _CAMERA_DEPTH)
    )
    a, b, c, d = corners
    eye = np.zeros(3)
    line = np.array([eye, a, b, eye, c, b, c, d, eye, d, a])
    line = line @ T_world_camera[:3, :3].T + T_world_camera[:3, 3]
    return np.concatenate([line, np.full((1, 3), np.nan)])


def _horizontal(direction: NDArray[np.float64]) -> tuple[float, float]:
    x, y = map(float, direction[:2])
    return (x, y) if np.hypot(x, y) > 0.1 else (1.0, 0.0)
