# SPDX-License-Identifier: Apache-2.0
"""Pictures of answers about two images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from vlm3_ros.evaluation.pictures.figures import add_panel, add_text, new_figure, save_png
from vlm3_ros.geometry.motion import Transform, motion_parts
from vlm3_ros.language.wordings.pose import coarse_direction

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PANEL_WIDTH, _GAP, _MARGIN = 3.6, 0.12, 0.2  # inches
_MAX_HEIGHT = 3.2
_HEAD, _LINE, _SPACE = 0.6, 0.19, 0.22
_TRUE, _ANSWERED, _FIRST = "#2a7f3f", "#c8401e", "#404040"
_WEDGE_HALF_ANGLE = 0.45  # radians, of a camera drawn from above


@dataclass(frozen=True)
class PairFrame:
    """Two images with answers about them and the truth.

    Attributes:
        title: a short line above the images.
        images: RGB, shape (height, width, 3) each, uint8.
        pixels1: asked (u, v) in the first image, shape (n, 2); n may be 0.
        pixels2: answers in the second image, shape (n, 2), NaN where unanswered.
        pixels2_true: truth, shape (n, 2); None if unknown.
        motion: answered T_cam1_cam2, shape (4, 4), metres, NaN if unanswered; None if not
            asked.
        motion_true: true T_cam1_cam2; None if unknown.
        is_metric: whether `motion_true` is in metres; otherwise its length means nothing.
    """

    title: str
    images: tuple[NDArray[np.uint8], NDArray[np.uint8]]
    pixels1: NDArray[np.float64]
    pixels2: NDArray[np.float64]
    pixels2_true: NDArray[np.float64] | None
    motion: Transform | None
    motion_true: Transform | None
    is_metric: bool = True


def motion_words(T_cam1_cam2: Transform, is_metric: bool = True) -> str:
    """Describe a motion: distance, if it is in metres, direction, yaw, pitch and roll."""
    if not np.isfinite(T_cam1_cam2).all():
        return "no motion could be read"
    parts = motion_parts(T_cam1_cam2)
    # Adding 0 removes the sign of a negative zero.
    angles = (round(float(angle), 1) + 0.0 for angle in parts.yaw_pitch_roll_deg)
    turn = ", ".join(
        f"{name} {angle:.1f}°" for name, angle in zip(("yaw", "pitch", "roll"), angles, strict=True)
    )
    distance = f"{parts.distance:.2f} m" if is_metric else "unknown distance"
    return f"{distance} {coarse_direction(parts.direction)}; {turn}"


def draw_pair_frames(
    frames: Sequence[PairFrame], path: Path | str | BinaryIO, title: str, legend: str | None = None
) -> None:
    """Draw one row for each frame as a PNG, as figure 3 of the paper.

    Both images side by side, a line from each asked pixel to the answered one, a cross at the true
    one; if a motion was asked, both cameras from above: the first, the answered second and the
    true second, each as a wedge that opens in viewing direction.

    Args:
        frames: at least one.
        path: PNG file to write, or an open file.
        title: stands above.
        legend: meaning of dots and lines; None for asked and answered pixels.
    """
    has_motion = any(frame.motion is not None for frame in frames)
    panels = [_panel_height(frame) for frame in frames]
    width = 2 * _MARGIN + 2 * _PANEL_WIDTH + _GAP + (has_motion * (_PANEL_WIDTH + 0.5))
    captions = sum(_caption_height(frame) for frame in frames)
    height = _HEAD + sum(panels) + captions + _SPACE * len(frames)
    figure = new_figure(width, height)
    add_text(figure, _MARGIN, height - 0.12, title, size=12, weight="bold")
    if any(len(frame.pixels1) for frame in frames):
        legend = _legend(frames) if legend is None else legend
        add_text(figure, _MARGIN, height - 0.34, legend, size=8, colour=_FIRST)
    top = height - _HEAD
    for frame, panel in zip(frames, panels, strict=True):
        for line, (text, colour) in enumerate(_caption(frame)):
            weight = "bold" if text == frame.title else "normal"
            add_text(figure, _MARGIN, top - _LINE * line, text, 9, weight, colour)
        bottom = top - _caption_height(frame) - panel
        _draw_matches(add_panel(figure, _MARGIN, bottom, 2 * _PANEL_WIDTH + _GAP, panel), frame)
        if frame.motion is not None:
            left = 2 * (_MARGIN + _PANEL_WIDTH) + _GAP + 0.35
            _draw_from_above(add_panel(figure, left, bottom, _PANEL_WIDTH, panel), frame)
        top = bottom - _SPACE
    save_png(figure, path)


def _panel_height(frame: PairFrame) -> float:
    return max(_inches_per_px(image) * image.shape[0] for image in frame.images)


def _inches_per_px(image: NDArray[np.uint8]) -> float:
    height, width = image.shape[:2]
    return min(_PANEL_WIDTH / width, _MAX_HEIGHT / height)


def _caption(frame: PairFrame) -> list[tuple[str, str]]:
    """Lines above a row and their colours."""
    lines = [(frame.title, "black")] if frame.title else []
    for name, colour, motion in _known_motions(frame):
        is_metric = frame.is_metric or motion is not frame.motion_true
        lines.append((f"{name}: {motion_words(motion, is_metric)}", colour))
    return lines


def _caption_height(frame: PairFrame) -> float:
    return _LINE * len(_caption(frame)) + 0.06


def _legend(frames: Sequence[PairFrame]) -> str:
    legend = "dots and lines: asked and answered; squares: asked, no answer"
    is_known = any(frame.pixels2_true is not None for frame in frames)
    return f"{legend}; crosses: true" if is_known else legend


def _known_motions(frame: PairFrame) -> list[tuple[str, str, Transform]]:
    motions = [("answered", _ANSWERED, frame.motion), ("true", _TRUE, frame.motion_true)]
    return [(name, colour, motion) for name, colour, motion in motions if motion is not None]


def _draw_matches(axes: Axes, frame: PairFrame) -> None:
    """Draw both images in one panel, in inches, so that lines run from one to the other."""
    from matplotlib import colormaps

    places, left, seen = [], 0.0, (frame.pixels1, frame.pixels2, frame.pixels2_true)
    for image, pixels in zip(frame.images, seen[:2], strict=True):
        scale = _inches_per_px(image)
        height, width = scale * image.shape[0], scale * image.shape[1]
        extent = (left, left + width, height, 0)
        axes.imshow(image, extent=extent, aspect="auto", interpolation="bilinear")
        places.append((pixels + 0.5) * scale + (left, 0))
        truth = None if seen[2] is None else (seen[2] + 0.5) * scale + (left, 0)
        left += width + _GAP
    axes.set_xlim(0, 2 * _PANEL_WIDTH + _GAP)
    axes.set_ylim(_panel_height(frame), 0)
    # Colours by height in the image: neighbours differ, so crossing lines stand out.
    order = np.argsort(np.argsort(frame.pixels1[:, 1], kind="stable"))
    colours = colormaps["gist_rainbow"](np.linspace(0, 0.92, max(len(order), 1)))[order]
    for i, (start, end) in enumerate(zip(*places, strict=True)):
        answered = np.isfinite(end).all()
        if answered:
            axes.plot(*np.transpose([start, end]), color=colours[i], linewidth=1.1, zorder=3)
            _draw_mark(axes, end, colours[i], "o")
        _draw_mark(axes, start, colours[i], "o" if answered else "s")
        if truth is not None:
            _draw_cross(axes, truth[i], colours[i])


def _draw_mark(
    axes: Axes, place: NDArray[np.float64], colour: NDArray[np.float64], marker: str
) -> None:
    axes.plot(
        place[0],
        place[1],
        marker,
        color=colour,
        markersize=5.5,
        markeredgecolor="white",
        markeredgewidth=0.8,
        zorder=4,
    )


def _draw_cross(axes: Axes, place: NDArray[np.float64], colour: NDArray[np.float64]) -> None:
    axes.plot(place[0], place[1], "x", color="white", markersize=8, markeredgewidth=3.4, zorder=5)
    axes.plot(place[0], place[1], "x", color=colour, markersize=7, markeredgewidth=1.6, zorder=6)


def _draw_from_above(axes: Axes, frame: PairFrame) -> None:
    """Draw cameras in the X-Z plane of the first one, metres."""
    cameras = [("first", _FIRST, np.eye(4)), *_known_motions(frame)]
    cameras = [camera for camera in cameras if np.isfinite(camera[2]).all()]
    places = np.array([T[[0, 2], 3] for _, _, T in cameras])
    reach = max(float(np.ptp(places, axis=0).max()), 0.1)
    size = 0.35 * reach
    corners = []
    for name, colour, T in cameras:
        corners.append(_wedge(T, size))
        axes.fill(*corners[-1].T, facecolor=colour, alpha=0.25, edgecolor=colour, linewidth=1.2)
        axes.plot(T[0, 3], T[2, 3], "o", color=colour, markersize=4, zorder=3, label=name)
        if name != "first":
            axes.plot(*np.transpose([(0, 0), T[[0, 2], 3]]), color=colour, linewidth=1)
    low, high = np.min(np.concatenate(corners), axis=0), np.max(np.concatenate(corners), axis=0)
    middle, half = (low + high) / 2, 0.62 * float((high - low).max())
    aspect = np.divide(*axes.get_window_extent().size)
    axes.set_xlim(middle[0] - half * max(aspect, 1), middle[0] + half * max(aspect, 1))
    axes.set_ylim(middle[1] - half / min(aspect, 1), middle[1] + half / min(aspect, 1))
    axes.set_facecolor("#f4f4f4")
    axes.legend(loc="upper left", fontsize=8, frameon=False, handletextpad=0.2)
    _draw_scale(axes)
    axes.set_title("from above", fontsize=9, pad=3, loc="left")


def _wedge(T: Transform, size: float) -> NDArray[np.float64]:
    """Outline of a camera's view from above, shape (3, 2)."""
    sides = [
        Rotation.from_rotvec([0, angle, 0]).apply([0, 0, size])
        for angle in (-_WEDGE_HALF_ANGLE, _WEDGE_HALF_ANGLE)
    ]
    points = np.vstack([np.zeros(3), *sides]) @ T[:3, :3].T + T[:3, 3]
    return np.asarray(points[:, [0, 2]])


def _draw_scale(axes: Axes) -> None:
    """Draw a bar of a round length in metres, lower right."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    wanted = (right - left) / 4
    power = 10 ** np.floor(np.log10(wanted))
    length = max(step * power for step in (1, 2, 5) if step * power <= wanted)
    end, level = right - 0.06 * (right - left), bottom + 0.08 * (top - bottom)
    axes.plot([end - length, end], [level, level], color="black", linewidth=2)
    axes.text(end - length / 2, level, f"{length:g} m", fontsize=8, ha="center", va="bottom")
