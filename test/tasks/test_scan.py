# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from vlm3_lab.scenes.views import sample_view
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.geometry.motion import Transform, inverse, transform
from vlm3_ros.tasks.depth import uniform_grid
from vlm3_ros.tasks.sampling import adaptive_pixels, cell_extents
from vlm3_ros.tasks.scan import PlanarScan, ScanLimits, planar_scan

COLUMNS, ROWS = 16, 12
OPTICAL = np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0]])
"""Rotation from optical axes to x forward, y left, z up."""

ALL = ScanLimits(-1e3, 1e3, 0.0, 1e3)

cameras = st.builds(
    lambda hfov: PinholeCamera.from_hfov(400, 300, hfov), st.floats(30, 120, allow_nan=False)
)
places = st.just((0.0, 0.0, 0.0)) | st.tuples(*[st.floats(-0.5, 0.5)] * 3)
angles = st.floats(-math.pi, math.pi)
tilts = st.floats(-0.3, 0.3)


def mount(place=(0.0, 0.0, 0.0), yaw=0.0, pitch=0.0, roll=0.0) -> Transform:
    turned = Rotation.from_euler("ZYX", [yaw, pitch, roll]) * Rotation.from_matrix(OPTICAL)
    return transform(turned, place)


def beam_angles(scan: PlanarScan) -> NDArray[np.float64]:
    return scan.angle_min + np.arange(len(scan.ranges)) * scan.angle_increment


def scan_of(camera, depth, T_scan_camera, limits=ALL) -> PlanarScan:
    pixels = uniform_grid(camera, COLUMNS, ROWS)
    depth = np.broadcast_to(np.asarray(depth, float).ravel(), len(pixels))
    return planar_scan(camera, pixels, depth, COLUMNS, ROWS, T_scan_camera, limits)


@given(cameras, places, angles, st.floats(1, 20))
@settings(deadline=None, max_examples=40)
def test_ranges_of_a_wall_are_where_rays_meet_it(camera, place, yaw, distance):
    """Compare with rays in the camera's frame, where the wall is a plane of constant Z."""
    T_scan_camera = mount(place, yaw)
    scan = scan_of(camera, distance, T_scan_camera)
    beams = beam_angles(scan)
    T_camera_scan = inverse(T_scan_camera)
    start = T_camera_scan[:3, 3]

    def met(angles):
        """Ranges at which rays of these angles meet the wall, and u of these points."""
        rays = np.stack([np.cos(angles), np.sin(angles), 0 * angles], 1) @ T_camera_scan[:3, :3].T
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            ranges = (distance - start[2]) / rays[:, 2]
            u = (start[0] + ranges * rays[:, 0]) / distance * camera.fx + camera.cx
        return np.where(ranges > 0, ranges, np.inf), u

    ranges, u = met(beams)
    shown = np.isfinite(ranges) & (u > -0.5) & (u < camera.width - 0.5)
    sure = np.abs(np.minimum(u + 0.5, camera.width - 0.5 - u)) > 1e-3
    known = np.isfinite(scan.ranges)
    assert known[sure & shown].all()
    assert not known[sure & ~(shown | np.roll(shown, 1) | np.roll(shown, -1))].any()
    seen = sure & shown
    # The nearest beam represents a cell between two beams: it is at most half a beam off.
    half = scan.angle_increment / 2
    least = np.minimum(np.minimum(met(beams - half)[0], met(beams + half)[0]), ranges)
    assert (scan.ranges[seen] <= ranges[seen] * (1 + 1e-5)).all()
    assert (scan.ranges[seen] >= least[seen] * (1 - 1e-5)).all()
    if not np.any(place):
        np.testing.assert_allclose(scan.ranges[seen], ranges[seen], rtol=1e-5)
    assert seen.sum() >= COLUMNS / 4


