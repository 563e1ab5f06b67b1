# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlm3_ros.geometry.camera import GeometryError
from vlm3_ros.geometry.lens import (
    LensCamera,
    UncalibratedError,
    lens_from_calibration,
    load_camera_yaml,
)

WIDTH, HEIGHT = 161, 120
K = [130.0, 0, 77, 0, 126, 62, 0, 0, 1]
P = [115.0, 0, 82, 0, 0, 118, 58, 0, 0, 0, 1, 0]
IDENTITY = [1.0, 0, 0, 0, 1, 0, 0, 0, 1]
BROWN = [-0.28, 0.09, 0.0012, -0.0008, -0.01]
RATIONAL = [0.4, 0.05, 0.0008, -0.0005, 0.004, 0.75, 0.12, 0.02]
THIN_PRISM = [0.001, -0.0004, 0.0006, 0.0002]
TILT = [0.01, -0.008]
FISHEYE = [0.03, -0.012, 0.004, -0.0008]

LENSES = {
    "none": ("none", []),
    "plumb_bob 4": ("plumb_bob", BROWN[:4]),
    "plumb_bob 5": ("plumb_bob", BROWN),
    "rational 8": ("rational_polynomial", RATIONAL),
    "rational 12": ("rational_polynomial", RATIONAL + THIN_PRISM),
    "rational 14": ("rational_polynomial", RATIONAL + THIN_PRISM + TILT),
    "equidistant": ("equidistant", FISHEYE),
}


def rotation(axis_angle: tuple[float, float, float]) -> np.ndarray:
    return cv2.Rodrigues(np.array(axis_angle))[0]


def lens(**changes: Any) -> LensCamera:
    values: dict[str, Any] = {
        "width": WIDTH,
        "height": HEIGHT,
        "K": K,
        "D": BROWN,
        "model": "plumb_bob",
        "R": IDENTITY,
        "P": P,
    }
    return lens_from_calibration(**(values | changes))


@st.composite
def lenses(draw: st.DrawFn) -> LensCamera:
    """All models, with coefficients of real lenses and any focal lengths, centres, rotations."""
    model, typical = LENSES[draw(st.sampled_from(sorted(LENSES)))]
    D = [value * draw(st.floats(0, 1)) for value in typical]
    width, height = draw(st.integers(60, 200)), draw(st.integers(60, 200))
    fx, fy, fx_new, fy_new = (max(width, height) * draw(st.floats(0.8, 1.3)) for _ in range(4))
    cx, cx_new = (width * draw(st.floats(0.4, 0.6)) for _ in range(2))
    cy, cy_new = (height * draw(st.floats(0.4, 0.6)) for _ in range(2))
    return lens_from_calibration(
        width,
        height,
        [fx, 0, cx, 0, fy, cy, 0, 0, 1],
        D,
        model,
        rotation(tuple(draw(st.floats(-0.05, 0.05)) for _ in range(3))),
        [fx_new, 0, cx_new, 0, 0, fy_new, cy_new, 0, 0, 0, 1, 0],
    )


def opencv_raw_pixels(camera: LensCamera, points: np.ndarray) -> np.ndarray:
    """Project points in rectified axes, shape (N, 3), with OpenCV's forward model."""
    # Do not use a rotation vector: cv2.Rodrigues drops rotations below 1e-5.
    in_raw_axes = np.einsum("ji,nj->ni", camera.R, points)
    still = np.zeros(3)
    if camera.distortion_model == "equidistant":
        pixels, _ = cv2.fisheye.projectPoints(in_raw_axes[None], still, still, camera.K, camera.D)
    else:
        pixels, _ = cv2.projectPoints(in_raw_axes, still, still, camera.K, camera.D)
    return pixels.reshape(-1, 2)


points_in_view = st.lists(
    st.tuples(st.floats(-0.5, 0.5), st.floats(-0.5, 0.5), st.floats(0.3, 50)),
    min_size=1,
    max_size=20,
).map(lambda rays: np.array([(x * z, y * z, z) for x, y, z in rays]))


@given(lenses(), points_in_view)
def test_rectified_pixels_are_those_of_the_pinhole_camera(
    camera: LensCamera, points: np.ndarray
) -> None:
    raw = opencv_raw_pixels(camera, points)
    expected = camera.rectified.project(points)
    np.testing.assert_allclose(camera.rectify_pixels(raw), expected, atol=1e-4)
    np.testing.assert_allclose(camera.distort_pixels(expected), raw, atol=1e-4)


