# SPDX-License-Identifier: Apache-2.0
"""Registered depth against planes and boxes whose depth is known exactly from every place."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.geometry.lens import LensCamera, lens_from_calibration
from vlm3_ros.geometry.motion import Transform, inverse, transform
from vlm3_ros.geometry.registration import rectified_depth, registered_depth

DEPTH = PinholeCamera(160, 120, 95.6, 95.6, 80.4, 59.5)
COLOUR = PinholeCamera(320, 180, 308.0, 308.2, 163.4, 90.3)
BESIDE = transform(Rotation.from_euler("xyz", [0.5, -0.8, 0.3], degrees=True), [-0.05, 0.01, 0.004])
"""T_colour_depth."""


def plane_depth(
    camera: PinholeCamera, normal: ArrayLike, distance: float, T_camera_world: Transform
) -> NDArray[np.float64]:
    """Depth of the plane n . x = distance of the world, NaN where the camera does not see it."""
    n = T_camera_world[:3, :3] @ np.asarray(normal, float)
    d = distance + n @ T_camera_world[:3, 3]
    depth = d / (camera.rays(camera.pixel_grid()) @ n)
    return np.where(depth > 0, depth, np.nan)


@pytest.mark.parametrize("distance", [0.4, 2.0, 9.0])
def test_a_wall_in_front_is_exact_and_closed(distance: float) -> None:
    depth = plane_depth(DEPTH, [0, 0, 1], distance, np.eye(4)).astype(np.float32)
    shifted = transform(Rotation.identity(), [-0.05, 0.01, 0.02])
    found = registered_depth(depth, DEPTH, shifted, COLOUR)
    truth = plane_depth(COLOUR, [0, 0, 1], distance, shifted)
    inside = slice(20, -20), slice(60, -60)
    assert np.isfinite(found[inside]).all()
    np.testing.assert_allclose(found[inside], truth[inside], rtol=1e-5)


@pytest.mark.parametrize("degrees", [10.0, 45.0, 65.0])
@pytest.mark.parametrize("axis", [(0, 1, 0), (1, 0, 0), (1, -1, 0)])
def test_a_slanted_wall_is_right_to_half_a_pixel(degrees: float, axis: ArrayLike) -> None:
    turn = Rotation.from_rotvec(np.radians(degrees) * np.asarray(axis) / np.linalg.norm(axis))
    normal = turn.apply([0, 0, 1])
    depth = plane_depth(DEPTH, normal, 1.0, np.eye(4)).astype(np.float32)
    depth[depth > 8] = np.nan
    found = registered_depth(depth, DEPTH, BESIDE, COLOUR)
    truth = plane_depth(COLOUR, normal, 1.0, BESIDE)
    known = np.isfinite(found) & np.isfinite(truth)
    assert known.mean() > 0.5
    # A square stands for half a pixel of the depth image on each side, 1.6 px of the image.
    steps = np.abs(np.gradient(truth, axis=0)) + np.abs(np.gradient(truth, axis=1))
    assert (np.abs(found - truth)[known] <= 1.8 * steps[known] + 1e-4).all()
    rows, columns = np.nonzero(known)
    box = known[rows.min() + 2 : rows.max() - 1, columns.min() + 2 : columns.max() - 1]
    assert box.mean() > 0.85  # open where it is steep, and beyond 8 m


def test_the_nearest_surface_hides_others_and_what_was_not_seen_is_unknown() -> None:
    """A post at 1 m before a wall at 3 m; the target stands 0.2 m to the left."""
    T_colour_depth = transform(Rotation.identity(), [0.2, 0, 0])
    depth = np.full((DEPTH.height, DEPTH.width), 3.0, np.float32)
    depth[:, 70:91] = 1.0
    found = registered_depth(depth, DEPTH, T_colour_depth, COLOUR)
    row = found[90]

    def column(u: float, z: float) -> float:
        """Where the target shows a point of the depth image's row 60."""
        point = DEPTH.unproject([u, 60.0], z) + np.array([0.2, 0, 0])
        return float(COLOUR.project(point)[0])

    left, right = column(69.5, 1), column(90.5, 1)
    wall_ends, wall_begins = column(69.5, 3), column(90.5, 3)
    assert wall_ends + 20 < left < wall_begins < right
    u = np.arange(COLOUR.width)
    np.testing.assert_allclose(row[(u > left) & (u < right)], 1.0, rtol=1e-6)
    np.testing.assert_allclose(row[(u > 60) & (u < wall_ends)], 3.0, rtol=1e-6)
    np.testing.assert_allclose(row[(u > right) & (u < 300)], 3.0, rtol=1e-6)
    assert np.isnan(row[(u > wall_ends) & (u < left)]).all()  # the post hid it from the first


def test_depth_of_the_same_camera_at_half_the_size() -> None:
    small = COLOUR.resized(160, 90)
    depth = np.random.default_rng(0).uniform(1, 5, (90, 160)).astype(np.float32)
    depth[20:30] = np.nan
    found = registered_depth(depth, small, np.eye(4), COLOUR)
    np.testing.assert_allclose(found, depth.repeat(2, 0).repeat(2, 1), rtol=1e-6)


