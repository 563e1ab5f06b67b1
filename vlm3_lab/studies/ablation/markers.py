# SPDX-License-Identifier: Apache-2.0
"""Name pixels by a drawn arrow, as DepthLM does (Cai et al. 2025).

The paper replaces the arrow by coordinates in text (section 3.1): each copy of an image can carry
one arrow, but questions can name any number of coordinates. `vlm3 ablate` compares both.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlm3_ros.engines.base import Engine
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.geometry.images import unify_image
from vlm3_ros.tasks.depth import DEPTH, DepthAnswers
from vlm3_ros.tasks.task import learned_wording, model_views

QUESTION = "Given this image, how far is the point that the red arrow points at from the camera?"
"""The image, not the question, names the pixel."""

COLOUR = (255, 0, 0)
LENGTH = 0.12
"""Length of the arrow, as a share of the side of a square with the view's area."""

SHORTEST_PX = 8.0
"""Shorter arrows are not recognisable."""

_HEAD, _HEAD_WIDTH, _SHAFT_WIDTH = 0.5, 0.5, 0.16
"""Parts of the arrow as shares of its length."""


def draw_marker(view: NDArray[np.uint8], pixel: ArrayLike) -> NDArray[np.uint8]:
    """Return a copy of a view with a red arrow whose tip is at a pixel.

    The arrow lies on the diagonal towards the middle of the view, so that all of it is visible.

    Args:
        view: RGB, shape (height, width, 3), uint8.
        pixel: (u, v) in the view.
    """
    tip = np.asarray(pixel, dtype=float)
    height, width = view.shape[:2]
    inwards = np.where(tip * 2 < (width, height), 1.0, -1.0) / math.sqrt(2)
    across = np.array([-inwards[1], inwards[0]])
    length = marker_length(width, height)
    outline = [
        tip + length * (along * inwards + side * across)
        for along, side in (
            (0.0, 0.0),
            (_HEAD, _HEAD_WIDTH / 2),
            (_HEAD, _SHAFT_WIDTH / 2),
            (1.0, _SHAFT_WIDTH / 2),
            (1.0, -_SHAFT_WIDTH / 2),
            (_HEAD, -_SHAFT_WIDTH / 2),
            (_HEAD, -_HEAD_WIDTH / 2),
        )
    ]
    marked = view.copy()
    cv2.fillPoly(marked, [np.round(outline).astype(np.int32)], COLOUR)
    return marked


def marker_length(width: int, height: int) -> float:
    """Return the length of the arrow in a view of this size, px."""
    return max(SHORTEST_PX, LENGTH * math.sqrt(width * height))


def ask_marked_depth(
    engine: Engine, image: NDArray[np.uint8], camera: PinholeCamera, pixels: ArrayLike
) -> DepthAnswers:
    """Ask for the metric depth of pixels, each by an arrow on its own copy of the image.

    Args:
        engine: its checkpoint must have learned from such arrows; no shipped one did.
        image: rectified RGB, shape (camera.height, camera.width, 3), uint8.
        camera: its intrinsics.
        pixels: (u, v), shape (n, 2).

    Raises:
        GeometryError: if the image does not fit its camera or the engine's limits.
        EngineError: if the model did not learn metric depth, or cannot answer.
    """
    pixels = np.asarray(pixels, dtype=float).reshape(-1, 2)
    wording = learned_wording(engine, DEPTH)
    views = model_views(engine.profile, engine.limits, [camera])
    (unified,) = views.cameras
    view = unify_image(image, unified)
    answers = [
        answer
        for pixel in unified.to_view(pixels)
        for answer in engine.ask([draw_marker(view, pixel)], [QUESTION], wording.answer)
    ]
    return DEPTH.read(wording, views, pixels, answers)
