# SPDX-License-Identifier: Apache-2.0
"""Choose the pixels to ask about: more of them where an image has detail."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from vlm3_ros.geometry.images import lab_image

WORK_WIDTH = 128
"""Width in px to which larger images are shrunk to choose the pixels."""

_EDGE_SHARE = 0.5
"""Share that an image's mean edge adds to the even density of questions."""

_STRONG_EDGE = 60.0
"""Gradient of colour (CIELAB) above which all edges count the same."""

_EDGE_REACH = 3.0
"""Standard deviation of the blur that spreads edges to their surroundings, px of `WORK_WIDTH`."""

_COLOUR_SCALE = 10.0
"""Difference of colour (CIELAB) that weighs as much as the mean distance between questions."""

_ROUNDS, _NEIGHBOURS = 4, 9


def adaptive_pixels(
    image: NDArray[np.uint8], count: int, visible: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """Choose pixels in the middle of patches of one colour, more of them near edges.

    A patch of one colour is usually one surface, which its middle represents; a pixel of a grid
    may lie on an edge. Patches are superpixels (Achanta et al. 2012, SLIC) that start from a
    median cut (Heckbert 1982) of the density of edges.

    Args:
        image: RGB, shape (height, width, 3), uint8.
        count: number of pixels, at least 1.
        visible: mask of valid pixels, shape (height, width); None if all are valid.

    Returns:
        Whole (u, v), shape (count, 2), sorted by row, then column; some coincide if the image has
        too few pixels.
    """
    height, width = image.shape[:2]
    colours = lab_image(image, min(1.0, WORK_WIDTH / width))
    rows, columns = colours.shape[:2]
    shown = np.ones((rows, columns), bool)
    if visible is not None and visible.any():
        small = cv2.resize(
            visible.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA
        )
        shown = small > small.max() - 1e-4  # the mean of ones may be rounded
    middles = _median_cut(np.where(shown, _edge_density(colours), 0.0), count)

    v, u = np.nonzero(shown)
    places, looks = np.column_stack([u, v]).astype(float), colours[v, u].astype(float)
    reach = np.sqrt(len(places) / count)
    near = cKDTree(middles).query(places, min(_NEIGHBOURS, count))[1].reshape(len(places), -1)
    mean_looks = looks[cKDTree(places).query(middles)[1]]
    for _ in range(_ROUNDS):
        distance = ((places[:, None] - middles[near]) ** 2).sum(-1) / reach**2
        distance += ((looks[:, None] - mean_looks[near]) ** 2).sum(-1) / _COLOUR_SCALE**2
        patch = near[np.arange(len(near)), distance.argmin(-1)]
        middles = _means(places, patch, middles)
        mean_looks = _means(looks, patch, mean_looks)
    # The middle of a bent patch may lie outside of it: choose its most typical pixel.
    distance = ((places - middles[patch]) ** 2).sum(-1) / reach**2
    distance += ((looks - mean_looks[patch]) ** 2).sum(-1) / _COLOUR_SCALE**2
    order = np.lexsort((distance, patch))
    patches, first = np.unique(patch[order], return_index=True)
    chosen = places[cKDTree(places).query(middles)[1]]
    chosen[patches] = places[order[first]]
    pixels = np.rint((chosen + 0.5) * (width / columns, height / rows) - 0.5)
    return pixels[np.lexsort(pixels.T)]


def cell_extents(width: int, height: int, pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far the Voronoi cells of pixels reach in an image.

    Args:
        width, height: of the image, px.
        pixels: (u, v), shape (n, 2), n at least 1.

    Returns:
        Distances in px from each pixel to the left, right, upper and lower end of its cell, shape
        (n, 4), at least 0; rounded up by a `WORK_WIDTH`th of the image or two, so that cells meet.
        0 for a pixel that coincides with another one.
    """
    columns, rows = (np.linspace(-0.5, size - 0.5, WORK_WIDTH + 1) for size in (width, height))
    steps = np.array([columns[1] - columns[0], rows[1] - rows[0]])
    places = np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2)
    nearest = cKDTree(pixels).query(places)[1]
    least, most = pixels.copy(), pixels.copy()
    np.minimum.at(least, nearest, places - steps)
    np.maximum.at(most, nearest, places + steps)
    ends = np.array([width, height]) - 0.5
    before, after = pixels - np.maximum(least, -0.5), np.minimum(most, ends) - pixels
    return np.maximum(np.column_stack([before[:, 0], after[:, 0], before[:, 1], after[:, 1]]), 0)


def _edge_density(colours: NDArray[np.float32]) -> NDArray[np.float64]:
    """Density of questions, shape (rows, columns); 1 far from edges."""
    gradients = [cv2.Sobel(colours, cv2.CV_32F, *order) for order in ((1, 0), (0, 1))]
    strength = np.sqrt(sum((np.asarray(g, dtype=float) ** 2).sum(-1) for g in gradients))
    near_edges = cv2.GaussianBlur(np.minimum(strength, _STRONG_EDGE), (0, 0), _EDGE_REACH)
    return 1 + _EDGE_SHARE * near_edges / max(near_edges.mean(), 1e-6)


def _median_cut(density: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Return the centres of `count` boxes of nearly equal content, shape (count, 2)."""
    rows, columns = density.shape
    boxes = [(0, columns, 0, rows, count)]
    middles = []
    while boxes:
        left, right, top, bottom, wanted = boxes.pop()
        box = density[top:bottom, left:right]
        if wanted == 1 or box.size == 1 or not box.any():
            v, u = np.indices(box.shape)
            weights = box if box.any() else None
            middle = np.average(u, weights=weights) + left, np.average(v, weights=weights) + top
            middles += [middle] * wanted
            continue
        half, is_wide = wanted // 2, right - left >= bottom - top
        content = np.cumsum(box.sum(0 if is_wide else 1))
        cut = int(np.searchsorted(content, content[-1] * half / wanted)) + 1
        cut = min(cut, len(content) - 1)
        if is_wide:
            boxes.append((left, left + cut, top, bottom, half))
            boxes.append((left + cut, right, top, bottom, wanted - half))
        else:
            boxes.append((left, right, top, top + cut, half))
            boxes.append((left, right, top + cut, bottom, wanted - half))
    return np.array(middles)


def _means(
    values: NDArray[np.float64], patch: NDArray[np.intp], old: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the mean of the values of each patch, shape as `old`; `old` if a patch is empty."""
    size = np.bincount(patch, minlength=len(old))
    sums = np.column_stack([np.bincount(patch, axis, len(old)) for axis in values.T])
    return np.where(size[:, None] > 0, sums / np.maximum(size, 1)[:, None], old)
