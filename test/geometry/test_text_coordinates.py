# SPDX-License-Identifier: Apache-2.0
"""Pixels as whole numbers in text, and back."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vlm3_ros.geometry.camera import (
    GeometryError,
    ImageLimits,
    PinholeCamera,
    limit_longest_side,
    unify_focal,
)
from vlm3_ros.geometry.text_coordinates import (
    pixels_from_text,
    source_pixels_from_text,
    source_text_coordinates,
    text_box,
    text_coordinates,
)

LIMITS = ImageLimits(multiple=32, min_pixels=65_536, max_pixels=16_777_216)

sides = st.integers(2, 3000)
units = st.floats(0, 1, exclude_max=True)

text_ranges = st.sampled_from([2000, 1000, 256])


@given(st.integers(1, 3000), text_ranges)
@example(width=200, text_range=2000)
@example(width=600, text_range=2000)
@example(width=1000, text_range=1000)
def test_text_coordinates_are_exact(width: int, text_range: int) -> None:
    u = range(width)
    exact = [math.floor(Fraction((2 * column + 1) * text_range, 2 * width)) for column in u]
    pixels = np.stack([u, np.zeros(width)], -1)
    coordinates = text_coordinates(pixels, width, 1, text_range)
    assert coordinates[:, 0].tolist() == exact
    assert (coordinates[:, 1] == text_range // 2).all()


@given(sides, sides, text_ranges)
def test_text_coordinates_are_monotone_and_in_range(
    width: int, height: int, text_range: int
) -> None:
    u = np.linspace(-0.5, width - 0.5, 500)
    v = np.linspace(-0.5, height - 0.5, 500)
    coordinates = text_coordinates(np.stack([u, v], -1), width, height, text_range)
    assert coordinates.dtype == np.int64
    assert (np.diff(coordinates, axis=0) >= 0).all()
    assert coordinates[0].tolist() == [0, 0]
    assert coordinates[-1].tolist() == [text_range - 1, text_range - 1]


@given(sides, sides, text_ranges, units, units)
def test_pixels_from_text_are_at_most_half_a_step_off(
    width: int, height: int, text_range: int, x: float, y: float
) -> None:
    pixel = np.array([x * width, y * height]) - 0.5
    coordinates = text_coordinates(pixel, width, height, text_range)
    found = pixels_from_text(coordinates, width, height, text_range)
    half_step = np.array([width, height]) / text_range / 2
    assert (np.abs(found - pixel) <= half_step + 1e-9).all()
    assert (text_coordinates(found, width, height, text_range) == coordinates).all()


@pytest.mark.parametrize("pixel", [(-0.6, 10), (640, 10), (10, 479.6), (math.nan, 10)])
def test_a_pixel_outside_of_the_image_has_no_text_coordinates(pixel: tuple[float, float]) -> None:
    with pytest.raises(GeometryError, match="outside of the image of 640x480"):
        text_coordinates([(5, 5), pixel], 640, 480, 2000)


SAMPLE = PinholeCamera(1215, 920, 1000.0, 1000.0, 607.0, 459.5)
"""Size of the authors' sample image for depth."""


@pytest.mark.parametrize("fit", ["scale", "pad"])
@pytest.mark.parametrize("focal", [400.0, 1000.0])
def test_the_authors_sample_pixel(focal: float, fit: str) -> None:
    """Their notebook asks about pixel (10, 488) of 1215x920 as (16, 1061)."""
    assert text_coordinates([10, 488], 1215, 920, 2000, "round").tolist() == [16, 1061]
    unified = unify_focal(SAMPLE, focal, LIMITS, fit)
    if fit == "scale":
        asked = source_text_coordinates([10, 488], unified, 2000, "round")
        assert asked.tolist() == [16, 1061]
    far = [[0, 0], [1214, 919]]
    coordinates = source_text_coordinates(far, unified, 2000, "round")
    assert coordinates[0].tolist() == [0, 0]
    assert (coordinates < 2000).all()


@given(st.integers(1, 3000), text_ranges)
@example(width=4000, text_range=2000)
@example(width=800, text_range=1000)  # a half that is none in floating point
def test_rounded_coordinates_are_those_of_the_notebook(width: int, text_range: int) -> None:
    u = range(width)
    expected = [min(round(x / width * text_range), text_range - 1) for x in u]
    pixels = np.stack([u, np.zeros(width)], -1)
    assert text_coordinates(pixels, width, 1, text_range, "round")[:, 0].tolist() == expected


@given(
    sides,
    sides,
    text_ranges,
    units,
    units,
    st.sampled_from(["floor", "round"]),
    st.sampled_from(["scale", "pad"]),
    st.booleans(),
)
def test_source_pixels_come_back_within_half_a_step(
    width: int,
    height: int,
    text_range: int,
    x: float,
    y: float,
    rounding: str,
    fit: str,
    has_focal: bool,
) -> None:
    if not 1 / 50 < width / height < 50:
        return
    camera = PinholeCamera(width, height, 700.0, 650.0, width / 2, height / 2)
    unified = (
        unify_focal(camera, 750.0, LIMITS, fit)
        if has_focal
        else limit_longest_side(camera, 1024, LIMITS, fit)
    )
    pixel = np.array([x * (width - 1), y * (height - 1)])
    coordinates = source_text_coordinates(pixel, unified, text_range, rounding)
    found = source_pixels_from_text(coordinates, unified, text_range, rounding)
    padded = np.array(
        [
            width * unified.view.width / unified.content_width,
            height * unified.view.height / unified.content_height,
        ]
    )
    # The last coordinate also stands for pixels that would round to the range itself.
    limit = padded / text_range * (0.5 if rounding == "floor" else 1.0)
    assert (np.abs(found - pixel) <= limit + 1e-6).all()


def test_the_authors_box_reaches_the_last_coordinate() -> None:
    unified = unify_focal(SAMPLE, 1000.0, LIMITS, "scale", axes="fx")
    box = text_box((0, 36, 792, 919), unified, 1000, "round")
    assert box.tolist() == [0, 39, 652, 999]
