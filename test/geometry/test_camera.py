# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from vlm3_ros.geometry.camera import (
    GeometryError,
    ImageLimits,
    PinholeCamera,
    UnifiedCamera,
    image_tokens,
    limit_longest_side,
    size_remark,
    unify_focal,
)

QWEN = ImageLimits(multiple=32, min_pixels=65_536, max_pixels=16_777_216)
TINY = ImageLimits(multiple=32, min_pixels=1_024, max_pixels=65_536)

sides = st.integers(16, 2500)
fits = st.sampled_from(["scale", "pad"])
limits = st.sampled_from([QWEN, TINY, ImageLimits(28, 3_136, 1_003_520)])
focals = st.sampled_from([1000.0, 500.0, 250.0, 777.7])
units = st.floats(0, 1)


@st.composite
def cameras(draw: st.DrawFn) -> PinholeCamera:
    """Cameras with a view of 25 to 130 degrees, an aspect of pixels up to 1/3 off, any centre."""
    width, height = draw(sides), draw(sides)
    assume(1 / 4 < width / height < 4)
    fx = max(width, 0.55 * height) * draw(st.floats(0.23, 2.2))
    fy = fx * draw(st.floats(0.75, 1.33))
    cx = width * draw(st.floats(-0.2, 1.2))
    cy = height * draw(st.floats(-0.2, 1.2))
    return PinholeCamera(width, height, fx, fy, cx, cy)


@st.composite
def cameras_with_pixel(draw: st.DrawFn) -> tuple[PinholeCamera, np.ndarray]:
    camera = draw(cameras())
    pixel = np.array([draw(units), draw(units)]) * (camera.width, camera.height) - 0.5
    return camera, pixel


@given(cameras_with_pixel(), st.floats(0.05, 300))
def test_unproject_undoes_project(view: tuple[PinholeCamera, np.ndarray], depth: float) -> None:
    camera, pixel = view
    point = camera.unproject(pixel, depth)
    assert point[2] == depth
    np.testing.assert_allclose(camera.project(point), pixel, atol=1e-6)


@given(cameras(), st.lists(st.tuples(*[st.floats(-20, 20)] * 2, st.floats(0.05, 300)), min_size=1))
def test_project_agrees_with_opencv(
    camera: PinholeCamera, points: list[tuple[float, float, float]]
) -> None:
    expected, _ = cv2.projectPoints(
        np.array(points, dtype=float), np.zeros(3), np.zeros(3), camera.K, None
    )
    np.testing.assert_allclose(camera.project(points), expected[:, 0], rtol=1e-9, atol=1e-6)
    np.testing.assert_allclose(
        camera.unproject(camera.project(points), np.array(points)[:, 2]),
        points,
        rtol=1e-6,
        atol=1e-6,
    )


def test_points_behind_the_camera_have_no_pixel() -> None:
    camera = PinholeCamera(640, 480, 500, 500, 320, 240)
    pixels = camera.project([[0, 0, -1], [0, 0, 0], [1, 2, math.nan], [0, 0, 2]])
    assert np.isnan(pixels[:3]).all()
    np.testing.assert_array_equal(pixels[3], (320, 240))


def test_shapes_follow_the_input() -> None:
    camera = PinholeCamera(64, 48, 50, 50, 32, 24)
    grid = camera.pixel_grid()
    assert grid.shape == (48, 64, 2)
    np.testing.assert_array_equal(grid[5, 7], (7, 5))
    assert camera.unproject(grid, np.ones((48, 64))).shape == (48, 64, 3)
    assert camera.project(np.ones((2, 3, 4, 3))).shape == (2, 3, 4, 2)


@given(st.integers(1, 4000), st.integers(1, 4000), st.floats(0.25, 160))
def test_horizontal_view_spans_the_outer_pixel_edges(width: int, height: int, hfov: float) -> None:
    camera = PinholeCamera.from_hfov(width, height, hfov)
    left, right = camera.rays([[-0.5, 0], [width - 0.5, 0]])[:, 0]
    assert math.degrees(math.atan(right) - math.atan(left)) == pytest.approx(hfov, abs=1e-6)
    assert right == pytest.approx(-left)
    assert camera.fx == camera.fy


@given(cameras(), sides, sides)
def test_resizing_keeps_the_directions_of_the_pixel_edges(
    camera: PinholeCamera, width: int, height: int
) -> None:
    resized = camera.resized(width, height)
    for share in np.linspace(0, 1, 5):
        before = camera.rays(share * np.array([camera.width, camera.height]) - 0.5)
        after = resized.rays(share * np.array([width, height]) - 0.5)
        np.testing.assert_allclose(after, before, atol=1e-9)


