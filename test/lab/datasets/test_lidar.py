# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from drives import CAMERA
from recordings import cloud_message
from scipy.spatial.transform import Rotation

from vlm3_lab.datasets.ground_truth import projected_depth
from vlm3_ros.errors import MessageError
from vlm3_ros.geometry.motion import transform
from vlm3_ros.messages.clouds import points_from_message


def test_points_that_a_lidar_sees_behind_things_are_dropped() -> None:
    """A board of 0.8 m at 1.5 m before a wall at 4 m; the LiDAR stands a metre to the right."""
    T_camera_lidar = transform(Rotation.from_euler("y", 10, degrees=True), (1.0, -0.2, 0.0))
    across = np.arange(-0.4, 0.4, 0.03)
    board = np.stack([*np.meshgrid(across, across), np.full((len(across),) * 2, 1.5)], -1)
    along, up = np.meshgrid(np.arange(-3, 3, 0.08), np.arange(-2.2, 2.2, 0.08))
    wall = np.stack([along, up, np.full(along.shape, 4.0)], -1).reshape(-1, 3)
    # Where the ray of the LiDAR to the wall meets the plane of the board.
    meets = T_camera_lidar[:3, 3] + (wall - T_camera_lidar[:3, 3]) * 1.5 / 4.0
    wall = wall[(np.abs(meets[:, :2]) > 0.4).any(axis=1)]
    points = np.concatenate([board.reshape(-1, 3), wall])
    seen = (points - T_camera_lidar[:3, 3]) @ T_camera_lidar[:3, :3]
    depth = projected_depth(seen, T_camera_lidar, CAMERA)
    pixels = CAMERA.pixel_grid()
    behind_board = (np.abs(CAMERA.unproject(pixels, np.full(depth.shape, 1.5))) < 0.4)[..., :2]
    hidden = behind_board.all(axis=-1)
    u, v = np.rint(CAMERA.project(wall)).astype(int).T
    inside = (u >= 0) & (u < CAMERA.width) & (v >= 0) & (v < CAMERA.height)
    assert hidden[v[inside], u[inside]].sum() > 50  # the wrong answer
    assert np.nanmax(depth[hidden]) == pytest.approx(1.5)
    assert np.isfinite(depth[hidden]).mean() > 0.1
    kept = np.isfinite(depth) & ~hidden
    assert kept.sum() > 0.9 * (inside.sum() - hidden[v[inside], u[inside]].sum())
    np.testing.assert_allclose(depth[kept & (depth > 2)], 4.0, rtol=1e-6)


def test_the_nearest_point_of_a_pixel_counts() -> None:
    points = np.array([[0, 0, 5.0], [0, 0, 2.0], [0, 0, -1.0], [100, 0, 1.0]])
    depth = projected_depth(points, np.eye(4), CAMERA)
    assert depth[np.isfinite(depth)].tolist() == [2.0]


def test_without_a_point_in_view_there_is_no_depth() -> None:
    assert np.isnan(projected_depth(np.empty((0, 3)), np.eye(4), CAMERA)).all()


def test_points_of_clouds_are_read() -> None:
    points = np.array([[1, 2, 3], [np.nan, 0, 0], [-1, 0.5, 9], [0, 0, 0]])
    message = cloud_message(points, 0, "lidar")
    np.testing.assert_array_equal(points_from_message(message), points[[0, 2]])
    # Doubles in another order, big-endian, in rows with padding.
    cells = np.zeros((2, 2), np.dtype([("z", ">f8"), ("x", ">f8"), ("y", ">f8"), ("ring", "u1")]))
    values = np.arange(12.0).reshape(2, 2, 3)
    for axis, name in enumerate("xyz"):
        cells[name] = values[..., axis]
    rows = np.hstack([cells.view(np.uint8), np.zeros((2, 7), np.uint8)])
    for field, offset in zip(message.fields[:3], (8, 16, 0), strict=True):
        field.datatype, field.offset = 8, offset
    message.height, message.width, message.point_step = 2, 2, cells.itemsize
    message.row_step, message.is_bigendian, message.data = rows.shape[1], True, rows.ravel()
    np.testing.assert_array_equal(points_from_message(message), values.reshape(-1, 3))
    message.data = message.data[:-10]
    with pytest.raises(MessageError, match="a point cloud of 2x2 points of 25 bytes has 104"):
        points_from_message(message)
    message.fields = message.fields[1:]
    with pytest.raises(
        MessageError, match="no x, y, z of floating point; its fields are y, z, int"
    ):
        points_from_message(message)
