# SPDX-License-Identifier: Apache-2.0
"""Pixels as whole numbers in text, in a range that does not depend on the image (paper 3.1)."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlm3_ros.geometry.camera import GeometryError, UnifiedCamera

Rounding = Literal["floor", "round"]
"""How a pixel becomes a text coordinate.

`floor`: (u + 0.5) / width * range, rounded down; each coordinate stands for a cell of the image.
`round`: u / width * range, rounded to the nearest whole number, halves to the even one. The
authors' checkpoints learned this.
"""


def text_coordinates(
    pixels: ArrayLike, width: float, height: float, text_range: int, rounding: Rounding = "floor"
) -> NDArray[np.int64]:
    """Convert pixels to the integers that a question names, in [0, text_range) (paper 3.1).

    Args:
        pixels: (u, v) in the image, shape (..., 2).
        width: of that image, px.
        height: of that image, px.
        text_range: of the checkpoint (2000 or 1000 for the authors').
        rounding: of the checkpoint.

    Returns:
        (x, y), shape (..., 2).

    Raises:
        GeometryError: if a pixel does not lie in the image.
    """
    indices = np.asarray(pixels, dtype=float)
    # Multiply first: whole numbers stay exact, and rounding down is right.
    scaled = (indices + 0.5) * text_range / (width, height)
    # Negated so that NaN does not pass. The slack allows for the rounding of a resize.
    if not ((scaled > -1e-6) & (scaled < text_range + 1e-6)).all():
        raise GeometryError(f"a pixel lies outside of the image of {width:g}x{height:g} px")
    if rounding == "round":
        # Divide first, as the authors do: halves must round as they did in training.
        scaled = np.round(indices / (width, height) * text_range)
    return np.clip(np.floor(scaled), 0, text_range - 1).astype(np.int64)


def pixels_from_text(
    coordinates: ArrayLike,
    width: float,
    height: float,
    text_range: int,
    rounding: Rounding = "floor",
) -> NDArray[np.float64]:
    """Convert text coordinates, shape (..., 2), to pixels (u, v) of an image, shape (..., 2).

    With `floor`, the pixel is the centre of the coordinate's cell.
    """
    coordinates = np.asarray(coordinates, dtype=float)
    if rounding == "round":
        return coordinates / text_range * (width, height)
    return (coordinates + 0.5) / text_range * (width, height) - 0.5


def source_text_coordinates(
    pixels: ArrayLike, unified: UnifiedCamera, text_range: int, rounding: Rounding = "floor"
) -> NDArray[np.int64]:
    """Convert pixels of a source image, shape (..., 2), to text coordinates of the model's view.

    Raises:
        GeometryError: if a pixel does not lie in the image.
    """
    if rounding == "round":  # counts pixels of the source: a resize moves their centres
        return text_coordinates(pixels, *_padded_source(unified), text_range, rounding)
    view = unified.view
    return text_coordinates(unified.to_view(pixels), view.width, view.height, text_range)


def source_pixels_from_text(
    coordinates: ArrayLike, unified: UnifiedCamera, text_range: int, rounding: Rounding = "floor"
) -> NDArray[np.float64]:
    """Convert text coordinates of the model's view to pixels of the source, shape (..., 2)."""
    if rounding == "round":
        return pixels_from_text(coordinates, *_padded_source(unified), text_range, rounding)
    view = unified.view
    return unified.to_source(pixels_from_text(coordinates, view.width, view.height, text_range))


def text_box(
    box: ArrayLike, unified: UnifiedCamera, text_range: int, rounding: Rounding = "floor"
) -> NDArray[np.int64]:
    """Convert an object's box to the integers that a question names, in [0, text_range).

    Args:
        box: (left, top, right, bottom) of its outermost pixels in the source image, shape (4,);
            parts outside of the image are cut off.
        unified: how the image enters the model.
        text_range: of the checkpoint.
        rounding: of the checkpoint.

    Returns:
        (xmin, ymin, xmax, ymax), shape (4,).

    Raises:
        GeometryError: if the box is not finite, inverted, or completely outside of the image.
    """
    source = unified.source
    corners = box_in_image(box, source.width, source.height)
    return source_text_coordinates(corners, unified, text_range, rounding).reshape(4)


def box_in_image(box: ArrayLike, width: int, height: int) -> NDArray[np.float64]:
    """Cut off what lies outside of an image.

    Args:
        box: (left, top, right, bottom) of an object's outermost pixels, shape (4,).
        width: of the image, px.
        height: of the image, px.

    Returns:
        The upper left and the lower right pixel, shape (2, 2).

    Raises:
        GeometryError: if the box is not finite, inverted, or completely outside of the image.
    """
    corners, last = np.reshape(box, (2, 2)).astype(float), (width - 1, height - 1)
    shown = ", ".join(f"{value:g}" for value in corners.ravel())
    if not (np.isfinite(corners).all() and (corners[0] <= corners[1]).all()):
        raise GeometryError(f"({shown}) is no box: give its left, top, right and bottom in px")
    if (corners[1] < 0).any() or (corners[0] > last).any():
        raise GeometryError(f"the box ({shown}) lies outside of the image of {width}x{height} px")
    return np.clip(corners, 0, last)


def _padded_source(unified: UnifiedCamera) -> tuple[float, float]:
    """Size of the source image with the view's padding, px of the source."""
    source, view = unified.source, unified.view
    return (
        source.width * view.width / unified.content_width,
        source.height * view.height / unified.content_height,
    )