def test_plumb_bob_follows_the_message_definition() -> None:
    """Radial k1, k2, k3 and tangential t1, t2, in this order."""
    k1, k2, t1, t2, k3 = BROWN
    x, y = 0.21, -0.34
    r2 = x * x + y * y
    radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
    xd = x * radial + 2 * t1 * x * y + t2 * (r2 + 2 * x * x)
    yd = y * radial + t1 * (r2 + 2 * y * y) + 2 * t2 * x * y
    camera = lens()
    raw = camera.distort_pixels(camera.rectified.project([x, y, 1]))
    np.testing.assert_allclose(raw, (K[0] * xd + K[2], K[4] * yd + K[5]))


def test_equidistant_is_a_polynomial_of_the_angle() -> None:
    theta, azimuth = math.radians(35), math.radians(70)
    bent = theta * (1 + sum(k * theta ** (2 * i) for i, k in enumerate(FISHEYE, start=1)))
    camera = lens(D=FISHEYE, model="equidistant")
    direction = np.array([math.cos(azimuth), math.sin(azimuth)])
    raw = camera.distort_pixels(camera.rectified.project([*(direction * math.tan(theta)), 1]))
    np.testing.assert_allclose(raw, direction * bent * (K[0], K[4]) + (K[2], K[5]))


@settings(max_examples=60)
@given(lenses())
def test_a_rectified_pixel_shows_what_the_pinhole_camera_sees_there(camera: LensCamera) -> None:
    """Each raw pixel holds its own position, so each rectified pixel holds where it came from."""
    columns, rows = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
    raw = np.dstack([columns, rows]).astype(np.float32)
    rectified = camera.rectify(raw)
    assert rectified.shape == raw.shape
    assert rectified.dtype == np.float32
    mask = camera.rectified_mask()
    points = camera.rectified.unproject(camera.rectified.pixel_grid()[mask], 3.0)
    expected = opencv_raw_pixels(camera, points)
    last = np.array([camera.width - 1, camera.height - 1])
    inside = ((expected >= 0) & (expected <= last)).all(axis=-1)
    # cv2.remap interpolates in steps of 1/32 px.
    np.testing.assert_allclose(rectified[mask][inside], expected[inside], atol=1 / 63)


def test_colours_keep_their_order() -> None:
    image = np.full((HEIGHT, WIDTH, 3), (200, 100, 50), np.uint8)
    camera = lens(P=[300.0, 0, 82, 0, 0, 300, 58, 0, 0, 0, 1, 0])
    assert camera.rectified_mask().all()
    assert (camera.rectify(image) == (200, 100, 50)).all()


@settings(max_examples=40)
@given(lenses())
def test_the_mask_marks_what_the_raw_image_shows(camera: LensCamera) -> None:
    mask = camera.rectified_mask()
    assert mask.shape == (camera.height, camera.width)
    assert mask.dtype == bool
    rays = camera.rectified.rays(camera.rectified.pixel_grid()).reshape(-1, 3)
    raw = opencv_raw_pixels(camera, rays).reshape(*mask.shape, 2)
    last = np.array([camera.width - 1, camera.height - 1])
    inside = ((raw >= 0.05) & (raw <= last - 0.05)).all(axis=-1)
    outside = ((raw < -0.05) | (raw > last + 0.05)).any(axis=-1)
    assert mask[inside].all()
    assert not mask[outside].any()
    white = camera.rectify(np.full((camera.height, camera.width), 255, np.uint8))
    # A pixel at the edge may blend in half an interpolation step of the black outside.
    assert (white[mask] >= 255 * (1 - 2 / 32)).all()
    assert (white[inside] == 255).all()


def test_black_borders_are_black_and_masked() -> None:
    wider = lens(D=FISHEYE, model="equidistant", P=[60.0, 0, 80, 0, 0, 60, 60, 0, 0, 0, 1, 0])
    mask = wider.rectified_mask()
    assert 0.1 < mask.mean() < 0.9
    white = wider.rectify(np.full((HEIGHT, WIDTH, 3), 255, np.uint8))
    grown = cv2.dilate(mask.astype(np.uint8), np.ones((3, 3))).astype(bool)
    assert (white[~grown] == 0).all()
    assert not mask.flags.writeable


