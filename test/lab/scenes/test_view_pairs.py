# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from vlm3_lab.scenes import KINDS
from vlm3_lab.scenes.view_pairs import covisibility, sample_pair, true_matches
from vlm3_ros.datasets.views import View, ViewPair
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.geometry.motion import motion_from_parts

CAMERA = PinholeCamera(96, 64, 80.0, 80.0, 47.5, 31.5)


def wall(T_world_camera: np.ndarray, depth: float = 4.0) -> View:
    """A wall across the view of a camera that has not turned."""
    shape = (CAMERA.height, CAMERA.width)
    return View(
        np.zeros((*shape, 3), np.uint8),
        np.full(shape, depth, np.float32),
        CAMERA,
        T_world_camera,
        "room",
        (),
    )


def test_matches_on_a_wall_are_shifted_by_the_parallax():
    first = wall(np.eye(4))
    second = wall(motion_from_parts(0.5, (1, 0, 0), (0, 0, 0)))  # 80 * 0.5 / 4 = 10 px
    pixels = [[10, 0], [50, 20], [9, 20], [95, 63]]
    np.testing.assert_allclose(
        true_matches(first, second, pixels), [[0, 0], [40, 20], [np.nan] * 2, [85, 63]], atol=1e-6
    )
    assert covisibility(first, second) == pytest.approx(86 / 96, abs=1 / 12)


def test_points_hidden_in_the_second_view_have_no_match():
    first = wall(np.eye(4))
    second = wall(motion_from_parts(0.5, (1, 0, 0), (0, 0, 0)))
    second.depth[:, 40:60] = 2.0  # something nearer
    found = true_matches(first, second, [[45, 20], [55, 20], [69, 20], [75, 20]])
    assert np.isnan(found[:, 0]).tolist() == [False, True, True, False]
    # In the other direction, the first view does not show the near object.
    assert np.isnan(true_matches(second, first, [[50, 20]])).all()


def test_the_sky_has_no_match():
    first = wall(np.eye(4), np.inf)
    assert np.isnan(true_matches(first, first, [[3, 4]])).all()
    assert covisibility(first, first) == 0
    assert np.isnan(true_matches(wall(np.eye(4)), first, [[3, 4]])).all()
    half = wall(np.eye(4))
    half.depth[:32] = np.inf
    assert covisibility(half, half) > 0.9  # only the row at the horizon is lost


def test_views_in_opposite_directions_have_no_covisibility():
    assert covisibility(wall(np.eye(4)), wall(motion_from_parts(0, (0, 0, 1), (180, 0, 0)))) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_pairs_of_a_drive_match_in_the_world(kind):
    """Matched pixels of both views show the same point of the scene."""
    pair = sample_pair(np.random.default_rng(7), kind)
    first, second = pair.first, pair.second
    assert first.kind == second.kind == kind
    assert covisibility(first, second) >= 0.25
    pixels1 = first.camera.pixel_grid()[3::6, 2::6].reshape(-1, 2)
    pixels2 = true_matches(first, second, pixels1)
    known = np.isfinite(pixels2[:, 0])
    assert known.sum() > 50
    u, v = np.rint(pixels2[known]).astype(int).T
    rows, columns = pixels1[known].astype(int)[:, ::-1].T
    places = []
    for view, pixels, depth in (
        (first, pixels1[known], first.depth[rows, columns]),
        (second, pixels2[known], second.depth[v, u]),
    ):
        points = view.camera.unproject(pixels, depth)
        places.append(points @ view.T_world_camera[:3, :3].T + view.T_world_camera[:3, 3])
    gaps = np.linalg.norm(places[0] - places[1], axis=1)
    # The nearest pixel of the second view is half a pixel off, which matters on slanted ground.
    assert np.median(gaps / first.depth[rows, columns]) < 0.01
    T = np.linalg.inv(first.T_world_camera) @ second.T_world_camera
    np.testing.assert_allclose(pair.T_cam1_cam2, T, atol=1e-12)
    assert np.linalg.norm(T[:3, 3]) > 0.01


def test_pairs_are_those_of_their_seed_and_can_be_exchanged():
    pair, again = (sample_pair(np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(pair.first.image, again.first.image)
    np.testing.assert_array_equal(pair.T_cam1_cam2, again.T_cam1_cam2)
    back = ViewPair(pair.second, pair.first)
    np.testing.assert_allclose(back.T_cam1_cam2 @ pair.T_cam1_cam2, np.eye(4), atol=1e-12)
    assert covisibility(back.first, back.second) == covisibility(pair.first, pair.second)
    moved = dataclasses.replace(pair.second, T_world_camera=pair.first.T_world_camera)
    assert ViewPair(pair.first, moved).T_cam1_cam2 == pytest.approx(np.eye(4))
