# SPDX-License-Identifier: Apache-2.0
"""Features of two images, matched without any model: OpenCV's SIFT (Lowe 2004)."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

RATIO = 0.8
"""Largest ratio of nearest to second nearest descriptor distance of a match (Lowe 2004).

Repeated texture has many near descriptors, and so gives no matches.
"""

CONTRAST = 0.04
"""Contrast of the weakest feature: OpenCV's default."""

_BORDER = 9
"""Side of the square around a feature that must be visible, px."""


@dataclass(frozen=True)
class Features:
    """`pixels`: (u, v), shape (n, 2). `words`: their descriptors, shape (n, 128), float32."""

    pixels: NDArray[np.float64]
    words: NDArray[np.float32]


def sift_features(
    image: NDArray[np.uint8],
    count: int,
    width: int | None = None,
    contrast: float = CONTRAST,
    visible: NDArray[np.bool_] | None = None,
) -> Features:
    """Find the strongest SIFT features of an RGB image.

    Args:
        image: shape (height, width, 3), uint8.
        count: number of features that are kept.
        width: px to which a wider image is shrunk: less work. None: never.
        contrast: of the weakest feature.
        visible: mask of valid pixels, shape (height, width); None if all are valid. The border of
            the valid part of a rectified image looks like a feature that never moves.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    scale = 1.0
    if width is not None and width < image.shape[1]:
        scale = width / image.shape[1]
        grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    mask = None
    if visible is not None and not visible.all():
        size = (grey.shape[1], grey.shape[0])
        mask = cv2.resize(visible.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        mask = cv2.erode(mask, np.ones((_BORDER, _BORDER)), borderValue=1)
    sift = cv2.SIFT.create(count, contrastThreshold=contrast)
    points, words = sift.detectAndCompute(grey, mask)
    pixels = np.array([point.pt for point in points], dtype=float).reshape(-1, 2)
    none = np.empty((0, 128))
    return Features(
        (pixels + 0.5) / scale - 0.5, np.asarray(none if words is None else words, np.float32)
    )


def matched_features(
    first: Features, second: Features
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Match features: nearest neighbours of each other that pass Lowe's ratio test both ways.

    Returns:
        Pixels (u, v) in the first and in the second image, shape (n, 2) each.
    """
    forward, backward = _nearest(first.words, second.words), _nearest(second.words, first.words)
    pairs = [(i, j) for i, j in forward.items() if backward.get(j) == i]
    ones, others = np.array(pairs, dtype=int).reshape(-1, 2).T
    return first.pixels[ones], second.pixels[others]


def _nearest(words: NDArray[np.float32], others: NDArray[np.float32]) -> dict[int, int]:
    """Nearest other descriptor of each one that passes the ratio test."""
    if not len(words) or not len(others):
        return {}
    neighbours = cv2.BFMatcher(cv2.NORM_L2).knnMatch(words, others, k=2)
    return {
        pair[0].queryIdx: pair[0].trainIdx
        for pair in neighbours
        if len(pair) == 2 and pair[0].distance < RATIO * pair[1].distance
    }