def test_the_mirror_image_beyond_the_lens_is_not_shown() -> None:
    """Strong barrel distortion turns back at r = 1 / sqrt(-3 k1): rays beyond are not imaged."""
    k1 = -0.5
    turning = 1 / math.sqrt(-3 * k1)
    camera = lens(
        D=[k1, 0, 0, 0], P=[20.0, 0, 80, 0, 0, 20, 60, 0, 0, 0, 1, 0], K=[70.0, *K[1:4], 70, *K[5:]]
    )
    rays = camera.rectified.rays(camera.rectified.pixel_grid())
    radius = np.hypot(rays[..., 0], rays[..., 1])
    mirrored = (radius > turning + 0.02) & (radius < 1.2 * turning)
    raw = opencv_raw_pixels(camera, rays[mirrored])
    assert ((raw > 0) & (raw < (WIDTH - 1, HEIGHT - 1))).all(), "the test must meet the problem"

    assert not camera.rectified_mask()[mirrored].any()
    assert camera.rectified_mask()[radius < turning - 0.02].all()
    white = camera.rectify(np.full((HEIGHT, WIDTH), 255, np.uint8))
    assert (white[mirrored] == 0).all()
    assert np.isnan(camera.distort_pixels(camera.rectified.pixel_grid()[mirrored])).all()


@pytest.mark.parametrize("lopsided", [[0, -0.02], [0, 0.02], [0, 0, 0, 0, 0, 0, -0.05]])
def test_only_radial_distortion_limits_the_lens(lopsided: list[float]) -> None:
    k1 = -0.5
    turning = 1 / math.sqrt(-3 * k1)
    D = [k1, 0, *lopsided, *[0] * (10 - len(lopsided))]
    camera = lens(D=D, model="rational_polynomial")
    for x, imaged in ((0.98 * turning, True), (1.02 * turning, False)):
        raw = camera.distort_pixels(camera.rectified.project([[x, 0, 1], [-x, 0, 1]]))
        assert (np.isfinite(raw) == imaged).all()


def test_rays_from_behind_are_not_imaged() -> None:
    """A rectification that turns by more than 90 degrees looks partly backwards."""
    camera = lens(R=rotation((0, -1.2, 0)), P=[40.0, 0, 60, 0, 0, 40, 60, 0, 0, 0, 1, 0])
    rays = camera.rectified.rays(camera.rectified.pixel_grid()) @ camera.R
    behind = rays[..., 2] <= 0
    assert behind.any()
    assert not camera.rectified_mask()[behind].any()
    assert camera.rectified_mask().any()
    assert np.isnan(camera.distort_pixels(camera.rectified.pixel_grid()[behind])).all()


def test_a_raw_pixel_without_a_ray_has_no_rectified_pixel() -> None:
    camera = lens(D=[-0.5, 0, 0, 0])
    unreached = [[WIDTH * 5.0, HEIGHT * 5.0], [80, -40], [90, -40], [math.nan, 3]]
    assert np.isnan(camera.rectify_pixels(unreached)).all()
    assert np.isfinite(camera.rectify_pixels([80.0, 60.0])).all()


def test_pixel_shapes_follow_the_input() -> None:
    camera = lens()
    grid = camera.rectified.pixel_grid()[50:60, 70:90]
    assert camera.distort_pixels(grid).shape == (10, 20, 2)
    np.testing.assert_allclose(camera.rectify_pixels(camera.distort_pixels(grid)), grid, atol=1e-4)
    assert camera.rectify_pixels(np.zeros((0, 2))).shape == (0, 2)
    assert camera.distort_pixels(np.zeros((0, 2))).shape == (0, 2)


def test_a_lens_without_distortion_keeps_its_image() -> None:
    image = np.random.default_rng(3).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    for model, D in (("none", []), ("", []), ("plumb_bob", [0.0] * 5), ("plumb_bob", [])):
        camera = lens(model=model, D=D, P=[0.0] * 12, R=[0.0] * 9)
        assert camera.is_pinhole
        assert camera.rectify(image) is image
        assert camera.rectified_mask().all()
        np.testing.assert_allclose(camera.rectify_pixels([[3.0, 5.0]]), [[3.0, 5.0]])
    for bent in (lens(), lens(D=[0.0] * 4, model="equidistant"), lens(D=[], model="none")):
        assert not bent.is_pinhole
        assert (bent.rectify(image) != image).any()