def test_a_pixel_of_the_half_size_image_covers_four_pixels() -> None:
    camera = PinholeCamera(640, 480, 500, 510, 300, 250)
    half = camera.resized(320, 240)
    four = camera.rays([[10, 20], [11, 20], [10, 21], [11, 21]])
    np.testing.assert_allclose(half.rays([5, 10]), four.mean(axis=0))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((0, 480, 500, 500, 320, 240), "image size is 0x480"),
        ((640, -1, 500, 500, 320, 240), "image size is 640x-1"),
        ((640, 480, 0, 500, 320, 240), "focal lengths are 0 and 500"),
        ((640, 480, 500, -3, 320, 240), "focal lengths are 500 and -3"),
        ((640, 480, math.nan, 500, 320, 240), "not finite"),
        ((640, 480, 500, 500, math.inf, 240), "not finite"),
    ],
)
def test_impossible_intrinsics_are_refused(values: tuple[float, ...], message: str) -> None:
    with pytest.raises(GeometryError, match=message):
        PinholeCamera(*values)  # type: ignore[arg-type]


@pytest.mark.parametrize("hfov", [0, 0.1, 161, 180, -10, math.nan, math.inf])
def test_impossible_field_of_view_is_refused(hfov: float) -> None:
    with pytest.raises(GeometryError, match="field of view"):
        PinholeCamera.from_hfov(640, 480, hfov)


@given(cameras(), focals, limits, fits)
def test_the_view_needs_no_resizing_by_the_processor(
    camera: PinholeCamera, focal: float, limits: ImageLimits, fit: str
) -> None:
    unified = unify_focal(camera, focal, limits, fit)
    view = unified.view
    assert view.width % limits.multiple == 0
    assert view.height % limits.multiple == 0
    assert limits.min_pixels <= view.width * view.height <= limits.max_pixels
    assert 1 <= unified.content_width <= view.width
    assert 1 <= unified.content_height <= view.height
    assert unified.source == camera


@given(cameras(), focals, limits)
def test_scaling_fills_the_view(camera: PinholeCamera, focal: float, limits: ImageLimits) -> None:
    unified = unify_focal(camera, focal, limits, "scale")
    assert (unified.content_width, unified.content_height) == (
        unified.view.width,
        unified.view.height,
    )


@given(cameras(), focals, limits)
def test_padding_makes_pixels_square(
    camera: PinholeCamera, focal: float, limits: ImageLimits
) -> None:
    unified = unify_focal(camera, focal, limits, "pad")
    # Sides are whole pixels: rounding may cost half a pixel each.
    slack = 0.51 / unified.content_width + 0.51 / unified.content_height
    assert unified.view.fx / unified.view.fy == pytest.approx(1, abs=2 * slack)


@given(cameras(), focals, fits)
def test_the_unified_focal_length_is_reached_if_the_limits_allow_it(
    camera: PinholeCamera, focal: float, fit: str
) -> None:
    anything = ImageLimits(multiple=32, min_pixels=1, max_pixels=10**12)
    unified = unify_focal(camera, focal, anything, fit)
    assume(min(unified.content_width, unified.content_height) > 64)
    # "scale" rounds a side by up to half a multiple, "pad" by up to half a pixel.
    rounding = 16.01 if fit == "scale" else 0.51
    assert abs(unified.view.fx / focal - 1) <= 2 * rounding / unified.content_width
    assert abs(unified.view.fy / focal - 1) <= 2 * rounding / unified.content_height
    assert unified.view.width - unified.content_width < 32
    assert unified.view.height - unified.content_height < 32


@given(cameras_with_pixel(), focals, limits, fits)
def test_view_and_source_pixels_are_inverse_and_share_their_ray(
    view: tuple[PinholeCamera, np.ndarray], focal: float, limits: ImageLimits, fit: str
) -> None:
    camera, pixel = view
    unified = unify_focal(camera, focal, limits, fit)
    in_view = unified.to_view(pixel)
    np.testing.assert_allclose(unified.to_source(in_view), pixel, atol=1e-9)
    np.testing.assert_allclose(unified.view.rays(in_view), camera.rays(pixel), atol=1e-9)
    content = np.array([unified.content_width, unified.content_height])
    assert (in_view >= -0.5 - 1e-9).all()
    assert (in_view <= content - 0.5 + 1e-9).all()


@given(cameras(), focals, limits, fits)
def test_the_corners_of_the_source_are_the_corners_of_the_content(
    camera: PinholeCamera, focal: float, limits: ImageLimits, fit: str
) -> None:
    unified = unify_focal(camera, focal, limits, fit)
    source = [[-0.5, -0.5], [camera.width - 0.5, camera.height - 0.5]]
    content = [[-0.5, -0.5], [unified.content_width - 0.5, unified.content_height - 0.5]]
    np.testing.assert_allclose(unified.to_view(source), content, atol=1e-9)


