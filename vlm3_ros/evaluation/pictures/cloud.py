# SPDX-License-Identifier: Apache-2.0
"""Pictures of clouds of answered depth, seen from the upper left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from vlm3_ros.evaluation.pictures.figures import add_panel, add_text, new_figure, save_png
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.geometry.motion import Transform, inverse

_YAW_DEG, _PITCH_DEG = 28.0, -20.0
"""Direction from which clouds are seen, about their middle: from the left and from above."""

_IN_VIEW = 0.9
"""Share of a cloud that must be in view; the viewer steps back until it is."""

_TORN = 0.07
"""Change of the logarithm of depth between neighbouring pixels above which the surface is torn.
Interpolated depths between an object and its background belong to neither."""

_SUPERSAMPLING = 2
"""Size of a drawn cloud relative to the image, for smooth edges."""

_MAX_SIDE = 16  # px of a square
_PAPER = 250
_PANEL_WIDTH, _GAP, _LEFT, _MARGIN, _HEAD = 3.2, 0.06, 0.5, 0.2, 0.62  # inches


@dataclass(frozen=True)
class CloudFrame:
    """An image and the depth of every pixel.

    Attributes:
        title: one or two short lines next to the image.
        image: RGB, shape (camera.height, camera.width, 3), uint8.
        camera: took the image.
        depth: metres along Z, shape (height, width), NaN where unknown.
        truth: as `depth`, not finite where unknown or sky; None if unknown.
    """

    title: str
    image: NDArray[np.uint8]
    camera: PinholeCamera
    depth: NDArray[np.floating[Any]]
    truth: NDArray[np.floating[Any]] | None


def draw_clouds(frames: Sequence[CloudFrame], path: Path | str | BinaryIO, title: str) -> None:
    """Draw one row per frame as a PNG, as figure 3 of the paper.

    From left to right: the image, its depth, its cloud from the upper left and, if the truth of
    any frame is known, the true cloud from the same place.

    Args:
        frames: at least one.
        path: PNG file to write, or an open file.
        title: of the picture.
    """
    has_truth = any(frame.truth is not None for frame in frames)
    names = [
        "image",
        "depth (near: red, far: blue)",
        "answers as a cloud, from the left",
        "the true cloud",
    ][: 3 + has_truth]
    heights = [_PANEL_WIDTH * f.image.shape[0] / f.image.shape[1] for f in frames]
    width = _LEFT + _MARGIN + len(names) * (_PANEL_WIDTH + _GAP)
    height = _HEAD + sum(heights) + _GAP * len(frames) + _MARGIN
    figure = new_figure(width, height)
    add_text(figure, _LEFT, height - 0.12, title, 12, "bold")
    top = height - _HEAD
    for row, (frame, panel) in enumerate(zip(frames, heights, strict=True)):
        for column, picture in enumerate(_panels(frame)):
            left = _LEFT + column * (_PANEL_WIDTH + _GAP)
            axes = add_panel(figure, left, top - panel, _PANEL_WIDTH, panel)
            axes.imshow(picture, aspect="auto", interpolation="bilinear")
            if row == 0:
                axes.set_title(names[column], fontsize=10, pad=4)
            if column == 0:
                axes.set_ylabel(frame.title, fontsize=9, labelpad=4)
        top -= panel + _GAP
    save_png(figure, path)


def render_cloud(
    points: NDArray[np.floating[Any]],
    colours: NDArray[np.uint8],
    sizes: NDArray[np.floating[Any]],
    camera: PinholeCamera,
) -> NDArray[np.uint8]:
    """Render points as squares, nearer ones in front.

    Args:
        points: in the optical frame of `camera`, metres, shape (n, 3).
        colours: RGB, shape (n, 3), uint8.
        sizes: sides of the squares, metres, shape (n,).
        camera: of the viewer.

    Returns:
        RGB, shape (camera.height, camera.width, 3), uint8; nearly white without points.
    """
    picture = np.full((camera.height, camera.width, 3), _PAPER, np.uint8)
    seen = np.isfinite(points).all(axis=1) & (points[:, 2] > 1e-3)
    points, colours = points[seen], colours[seen]
    side = np.clip(np.ceil(sizes[seen] * camera.fx / points[:, 2]), 1, _MAX_SIDE).astype(int)
    corner = np.rint(camera.project(points) - (side[:, None] - 1) / 2).astype(int)
    u, v, which = [], [], []
    for across in range(int(side.max(initial=0))):
        for down in range(int(side.max(initial=0))):
            large = np.flatnonzero(side > max(across, down))
            u.append(corner[large, 0] + across)
            v.append(corner[large, 1] + down)
            which.append(large)
    if not u:
        return picture
    columns, rows, indices = (np.concatenate(parts) for parts in (u, v, which))
    inside = (columns >= 0) & (columns < camera.width) & (rows >= 0) & (rows < camera.height)
    columns, rows, indices = columns[inside], rows[inside], indices[inside]
    far_first = np.argsort(-points[indices, 2], kind="stable")
    picture[rows[far_first], columns[far_first]] = colours[indices[far_first]]
    return picture


def view_from_upper_left(points: NDArray[np.floating[Any]], camera: PinholeCamera) -> Transform:
    """Find T_camera_viewer: a view from the upper left, far enough to see most of the points.

    Args:
        points: in the optical frame of the camera that saw them, metres, shape (n, 3); n >= 1.
        camera: of the viewer.
    """
    near, far = np.percentile(points[:, 2], [10, 90])
    middle = np.array([*np.median(points[:, :2], axis=0), np.sqrt(near * far)])
    turn = Rotation.from_euler("YX", [_YAW_DEG, _PITCH_DEG], degrees=True).as_matrix()
    T = np.eye(4)
    T[:3, :3] = turn
    for steps in np.arange(0.8, 4.0, 0.1):
        T[:3, 3] = middle - turn @ [0, 0, steps * np.linalg.norm(middle)]
        back = inverse(T)
        u, v = camera.project(points @ back[:3, :3].T + back[:3, 3]).T
        inside = (u >= 0) & (u < camera.width) & (v >= 0) & (v < camera.height)
        if inside.mean() >= _IN_VIEW:
            break
    return T


def _panels(frame: CloudFrame) -> list[NDArray[np.uint8]]:
    known = np.isfinite(frame.depth)
    panels = [
        frame.image,
        _coloured(frame.depth, frame.depth if frame.truth is None else frame.truth),
    ]
    if not known.any():
        return [*panels, np.full_like(frame.image, _PAPER)]
    reference = frame.depth if frame.truth is None else frame.truth
    T_camera_viewer = view_from_upper_left(_points(frame, reference), _centred(frame.camera))
    clouds = [frame.depth] if frame.truth is None else [frame.depth, frame.truth]
    return [*panels, *(_seen_from(frame, depth, T_camera_viewer) for depth in clouds)]


def _points(frame: CloudFrame, depth: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    points = frame.camera.unproject(frame.camera.pixel_grid(), depth)
    return np.asarray(points[np.isfinite(depth) & (depth > 0)])


def _seen_from(
    frame: CloudFrame, depth: NDArray[np.floating[Any]], T_camera_viewer: Transform
) -> NDArray[np.uint8]:
    depth = np.where(np.isfinite(depth) & (depth > 0), depth, np.nan)
    camera, T_viewer_camera = frame.camera, inverse(T_camera_viewer)
    points = camera.unproject(camera.pixel_grid(), depth)
    torn, sizes = np.zeros(depth.shape, bool), np.zeros(depth.shape)
    for axis in (0, 1):
        jump = np.abs(np.diff(np.log(depth), axis=axis)) > _TORN
        apart = np.linalg.norm(np.diff(points, axis=axis), axis=-1)
        for end in (0, jump.shape[axis]):
            torn |= np.insert(jump, end, False, axis=axis)
            sizes = np.fmax(sizes, np.insert(np.where(jump, 0, apart), end, 0, axis=axis))
    kept = np.isfinite(depth) & ~torn
    points = points[kept] @ T_viewer_camera[:3, :3].T + T_viewer_camera[:3, 3]
    eye = _centred(camera)
    eye = eye.resized(_SUPERSAMPLING * camera.width, _SUPERSAMPLING * camera.height)
    return render_cloud(points, frame.image[kept], 1.1 * sizes[kept], eye)


def _centred(camera: PinholeCamera) -> PinholeCamera:
    return replace(camera, cx=(camera.width - 1) / 2, cy=(camera.height - 1) / 2)


def _coloured(
    depth: NDArray[np.floating[Any]], scale: NDArray[np.floating[Any]]
) -> NDArray[np.uint8]:
    """Colour depth on a logarithmic scale over the range of `scale`; near is red."""
    from matplotlib import colormaps

    known = scale[np.isfinite(scale) & (scale > 0)]
    near, far = np.percentile(known, [1, 99]) if known.size else (1.0, 10.0)
    share = np.log(np.where(depth > 0, depth, np.nan) / near) / np.log(max(far / near, 1.1))
    colours = colormaps["turbo_r"](0.06 + 0.88 * np.clip(np.nan_to_num(share), 0, 1))[..., :3]
    colours[~np.isfinite(share)] = 0.85
    return (colours * 255).astype(np.uint8)