def test_the_rectified_camera_comes_from_p_or_from_k_if_p_is_zero() -> None:
    camera = lens().rectified
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (115, 118, 82, 58)
    camera = lens(P=[0.0] * 12).rectified
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (130, 126, 77, 62)


def test_a_region_of_interest_is_a_crop() -> None:
    image = np.random.default_rng(4).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    image = cv2.GaussianBlur(image, (0, 0), 2)
    full, part = lens(), lens(roi=(20, 30, 101, 75), image_size=(101, 75))
    assert (part.width, part.height) == (101, 75)
    region = (slice(30, 30 + 75), slice(20, 20 + 101))
    both = part.rectified_mask() & full.rectified_mask()[region]
    assert both.mean() > 0.8
    np.testing.assert_allclose(
        part.rectify(image[region])[both], full.rectify(image)[region][both], atol=1
    )
    pixels, offset = part.rectified.pixel_grid(), np.array([20, 30])
    np.testing.assert_allclose(
        part.distort_pixels(pixels) + offset, full.distort_pixels(pixels + offset), atol=1e-6
    )
    np.testing.assert_allclose(part.rectified.rays(pixels), full.rectified.rays(pixels + offset))


@pytest.mark.parametrize(("binning", "size"), [((2, 2), (80, 60)), ((4, 3), (40, 40))])
def test_binning_takes_every_nth_pixel(binning: tuple[int, int], size: tuple[int, int]) -> None:
    full, binned = lens(), lens(binning=binning, image_size=size)
    assert (binned.width, binned.height) == size
    pixels = binned.rectified.pixel_grid()
    np.testing.assert_allclose(
        binned.distort_pixels(pixels) * binning, full.distort_pixels(pixels * binning), atol=1e-6
    )


def test_binning_applies_to_the_region_of_interest() -> None:
    """(c - offset) / binning, as in image_geometry."""
    camera = lens(binning=(2, 4), roi=(20, 8, 100, 80), P=[*P[:3], -30.0, *P[4:]])
    assert (camera.width, camera.height) == (50, 20)
    np.testing.assert_allclose(camera.K, [[65, 0, 28.5], [0, 31.5, 13.5], [0, 0, 1]])
    np.testing.assert_allclose(camera.P, [[57.5, 0, 31, -15], [0, 29.5, 12.5, 0], [0, 0, 1, 0]])


def test_zero_binning_and_region_mean_none() -> None:
    assert lens(binning=(0, 0), roi=(0, 0, 0, 0), image_size=(WIDTH, HEIGHT)) == lens()


def test_a_slight_skew_is_ignored_as_in_opencv() -> None:
    """From a published fisheye calibration."""
    skewed = lens(K=[130.0, 0.5, *K[2:]], P=[115.0, 0.5, *P[2:]])
    assert skewed == lens()


def test_equal_calibrations_share_their_maps() -> None:
    first, second, other = lens(), lens(), lens(K=[131.0, *K[1:]])
    assert first == second
    assert hash(first) == hash(second)
    assert first.rectified_mask() is second.rectified_mask()
    assert first != other
    assert first != "a lens"
    assert lens(D=[], model="none") != lens(D=[0.0] * 5)


