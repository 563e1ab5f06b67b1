# SPDX-License-Identifier: Apache-2.0
"""A picture for people: the asked pixels of a frame, coloured by their depth."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlm3_ros.tasks.frame_depth import FrameDepth

RANGE = (0.5, 20.0)
"""Metres at the ends of the colours, the same for all frames; between them they are logarithmic."""

_TICKS = (0.5, 1, 2, 5, 10, 20)
_MIN_WIDTH = 640
"""Smaller images are enlarged by a whole factor: dots and letters need room."""
_LEGEND = 34
_LEVELS = np.arange(256, dtype=np.uint8).reshape(-1, 1)
_COLOURS = cv2.applyColorMap(_LEVELS, cv2.COLORMAP_TURBO)[:, 0, ::-1]
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)


def depth_colours(depth: ArrayLike) -> NDArray[np.uint8]:
    """Colours of depths in metres, shape (n,): RGB, shape (n, 3), red is near and blue far."""
    near, far = RANGE
    share = np.log(np.asarray(depth, float) / near) / math.log(far / near)
    return np.asarray(_COLOURS[np.rint((1 - np.clip(share, 0, 1)) * 255).astype(int)], np.uint8)


def draw_answers(depth: FrameDepth) -> NDArray[np.uint8]:
    """Draw the answers about a frame over its image, with a legend below.

    Dots: published. Rings with a cross: withheld. Black crosses: unanswered. Pixels that were not
    asked have no mark.

    Returns:
        RGB, uint8, as wide as the image times a whole factor, and higher by the legend.
    """
    image, answers = depth.frame.image, depth.answers
    factor = max(1, math.ceil(_MIN_WIDTH / image.shape[1]))
    canvas = np.repeat(np.repeat(image, factor, 0), factor, 1) // 2  # dark, so that dots stand out
    published = np.isfinite(depth.depth[depth.visible])
    places = np.rint((answers.pixels + 0.5) * factor - 0.5).astype(int)
    colours = depth_colours(np.nan_to_num(answers.depth, nan=1.0)).tolist()
    cell = math.sqrt(canvas.shape[0] * canvas.shape[1] / max(len(depth.pixels), 1))
    radius = max(2, min(9, round(cell / 5)))
    marks = zip(places.tolist(), colours, published, np.isfinite(answers.depth), strict=True)
    for place, colour, is_published, is_answered in marks:
        if is_published:
            cv2.circle(canvas, place, radius + 1, _BLACK, -1, cv2.LINE_AA)
            cv2.circle(canvas, place, radius, colour, -1, cv2.LINE_AA)
            continue
        colour = colour if is_answered else _BLACK
        for ink, width in ((_WHITE, 3), (colour, 1)):
            if is_answered:
                cv2.circle(canvas, place, radius, ink, width, cv2.LINE_AA)
            cv2.drawMarker(canvas, place, ink, cv2.MARKER_TILTED_CROSS, 2 * radius, width)
    return np.vstack([canvas, _legend(canvas.shape[1], depth.counts)])


def _legend(width: int, counts: dict[str, int]) -> NDArray[np.uint8]:
    """Draw the colours with their metres, and the counts; shape (_LEGEND, width, 3)."""
    strip = np.full((_LEGEND, width, 3), 255, np.uint8)
    near, far = RANGE
    scale = depth_colours(np.geomspace(near, far, width // 2 - 20))
    strip[3:14, 8 : 8 + len(scale)] = scale
    for tick in _TICKS:
        x = 8 + round(math.log(tick / near) / math.log(far / near) * (len(scale) - 1))
        strip[14:18, x] = 0
        _write(strip, f"{tick:g} m", max(x - 12, 2))
    _write(strip, ", ".join(f"{n} {what}" for what, n in counts.items() if n), width // 2 + 8)
    return strip


def _write(strip: NDArray[np.uint8], text: str, x: int) -> None:
    cv2.putText(strip, text, (x, 29), cv2.FONT_HERSHEY_SIMPLEX, 0.36, _BLACK, 1, cv2.LINE_AA)