def answer_of_a_model_that_knows_sizes(
    unified: UnifiedCamera, centre: np.ndarray, side: float
) -> float:
    """What a model trained at the unified focal length says of a square that faces the camera.

    It knows the square's true side and sees how many pixels of its input the square covers:
    with its one focal length, area = (focal * side / depth)^2.
    """
    corners = centre + side / 2 * np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]])
    pixels, _ = cv2.projectPoints(corners, np.zeros(3), np.zeros(3), unified.source.K, None)
    seen = unified.to_view(pixels[:, 0])
    diagonals = np.array([seen[2] - seen[0], seen[3] - seen[1]])
    area = abs(np.linalg.det(diagonals)) / 2
    return unified.focal * side / math.sqrt(area)


@given(cameras_with_pixel(), sides, sides, st.floats(0.3, 80), st.data())
def test_the_metric_point_does_not_depend_on_image_size_or_fit(
    view: tuple[PinholeCamera, np.ndarray],
    width: int,
    height: int,
    depth: float,
    data: st.DataObject,
) -> None:
    camera, pixel = view
    assume(1 / 6 < width / height < 6)
    edges = (pixel + 0.5) / (camera.width, camera.height)
    point = np.array(
        [
            ((pixel[0] - camera.cx) / camera.fx) * depth,
            ((pixel[1] - camera.cy) / camera.fy) * depth,
            depth,
        ]
    )
    # The same image at another size.
    for source in (camera, camera.resized(width, height)):
        unified = unify_focal(source, data.draw(focals), data.draw(limits), data.draw(fits))
        answer = answer_of_a_model_that_knows_sizes(unified, point, side=0.2)
        found = source.unproject(
            edges * (source.width, source.height) - 0.5, unified.metric_depth(answer)
        )
        np.testing.assert_allclose(found, point, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("size", "view_size"),
    [((711, 533), (704, 544)), ((256, 192), (320, 224)), ((640, 480), (640, 480))],
)
def test_scaling_chooses_the_sizes_of_the_stock_processor(
    size: tuple[int, int], view_size: tuple[int, int]
) -> None:
    camera = PinholeCamera(*size, 1000, 1000, size[0] / 2, size[1] / 2)
    unified = unify_focal(camera, 1000, QWEN, "scale")
    assert (unified.view.width, unified.view.height) == view_size
    fx, fy = (1000 * view / side for view, side in zip(view_size, size, strict=True))
    assert unified.effective_focal == pytest.approx(math.sqrt(fx * fy))
    assert unified.metric_depth(2.0) == pytest.approx(2 * math.sqrt(fx * fy) / 1000)


@given(
    st.builds(
        ImageLimits,
        st.integers(1, 64),
        st.integers(0, 10**6),
        st.integers(1, 10**6),
    ),
    st.tuples(*[st.floats(1e-300, 1e300)] * 3),
    fits,
)
def test_garbage_is_refused_or_fits_the_limits(
    limits: ImageLimits, focals: tuple[float, float, float], fit: str
) -> None:
    fx, fy, focal = focals
    camera = PinholeCamera(640, 480, fx, fy, 320, 240)
    try:
        view = unify_focal(camera, focal, limits, fit).view
    except GeometryError:
        return
    assert view.width % limits.multiple == view.height % limits.multiple == 0
    assert limits.min_pixels <= view.width * view.height <= limits.max_pixels


@pytest.mark.parametrize("focal", [0.0, -1000.0, math.nan, math.inf])
def test_impossible_unified_focal_length_is_refused(focal: float) -> None:
    with pytest.raises(GeometryError, match="unified focal length"):
        unify_focal(PinholeCamera(640, 480, 500, 500, 320, 240), focal, QWEN, "scale")


@pytest.mark.parametrize("impossible", [ImageLimits(32, 2_000, 1_000), ImageLimits(32, 100, 1_000)])
def test_impossible_limits_are_refused(impossible: ImageLimits) -> None:
    with pytest.raises(GeometryError, match="fits"):
        unify_focal(PinholeCamera(640, 480, 500, 500, 320, 240), 1000, impossible, "scale")


def test_a_calibration_that_gives_a_sliver_is_refused() -> None:
    with pytest.raises(GeometryError, match="check the calibration"):
        unify_focal(PinholeCamera(640, 480, 1e9, 500, 320, 240), 1000, QWEN, "scale")


@pytest.mark.parametrize("focal", [1.0, 0.9, 35.0, 200_000.0])
def test_focal_lengths_that_no_lens_has_are_refused(focal: float) -> None:
    """1 px, normalised, in mm, in um: at once, with the field of view that it would mean."""
    camera = PinholeCamera(640, 480, focal, focal, 320, 240)
    across, down = camera.field_of_view
    with pytest.raises(GeometryError, match=r"which no lens has.*320 px") as raised:
        unify_focal(camera, 1000, QWEN, "scale")
    assert f"a field of view of {across:.4g}x{down:.4g} degrees" in str(raised.value)