@given(cameras, places, angles, tilts, tilts, st.integers(0, 1000))
@settings(deadline=None, max_examples=40)
def test_every_cell_is_in_the_scan_and_nothing_else(camera, place, yaw, pitch, roll, seed):
    T_scan_camera = mount(place, yaw, pitch, roll)
    rng = np.random.default_rng(seed)
    pixels = uniform_grid(camera, COLUMNS, ROWS)
    depth = rng.uniform(1.5, 8, len(pixels))
    depth[rng.random(len(pixels)) < 0.3] = np.nan
    limits = ScanLimits(-0.4, 0.6, 0.0, 1e3)
    scan = planar_scan(camera, pixels, depth, COLUMNS, ROWS, T_scan_camera, limits)
    points = camera.unproject(pixels, depth) @ T_scan_camera[:3, :3].T + T_scan_camera[:3, 3]
    in_band = (points[:, 2] >= -0.4) & (points[:, 2] <= 0.6)
    beams, half_cell = beam_angles(scan), depth * camera.width / COLUMNS / camera.fx / 2

    nearest = np.rint((np.arctan2(points[:, 1], points[:, 0]) + math.pi) / scan.angle_increment)
    for i in np.flatnonzero(in_band):
        # The cell's beam may be next to the one nearest to its centre.
        near = (int(nearest[i]) + np.array([-1, 0, 1])) % len(beams)
        shortest = np.fmin.reduce(scan.ranges[near])
        assert shortest <= math.hypot(*points[i, :2]) + 1.01 * half_cell[i]

    known = np.isfinite(scan.ranges)
    ends = scan.ranges[known, None] * np.stack([np.cos(beams), np.sin(beams)], 1)[known]
    away = np.linalg.norm(ends[:, None] - points[None, in_band, :2], axis=2)
    beam_width = scan.ranges[known, None] * scan.angle_increment
    assert (away <= half_cell[in_band] * 1.01 + beam_width).any(axis=1).all()
    if not in_band.any():
        assert np.isnan(scan.ranges).all()


@given(cameras, places, angles, tilts)
@settings(deadline=None, max_examples=40)
def test_the_number_of_beams_depends_only_on_the_camera(camera, place, yaw, pitch):
    one = scan_of(camera, 2.0, mount(place, yaw, pitch))
    other = scan_of(camera, np.nan, mount())
    assert len(one.ranges) == len(other.ranges)
    assert len(one.ranges) * one.angle_increment == pytest.approx(2 * math.pi)
    edge, next_to_it = (np.arctan(x * camera.width / camera.fx) for x in (0.5, 0.5 - 1 / COLUMNS))
    assert 0 < one.angle_increment <= edge - next_to_it + 1e-12


CAMERA = PinholeCamera.from_hfov(400, 300, 75.0)


@pytest.mark.parametrize("roll", [0.0, math.pi / 2, -math.pi / 2, math.pi])
def test_a_camera_on_its_side_leaves_no_direction_open(roll):
    scan = scan_of(CAMERA, 3.0, mount(roll=roll))
    half_view = math.atan((150 if abs(math.sin(roll)) > 0.5 else 200) / CAMERA.fx)
    inside = np.abs(beam_angles(scan)) < half_view
    x = scan.ranges * np.cos(beam_angles(scan))
    np.testing.assert_allclose(x[inside], 3.0, rtol=1e-5)


def test_the_nearest_depth_of_a_direction_counts():
    depth = np.full((ROWS, COLUMNS), 4.0)
    depth[3, 8] = 2.0
    scan = scan_of(CAMERA, depth, mount())
    nearest = scan.ranges < 2.5
    assert 1 <= nearest.sum() <= 3
    angle = math.atan2(-(8.5 * 25 - 0.5 - CAMERA.cx), CAMERA.fx)
    assert np.abs(beam_angles(scan)[nearest] - angle).max() < 0.1


@pytest.mark.parametrize(
    ("depth", "limits", "expected"),
    [
        (np.nan, ALL, np.nan),
        (2.0, ScanLimits(5.0, 6.0, 0.0, 10.0), np.nan),
        (0.3, ScanLimits(-9, 9, 0.5, 10.0), -np.inf),
        (50.0, ScanLimits(-90, 90, 0.5, 10.0), np.inf),
    ],
)
def test_depths_out_of_range_are_infinite_or_nan(depth, limits, expected):
    """REP-117."""
    scan = scan_of(CAMERA, depth, mount(), limits)
    assert not np.isfinite(scan.ranges).any()
    ahead = np.abs(beam_angles(scan)) < 0.4
    np.testing.assert_array_equal(scan.ranges[ahead], expected)
    behind = np.abs(beam_angles(scan)) > 1
    assert np.isnan(scan.ranges[behind]).all()


