# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from vlm3_ros.geometry.camera import GeometryError, ImageLimits, PinholeCamera, unify_focal
from vlm3_ros.geometry.images import PADDING, unify_image

LIMITS = ImageLimits(multiple=32, min_pixels=4_096, max_pixels=400_000)


@st.composite
def cameras(draw: st.DrawFn) -> PinholeCamera:
    width, height = draw(st.integers(60, 700)), draw(st.integers(60, 700))
    assume(1 / 3 < width / height < 3)
    fx = width * draw(st.floats(0.4, 1.5))
    return PinholeCamera(
        width, height, fx, fx * draw(st.floats(0.8, 1.25)), width * 0.4, height * 0.55
    )


def centroid(values: np.ndarray) -> np.ndarray:
    """Centre of mass (u, v) of an image, in pixels."""
    rows, columns = np.indices(values.shape)
    return np.array([(columns * values).sum(), (rows * values).sum()]) / values.sum()


# One axis grows while the other shrinks.
@example(PinholeCamera(131, 60, 245.6, 112.5, 52, 33), 120.0, "scale", 0.5, 0.5)
@settings(max_examples=60)
@given(
    cameras(),
    st.sampled_from([120.0, 250.0, 500.0, 1000.0]),
    st.sampled_from(["scale", "pad"]),
    st.floats(0.3, 0.7),
    st.floats(0.3, 0.7),
)
def test_a_blob_lands_where_the_geometry_says(
    camera: PinholeCamera, focal: float, fit: str, x: float, y: float
) -> None:
    unified = unify_focal(camera, focal, LIMITS, fit)
    centre = np.array([x * camera.width, y * camera.height])
    distance = np.linalg.norm(camera.pixel_grid() - centre, axis=-1)
    sigma = min(camera.width, camera.height) / 16
    blob = np.rint(240 * np.exp(-((distance / sigma) ** 2) / 2)).astype(np.uint8)
    view = unify_image(np.dstack([blob] * 3), unified)

    assert view.shape == (unified.view.height, unified.view.width, 3)
    assert view.dtype == np.uint8
    assert view.flags.c_contiguous
    content = view[: unified.content_height, : unified.content_width, 0].astype(float)
    found = unified.to_source(centroid(content))
    # Rounding to 8 bits moves the centroid by up to a tenth of a pixel of the coarser image.
    view_pixel = camera.width / unified.content_width, camera.height / unified.content_height
    np.testing.assert_allclose(found, centroid(blob.astype(float)), atol=0.1 * max(1, *view_pixel))
    assert (view[unified.content_height :] == PADDING).all()
    assert (view[:, unified.content_width :] == PADDING).all()


def test_channels_keep_their_order() -> None:
    camera = PinholeCamera(100, 80, 200, 200, 50, 40)
    image = np.full((80, 100, 3), (200, 100, 50), dtype=np.uint8)
    for fit in ("scale", "pad"):
        unified = unify_focal(camera, 250, LIMITS, fit)
        view = unify_image(image, unified)
        content = view[: unified.content_height, : unified.content_width]
        assert (content == (200, 100, 50)).all()


def test_an_image_of_the_right_size_is_unchanged() -> None:
    camera = PinholeCamera(320, 256, 500, 500, 160, 128)
    image = np.random.default_rng(0).integers(0, 255, (256, 320, 3), dtype=np.uint8)
    np.testing.assert_array_equal(
        unify_image(image, unify_focal(camera, 500, LIMITS, "scale")), image
    )


@pytest.mark.parametrize("shape", [(79, 100, 3), (80, 100), (80, 100, 4), (0, 0, 3)])
def test_an_image_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    unified = unify_focal(PinholeCamera(100, 80, 200, 200, 50, 40), 250, LIMITS, "pad")
    with pytest.raises(GeometryError, match="its camera is 100x80"):
        unify_image(np.zeros(shape, np.uint8), unified)