def test_a_lens_cannot_be_changed() -> None:
    camera = lens()
    with pytest.raises(ValueError, match="read-only"):
        camera.K[0, 0] = 1
    values = np.array(K)
    copied = lens(K=values)
    values[0] = 1
    assert copied == camera


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"K": [0.0] * 9}, r"uncalibrated \(K is all zero\).*fallback_intrinsics"),
        ({"K": [0.0, *K[1:]]}, r"uncalibrated \(K\[0\] = 0"),
        ({"K": [-1.0, *K[1:]]}, "K has focal lengths -1"),
        ({"K": [1e300, *K[1:]]}, "K has focal lengths 1e\\+300"),
        ({"P": [*P[:5], 1e-300, *P[6:]]}, "P: focal lengths of 115 and 1e-300 px in images"),
        ({"K": [1.0, 0, 80, 0, 1, 60, 0, 0, 1]}, r"K: .* of 1 and 1 px .* view of 178.6x178.1 deg"),
        ({"K": [0.8, 0, 0.5, 0, 1, 0.5, 0, 0, 1]}, "at 90 degrees across it is 80.5 px"),
        ({"K": [0.004, 0, 0.002, 0, 0.004, 0.002, 0, 0, 1]}, "field of view of 180x180 degrees"),
        ({"K": [4.0, 0, 80, 0, 4, 60, 0, 0, 1]}, "mean a field of view of 174.3x172.4 degrees"),
        ({"K": [4e4, 0, 80, 0, 4e4, 60, 0, 0, 1]}, "mean a field of view of 0.2306x0.1719 deg"),
        ({"P": [1.0, 0, 80, 0, 0, 1, 60, 0, 0, 0, 1, 0]}, "P: focal lengths of 1 and 1 px"),
        (
            {"K": [15.0, 0, 80, 0, 15, 60, 0, 0, 1], "D": FISHEYE, "model": "equidistant"},
            "K: .* field of view of 615x458.4 degrees",
        ),
        ({"K": [130.0, 0, 4e3, 0, 126, 3e3, 0, 0, 1]}, r"centre at \(4000, 3000\), far outside of"),
        ({"K": [130.0, 0, -162, 0, 126, 62, 0, 0, 1]}, r"centre at \(-162, 62\), far outside of"),
        ({"P": [*P[:2], 9e4, *P[3:]]}, r"P has its centre at \(90000, 58\), far outside"),
        ({"K": K[:8]}, "K must hold 9 values, not 8"),
        ({"K": [math.nan, *K[1:]]}, "K holds a value that is not finite"),
        ({"K": np.reshape(K, (3, 3)).T}, r"K is not \[fx 0 cx"),
        ({"K": [130.0, 20.0, *K[2:]]}, r"K is not \[fx 0 cx"),
        ({"K": ["wide", *K[1:]]}, "K must hold numbers"),
        ({"D": [0.1, 0.2]}, "'plumb_bob' takes 4, 5, 8, 12 or 14 coefficients, D holds 2"),
        ({"D": [0.1] * 6}, "'plumb_bob' takes 4, 5, 8, 12 or 14 coefficients, D holds 6"),
        ({"D": [0.01] * 15}, "'plumb_bob' takes 4, 5, 8, 12 or 14 coefficients, D holds 15"),
        ({"D": BROWN[:3], "model": "rational_polynomial"}, "4, 5, 8, 12 or 14 .* holds 3"),
        ({"D": [], "model": "equidistant"}, "'equidistant' takes 4 coefficients, D holds 0"),
        ({"D": [0.0] * 3, "model": "equidistant"}, "'equidistant' takes 4 coefficients, D holds 3"),
        ({"D": BROWN, "model": "equidistant"}, "'equidistant' takes 4 coefficients, D holds 5"),
        ({"D": [math.inf] * 5}, "D holds a value that is not finite"),
        ({"model": "ds"}, "'ds' is unknown: use one of 'none', 'plumb_bob', 'rational_pol"),
        ({"model": "none"}, "D holds coefficients, but .* without distortion .*: name the model"),
        (
            {"model": "pinhole"},
            "D holds coefficients, but .* without distortion .*: name the model",
        ),
        ({"model": "fisheye", "D": BROWN}, "'equidistant' takes 4 coefficients, D holds 5"),
        ({"model": "inverse_brown_conrady"}, "'inverse_brown_conrady' is unknown"),
        ({"model": "", "D": BROWN[:4]}, "D holds 4 coefficients, but the .* model is '': name it"),
        ({"R": [2.0, *IDENTITY[1:]]}, "R is not a rotation"),
        ({"R": [-1.0, *IDENTITY[1:]]}, "R is not a rotation"),
        ({"R": IDENTITY[:3]}, "R must hold 9 values, not 3"),
        ({"P": [0.0, *P[1:]]}, "P has focal lengths 0"),
        ({"P": [0.0] * 12, "is_rectified": True}, "P is all zero, so the camera of the rectified"),
        ({"P": P[:11]}, "P must hold 12 values, not 11"),
        ({"P": [*P[:10], 2.0, 0.0]}, r"P is not \[fx 0 cx"),
        ({"P": [*P[:11], 0.3]}, "P moves the camera along Z"),
        ({"R": rotation((0, 2.5, 0))}, "K, D, R and P do not belong together"),
        ({"width": 0}, "calibrated image size is 0x120"),
        ({"image_size": (320, 240)}, "images of 161x120 px .* but the images are 320x240 px"),
        ({"image_size": (161, 120), "binning": (2, 2)}, "images of 80x60 px .*binning 2x2"),
        ({"binning": (500, 1)}, "images of 0x120 px"),
        ({"roi": (100, 0, 80, 60)}, r"interest \(80x60 at \(100, 0\)\) does not lie"),
        ({"roi": (5, 5, 0, 0)}, "region of interest .* does not lie"),
    ],
)
def test_a_wrong_calibration_is_refused_with_the_reason(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(GeometryError, match=message):
        lens(**changes)


PADDED = {
    "plumb_bob of 8, as Orbbec sends it": ("plumb_bob", [*BROWN, 0, 0, 0], "plumb_bob", BROWN),
    "plumb_bob of 12": ("plumb_bob", [*BROWN, *[0] * 7], "plumb_bob", BROWN),
    "plumb_bob of 14": ("plumb_bob", [*BROWN, *[0] * 9], "plumb_bob", BROWN),
    "plumb_bob of 6": ("plumb_bob", [*BROWN, 0], "plumb_bob", BROWN),
    "plumb_bob of 16": ("plumb_bob", [*BROWN, *[0] * 11], "plumb_bob", BROWN),
    "rational of 4": ("rational_polynomial", BROWN[:4], "plumb_bob", BROWN[:4]),
    "rational of 5": ("rational_polynomial", BROWN, "plumb_bob", BROWN),
    "plumb_bob that is rational": ("plumb_bob", RATIONAL, "rational_polynomial", RATIONAL),
    "plumb_bob with tilt": (
        "plumb_bob",
        RATIONAL + THIN_PRISM + TILT,
        "rational_polynomial",
        RATIONAL + THIN_PRISM + TILT,
    ),
    "rational of 14 without tilt": (
        "rational_polynomial",
        [*RATIONAL, *THIN_PRISM, 0, 0],
        "rational_polynomial",
        RATIONAL + THIN_PRISM,
    ),
    "equidistant of 5, as T265 sends it": ("equidistant", [*FISHEYE, 0], "equidistant", FISHEYE),
    "equidistant of 8": ("equidistant", [*FISHEYE, *[0] * 4], "equidistant", FISHEYE),
    "no model, 5": ("", BROWN, "plumb_bob", BROWN),
    "no model, 8": ("", RATIONAL, "rational_polynomial", RATIONAL),
}


@pytest.mark.parametrize("case", PADDED)
def test_zeros_at_the_end_of_d_mean_nothing(case: str) -> None:
    model, D, same_model, same_D = PADDED[case]
    camera, expected = lens(model=model, D=D), lens(model=same_model, D=same_D)
    image = np.random.default_rng(5).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    np.testing.assert_array_equal(camera.rectify(image), expected.rectify(image))
    np.testing.assert_array_equal(camera.rectified_mask(), expected.rectified_mask())
    pixels = camera.rectified.pixel_grid()[::7, ::7]
    np.testing.assert_array_equal(camera.distort_pixels(pixels), expected.distort_pixels(pixels))
    assert camera.assumptions == (
        () if model else (f"the distortion model is empty: it is taken for '{same_model}'",)
    )


coefficients = st.sampled_from([4, 5, 8, 12, 14]).flatmap(
    lambda n: st.tuples(*(st.floats(-abs(c), abs(c)) for c in (*RATIONAL, *THIN_PRISM, *TILT)[:n]))
)


@settings(max_examples=60)
@given(coefficients, st.integers(0, 6), st.sampled_from(["plumb_bob", "rational_polynomial"]))
def test_any_number_of_coefficients_is_that_of_opencv(
    D: tuple[float, ...], zeros: int, model: str
) -> None:
    """initUndistortRectifyMap and undistortPoints get D as it is, as in image_geometry."""
    padded = [*D, *[0.0] * (zeros if len(D) + zeros <= 14 else 0)]
    if len(padded) not in (4, 5, 8, 12, 14):
        padded = list(D)
    # A lens that barely bends, so that the polynomial never turns back.
    D_opencv = np.array(padded) * 0.3
    camera = lens(model=model, D=D_opencv)
    matrix, new_matrix = np.reshape(K, (3, 3)), np.reshape(P, (3, 4))
    table = cv2.initUndistortRectifyMap(
        matrix, D_opencv, np.eye(3), new_matrix, (WIDTH, HEIGHT), cv2.CV_32FC1
    )
    found = camera.distort_pixels(camera.rectified.pixel_grid())
    known = np.isfinite(found).all(axis=-1)
    assert known.mean() > 0.9
    np.testing.assert_allclose(found[known], np.dstack(table)[known], atol=1e-3)
    raw = found[known][::97]
    ideal = cv2.undistortPoints(raw[:, None], matrix, D_opencv, R=np.eye(3), P=new_matrix)[:, 0]
    inverse = camera.rectify_pixels(raw)
    # OpenCV stops after 5 iterations by default.
    assert np.nanmedian(np.abs(inverse - ideal)) < 0.05


@pytest.mark.parametrize(
    "changes",
    [
        {"D": [0.1, 0.2]},
        {"D": [math.nan] * 5},
        {"model": "scaramuzza", "D": [1.0] * 9},
        {"model": ""},
        {"K": [0.0] * 9},
        {"R": rotation((0, 0.3, 0))},
    ],
)
def test_of_rectified_images_p_alone_is_looked_at(changes: dict[str, Any]) -> None:
    camera = lens(is_rectified=True, **changes)
    assert camera.is_pinhole
    assert camera.rectified == lens().rectified


def test_rectified_images_without_p_have_k_if_nothing_was_rectified() -> None:
    camera = lens(is_rectified=True, P=[0.0] * 12, D=[0.0] * 5)
    assert camera.is_pinhole
    assert (camera.rectified.fx, camera.rectified.cy) == (130, 62)


@pytest.mark.parametrize(
    "changes",
    [
        {"K": [1.0, *K[1:]]},
        {"K": [0.0] * 9},
        {"P": [1.0, *P[1:]], "is_rectified": True},
        {"P": [0.0] * 12, "K": [0.0] * 9, "D": [], "is_rectified": True},
    ],
)
def test_an_impossible_camera_is_uncalibrated(changes: dict[str, Any]) -> None:
    with pytest.raises(UncalibratedError):
        lens(**changes)


@pytest.mark.parametrize(
    ("size", "K", "model"),
    [
        ((1280, 960), [180.0, 0, 640, 0, 180, 480, 0, 0, 1], "none"),  # 148 degrees, rectified
        ((1920, 1080), [250.0, 0, 960, 0, 250, 540, 0, 0, 1], "equidistant"),  # a circle of 248
        ((640, 480), [1e5, 0, 320, 0, 1e5, 240, 0, 0, 1], "none"),  # 0.37 degrees: a telescope
        ((640, 480), [600.0, 0, -500, 0, 600, 240, 0, 0, 1], "none"),  # a crop
    ],
)
def test_unusual_lenses_are_taken(size: tuple[int, int], K: list[float], model: str) -> None:
    D = FISHEYE if model == "equidistant" else []
    P = [K[0], 0, K[2], 0, 0, K[4], K[5], 0, 0, 0, 1, 0]
    assert lens_from_calibration(*size, K, D, model, IDENTITY, P).width == size[0]


def test_an_image_of_another_size_is_refused() -> None:
    with pytest.raises(GeometryError, match="image is 120x161 px, its calibration 161x120 px"):
        lens().rectify(np.zeros((WIDTH, HEIGHT, 3), np.uint8))


@given(
    st.lists(st.floats() | st.floats(-300, 300), min_size=9, max_size=9),
    st.lists(st.floats() | st.floats(-1, 1), max_size=14),
    st.sampled_from(["plumb_bob", "rational_polynomial", "equidistant", "none", "other"]),
    st.lists(st.floats() | st.floats(-300, 300), min_size=12, max_size=12),
)
def test_any_calibration_gives_a_lens_or_a_geometry_error(
    k: list[float], d: list[float], model: str, p: list[float]
) -> None:
    for matrix in (k, [k[0], 0, k[1], 0, k[2], k[3], 0, 0, 1]):
        for projection in (p, [p[0], 0, p[1], p[2], 0, p[3], p[4], 0, 0, 0, 1, 0]):
            try:
                camera = lens_from_calibration(32, 24, matrix, d, model, IDENTITY, projection)
            except GeometryError:
                continue
            assert camera.rectify(np.zeros((24, 32, 3), np.uint8)).shape == (24, 32, 3)
            assert camera.rectified_mask().shape == (24, 32)


CALIBRATION = """\
image_width: 161
image_height: 120
camera_name: front
camera_matrix:
  rows: 3
  cols: 3
  data: [130., 0., 77.,
         0., 126., 62.,
         0., 0., 1.]
distortion_model: {model}
distortion_coefficients:
  rows: 1
  cols: {n}
  data: {D}
rectification_matrix:
  rows: 3
  cols: 3
  data: [1., 0., 0., 0., 1., 0., 0., 0., 1.]
projection_matrix:
  rows: 3
  cols: 4
  data: [115., 0., 82., 0., 0., 118., 58., 0., 0., 0., 1., 0.]
"""


@pytest.mark.parametrize(
    ("name", "D", "model"),
    [
        ("radtan", BROWN[:4], "plumb_bob"),  # Kalibr, image_undistort
        ("fisheye", FISHEYE, "equidistant"),  # camera_calibration of Melodic
        ("pinhole", [0.0] * 5, "none"),  # simulators
        ("PINHOLE", [], "none"),
    ],
)
def test_distortion_models_by_other_names(name: str, D: list[float], model: str) -> None:
    camera = lens(model=name, D=D)
    assert camera == lens(model=model, D=D)
    said = f"the distortion model {name!r} is taken for {model!r}"
    assert camera.assumptions == (() if model == "none" else (said,))
    assert lens(model="Plumb Bob") == lens(model="plumb_bob")
    # A fisheye lens of this name may be wider than any image without distortion.
    wide = {"K": [60.0, 0, 80, 0, 60, 60, 0, 0, 1], "P": P, "D": [0.0] * 4}
    assert lens(model="fisheye", **wide) == lens(model="equidistant", **wide)


@pytest.mark.parametrize("name", sorted(LENSES))
def test_calibration_files_of_ros_are_read(tmp_path: Path, name: str) -> None:
    model, D = LENSES[name]
    path = tmp_path / "front.yaml"
    path.write_text(CALIBRATION.format(model=model, n=len(D), D=D))
    assert load_camera_yaml(path) == lens(model=model, D=D)


def test_older_and_shorter_calibration_files_are_read(tmp_path: Path) -> None:
    text = CALIBRATION.format(model="equidistant", n=4, D=FISHEYE)
    path = tmp_path / "front.yaml"
    path.write_text(text.replace("distortion_model", "camera_model"))
    assert load_camera_yaml(path) == lens(model="equidistant", D=FISHEYE)
    text = CALIBRATION.format(model="?", n=5, D=BROWN).replace("distortion_model: ?\n", "")
    path.write_text(text[: text.index("rectification_matrix")])
    assert load_camera_yaml(path) == lens(P=[0.0] * 12)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image_width: [", "front.yaml is no YAML file"),
        ("%YAML:1.0\nfx: 3", "front.yaml is no YAML file"),
        ("", "has no image_width, image_height, camera_matrix"),
        ("just text", "not a camera calibration of ROS"),
        ("- a\n- b", "not a camera calibration of ROS"),
        (CALIBRATION.replace("camera_matrix", "matrix"), "has no camera_matrix"),
        (CALIBRATION.replace("161", "wide"), "image_width and image_height must be integers"),
        (CALIBRATION.replace("  data: [130., 0., 77.,", "  dat: ["), "camera_matrix must have"),
        (CALIBRATION.replace("130., 0., 77.", "130., 0."), "K must hold 9 values, not 8"),
        (CALIBRATION.replace("130., 0., 77.", "a, 0., 77."), "K must hold numbers"),
        (CALIBRATION.replace("{model}", "[a, b]"), "unknown"),
        (CALIBRATION.replace("130.", "0."), "uncalibrated"),
    ],
)
def test_a_wrong_calibration_file_is_refused_by_name(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "front.yaml"
    path.write_text(text.replace("{model}", "plumb_bob").replace("{n}", "5").replace("{D}", "[]"))
    with pytest.raises(GeometryError, match=message) as raised:
        load_camera_yaml(path)
    assert str(path) in str(raised.value)


def test_a_missing_or_binary_calibration_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(GeometryError, match=r"none\.yaml: No such file"):
        load_camera_yaml(tmp_path / "none.yaml")
    with pytest.raises(GeometryError, match=f"{tmp_path.name}: Is a directory"):
        load_camera_yaml(tmp_path)
    path = tmp_path / "picture.yaml"
    path.write_bytes(b"\xff\xd8\xff\x00\x10")
    with pytest.raises(GeometryError, match=r"picture\.yaml is no YAML file"):
        load_camera_yaml(path)