def test_a_scan_without_pixels_is_nan():
    scan = planar_scan(CAMERA, np.empty((0, 2)), np.empty(0), COLUMNS, ROWS, mount(), ALL)
    assert np.isnan(scan.ranges).all()


def test_near_objects_hide_what_is_too_far():
    depth = np.full((ROWS, COLUMNS), 50.0)
    depth[6] = 3.0
    scan = scan_of(CAMERA, depth, mount(), ScanLimits(-9, 9, 0.1, 10.0))
    np.testing.assert_allclose(scan.ranges[np.abs(beam_angles(scan)) < 0.1], 3.0, rtol=0.01)


def test_the_floor_is_neither_an_obstacle_nor_free_space():
    camera_height = 0.8
    T_scan_camera = mount((0.1, 0, camera_height), pitch=math.radians(5))
    pixels = uniform_grid(CAMERA, COLUMNS, ROWS)
    rays = CAMERA.unproject(pixels, np.ones(len(pixels)))
    falling = rays @ T_scan_camera[2, :3]
    floor = np.where(falling < 0, camera_height / -np.minimum(falling, -1e-9), np.nan)
    scan = scan_of(CAMERA, floor, T_scan_camera, ScanLimits(0.1, 2.0, 0.1, 10.0))
    assert np.isnan(scan.ranges).all()
    # The minimum height excludes it up to an error of this share of the camera's height.
    scan = scan_of(CAMERA, 0.8 * floor, T_scan_camera, ScanLimits(0.17, 2.0, 0.1, 10.0))
    assert np.isnan(scan.ranges).all()
    scan = scan_of(CAMERA, 0.8 * floor, T_scan_camera, ScanLimits(0.15, 2.0, 0.1, 10.0))
    assert np.isfinite(scan.ranges).any()


@pytest.mark.parametrize(
    ("columns", "rows", "roll"),
    [(16, 12, 0.0), (48, 12, 0.0), (48, 4, 0.0), (16, 12, math.pi / 2), (48, 12, -math.pi / 2)],
)
def test_pixels_of_any_places_leave_no_direction_of_a_wall_open(columns, rows, roll):
    """Gaps between places that are not a grid's columns were unknown: 45 of 86 beams."""
    limits = ScanLimits(-0.5, 0.7, 0.0, 1e3)
    rng = np.random.default_rng(0)
    for _ in range(6):
        view = sample_view(rng)
        camera, T_scan_camera = view.camera, mount(roll=roll)
        pixels = adaptive_pixels(view.image, columns * rows)
        extents = cell_extents(camera.width, camera.height, pixels)
        depth = np.full(len(pixels), 4.0)
        scan = planar_scan(camera, pixels, depth, columns, rows, T_scan_camera, limits, extents)
        points = camera.unproject(pixels, depth) @ T_scan_camera[:3, :3].T
        points = points[(points[:, 2] >= limits.min_height) & (points[:, 2] <= limits.max_height)]
        angles = np.arctan2(points[:, 1], points[:, 0])
        beams = beam_angles(scan)
        between = (beams >= angles.min()) & (beams <= angles.max())
        assert between.sum() > 5
        x = scan.ranges[between] * np.cos(beams[between])
        assert np.isfinite(x).all()
        assert (np.abs(x / 4 - 1) < 0.05).all()


def test_a_direction_without_an_answer_stays_unknown_between_any_places():
    pixels = adaptive_pixels(np.full((300, 400, 3), 90, np.uint8), 192)
    extents = cell_extents(400, 300, pixels)
    hidden = np.abs(pixels[:, 0] - 200) < 60
    depth = np.where(hidden, np.nan, 3.0)
    scan = planar_scan(CAMERA, pixels, depth, COLUMNS, ROWS, mount(), ALL, extents)
    ahead = np.abs(beam_angles(scan)) < math.atan(30 / CAMERA.fx)
    assert ahead.sum() > 1
    assert np.isnan(scan.ranges[ahead]).all()