def test_an_ordinary_size_is_not_worth_a_word() -> None:
    for focal in (300, 525, 1900):
        unified = unify_focal(PinholeCamera(640, 480, focal, focal, 320, 240), 1000, QWEN, "scale")
        assert size_remark(unified, QWEN) == ""
        assert image_tokens(unified, QWEN) == unified.view.width * unified.view.height / 1024


def test_a_wide_image_that_the_limits_shrink_is_said() -> None:
    unified = unify_focal(PinholeCamera(1920, 1080, 200, 200, 960, 540), 1000, QWEN, "scale")
    remark = size_remark(unified, QWEN)
    assert unified.effective_focal == pytest.approx(568, abs=1)
    assert "an image of 156x139 degrees enters the model as" in remark
    assert "at a focal length of 568 px instead of 1000 px" in remark
    assert f"with {image_tokens(unified, QWEN)} tokens, so answers are slow" in remark


def test_a_small_image_that_is_rounded_to_tokens_is_not_said_to_be_limited() -> None:
    limits = ImageLimits(multiple=32, min_pixels=1_024, max_pixels=16_777_216)
    unified = unify_focal(PinholeCamera(100, 72, 100, 100, 50, 36), 60, limits, "scale")
    assert unified.effective_focal < 0.9 * 60
    assert size_remark(unified, limits) == ""


@given(cameras(), focals, fits)
def test_by_fx_alone_the_aspect_is_kept(camera: PinholeCamera, focal: float, fit: str) -> None:
    anything = ImageLimits(multiple=1, min_pixels=1, max_pixels=10**12)
    unified = unify_focal(camera, focal, anything, fit, axes="fx")
    assume(min(unified.content_width, unified.content_height) > 64)
    assert unified.view.fx == pytest.approx(focal, rel=0.51 / unified.content_width)
    stretch = unified.content_width / camera.width / (unified.content_height / camera.height)
    slack = 0.51 / unified.content_width + 0.51 / unified.content_height
    assert stretch == pytest.approx(1, abs=2 * slack)
    assert unified.effective_focal == unified.view.fx


@given(
    st.floats(100, 2000), st.floats(0.8, 1.25), st.floats(0.3, 80), st.sampled_from(["each", "fx"])
)
def test_depth_is_metric_whichever_axis_gets_the_focal_length(
    fx: float, squeeze: float, depth: float, axes: str
) -> None:
    """An oracle that knows sizes: exact with square pixels, else within delta1's 25 percent."""
    camera = PinholeCamera(640, 480, fx, fx * squeeze, 319.5, 239.5)
    exact = ImageLimits(multiple=1, min_pixels=1, max_pixels=10**12)
    unified = unify_focal(camera, 1000, exact, "scale", axes=axes)
    point = np.array([0.1, 0.1, depth])
    answer = answer_of_a_model_that_knows_sizes(unified, point, side=0.2)
    ratio = float(unified.metric_depth(answer)) / depth
    assert max(ratio, 1 / ratio) < 1.25
    if axes == "each":
        assert ratio == pytest.approx(1, rel=1e-6)
    else:  # what a model says that looks at widths only
        widths = unified.to_view(camera.project([[0.0, 0, depth], [0.2, 0, depth]]))[:, 0]
        wide = unified.focal * 0.2 / (widths[1] - widths[0])
        assert unified.metric_depth(wide) == pytest.approx(depth, rel=1e-6)


def test_the_authors_sample_sizes() -> None:
    """The sizes in their notebook, before the processor rounds sides to multiples of 32."""
    exact = ImageLimits(multiple=1, min_pixels=1, max_pixels=10**12)
    matched = limit_longest_side(
        PinholeCamera(600, 400, 500, 500, 299.5, 199.5), 1024, exact, "pad"
    )
    assert (matched.content_width, matched.content_height) == (1024, 683)
    stock = limit_longest_side(matched.source, 1024, QWEN, "scale").view
    assert (stock.width, stock.height) == (1024, 672)
    sample = PinholeCamera(1752, 1168, 464.31, 464.97, 875.5, 583.5)
    posed = unify_focal(sample, 750, exact, "pad")
    assert (posed.content_width, posed.content_height) == (2830, 1884)


def test_without_a_focal_length_nothing_is_metric() -> None:
    camera = PinholeCamera(600, 400, 500, 500, 299.5, 199.5)
    unified = limit_longest_side(camera, 1024, QWEN, "scale")
    with pytest.raises(GeometryError, match="no metric scale"):
        unified.metric_depth(1.0)
    with pytest.raises(GeometryError, match="image of 600x2 px is too narrow"):
        limit_longest_side(PinholeCamera(600, 2, 500, 500, 299.5, 0.5), 1024, QWEN, "scale")