def test_points_behind_or_beside_the_target_are_left_out() -> None:
    depth = np.full((DEPTH.height, DEPTH.width), 1.0, np.float32)
    back = transform(Rotation.from_euler("y", 180, degrees=True), [0, 0, 0])
    assert np.isnan(registered_depth(depth, DEPTH, back, COLOUR)).all()
    beside = transform(Rotation.from_euler("y", 90, degrees=True), [0, 0, 0])
    assert np.isnan(registered_depth(depth, DEPTH, beside, COLOUR)).mean() > 0.5
    away = transform(Rotation.identity(), [0, 0, -1.2])
    assert np.isnan(registered_depth(depth, DEPTH, away, COLOUR)).all()
    nothing = np.full_like(depth, np.nan)
    assert np.isnan(registered_depth(nothing, DEPTH, BESIDE, COLOUR)).all()


@pytest.mark.parametrize("degrees", [90, 180, -90, 30])
def test_a_camera_turned_about_its_axis(degrees: float) -> None:
    turned = transform(Rotation.from_euler("z", degrees, degrees=True), [0.0, 0.0, 0.0])
    depth = plane_depth(DEPTH, [0.2, 0.1, 1], 2.0, np.eye(4)).astype(np.float32)
    found = registered_depth(depth, DEPTH, turned, COLOUR)
    truth = plane_depth(COLOUR, [0.2, 0.1, 1], 2.0, turned)
    inside = slice(60, 120), slice(130, 190)
    assert np.isfinite(found[inside]).all()
    np.testing.assert_allclose(found[inside], truth[inside], rtol=0.02)


@pytest.mark.parametrize(
    ("D", "model"),
    [
        ([-0.3, 0.1, 0.002, -0.001, 0.02], "plumb_bob"),
        ([0.05, -0.02, 0.004, -0.001], "equidistant"),
    ],
)
@pytest.mark.parametrize("turn", [0.0, 3.0])
def test_raw_depth_is_rectified_to_the_nearest_pixel(
    D: list[float], model: str, turn: float
) -> None:
    lens = tilted_lens(D, model, turn)
    normal, distance = np.array([0.3, -0.2, 1.0]), 2.0
    rays = lens.rectified.rays(lens.rectify_pixels(lens.rectified.pixel_grid())) @ lens.R
    raw = distance / (rays @ normal) * rays[..., 2]
    found = rectified_depth(raw.astype(np.float32), lens)
    T_rectified_raw = transform(Rotation.from_matrix(lens.R), [0, 0, 0])
    truth = plane_depth(lens.rectified, normal, distance, T_rectified_raw)
    known = np.isfinite(found)
    assert known[20:-20, 20:-20].all()
    assert not known[~lens.rectified_mask()].any()
    step = np.abs(np.gradient(truth, axis=0)) + np.abs(np.gradient(truth, axis=1))
    assert (np.abs(found - truth)[known] <= 1.2 * step[known] + 1e-4).all()


def test_rectified_depth_mixes_no_surfaces() -> None:
    lens = tilted_lens([-0.3, 0.1, 0.002, -0.001, 0.02], "plumb_bob", 0.0)
    u, v = np.meshgrid(np.arange(lens.width), np.arange(lens.height))
    raw = np.where((u // 8 + v // 8) % 2 == 0, 1.0, 3.0).astype(np.float32)
    found = rectified_depth(raw, lens)
    assert set(np.unique(found[np.isfinite(found)])) == {1.0, 3.0}


def test_rectified_depth_of_a_pinhole_is_itself() -> None:
    lens = lens_from_calibration(
        240, 180, [150, 0, 120, 0, 150, 88, 0, 0, 1], [0] * 5, "plumb_bob", np.eye(3), [0] * 12
    )
    depth = np.ones((lens.height, lens.width), np.float32)
    assert rectified_depth(depth, lens) is depth


def tilted_lens(D: list[float], model: str, turn: float) -> LensCamera:
    R = Rotation.from_euler("xy", [turn, -turn], degrees=True).as_matrix()
    K = [150.0, 0, 120.5, 0, 151.0, 88.0, 0, 0, 1]
    P = [140.0, 0, 118.0, 0, 0, 140.0, 90.0, 0, 0, 0, 1, 0]
    return lens_from_calibration(240, 180, K, D, model, R, P)


def test_there_and_back_is_the_same_depth() -> None:
    depth = plane_depth(DEPTH, [0.1, 0.0, 1], 2.0, np.eye(4)).astype(np.float32)
    there = registered_depth(depth, DEPTH, BESIDE, COLOUR)
    back = registered_depth(there, COLOUR, inverse(BESIDE), DEPTH)
    known = np.isfinite(back)
    assert known.mean() > 0.15  # the image sees less
    np.testing.assert_allclose(back[known], depth[known], rtol=0.01)
