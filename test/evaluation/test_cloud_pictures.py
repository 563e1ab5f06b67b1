# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vlm3_ros.evaluation.pictures.cloud import (
    CloudFrame,
    draw_clouds,
    render_cloud,
    view_from_upper_left,
)
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.geometry.motion import inverse

CAMERA = PinholeCamera(80, 60, 60.0, 60.0, 39.5, 29.5)
RED, BLUE = (255, 0, 0), (0, 0, 255)


def test_a_nearer_square_hides_a_farther_one_in_any_order():
    points = np.array([[0, 0, 2.0], [0, 0, 4.0], [0, 0, -1], [np.nan, 0, 1]])
    colours = np.array([RED, BLUE, BLUE, BLUE], np.uint8)
    sizes = np.array([0.1, 0.8, 1, 1])
    for order in ([0, 1, 2, 3], [3, 2, 1, 0]):
        picture = render_cloud(points[order], colours[order], sizes[order], CAMERA)
        assert tuple(picture[30, 40]) == RED
        # 0.1 m at 2 m are 3 px, 0.8 m at 4 m are 12 px.
        assert (picture == RED).all(axis=2).sum() == 9
        assert (picture == BLUE).all(axis=2).sum() == 144 - 9


def test_no_points_give_an_empty_picture():
    picture = render_cloud(np.empty((0, 3)), np.empty((0, 3), np.uint8), np.empty(0), CAMERA)
    assert picture.shape == (60, 80, 3)
    assert (picture == picture[0, 0]).all()


def test_a_cloud_seen_from_its_camera_is_the_image():
    image = np.random.default_rng(0).integers(0, 240, (60, 80, 3)).astype(np.uint8)
    points = CAMERA.unproject(CAMERA.pixel_grid(), np.full((60, 80), 3.0)).reshape(-1, 3)
    picture = render_cloud(points, image.reshape(-1, 3), np.full(len(points), 0.01), CAMERA)
    np.testing.assert_array_equal(picture, image)


@given(st.floats(1, 20), st.floats(0.1, 0.9), st.integers(0, 2**16))
def test_most_of_a_cloud_is_in_view_from_the_upper_left(far, spread, seed):
    rng = np.random.default_rng(seed)
    pixels = rng.uniform((0, 0), (79, 59), (200, 2))
    points = CAMERA.unproject(pixels, far * rng.uniform(1 - spread, 1, 200))
    T_camera_viewer = view_from_upper_left(points, CAMERA)
    T_viewer_camera = inverse(T_camera_viewer)
    seen = CAMERA.project(points @ T_viewer_camera[:3, :3].T + T_viewer_camera[:3, 3])
    inside = ((seen >= 0) & (seen < (80, 60))).all(axis=1)
    assert inside.mean() >= 0.9
    x, y, _ = T_camera_viewer[:3, 3] - np.median(points, axis=0)
    assert x < 0
    assert y < 0


def test_a_row_without_truth_and_without_answers_is_drawn(tmp_path):
    image = np.full((60, 80, 3), 90, np.uint8)
    depth = np.full((60, 80), 2.0)
    sky = np.where(np.arange(60)[:, None] < 20, np.inf, depth)
    frames = [
        CloudFrame("both", image, CAMERA, depth, sky),
        CloudFrame("nothing", image, CAMERA, np.full((60, 80), np.nan), None),
    ]
    draw_clouds(frames, tmp_path / "clouds.png", "title")
    assert (tmp_path / "clouds.png").read_bytes().startswith(b"\x89PNG")
