# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from vlm3_ros.evaluation.ply import write_ply


def test_a_cloud_is_read_back_by_the_format_description(tmp_path: Path) -> None:
    points = [[1.5, -2.25, 3.0], [np.nan, 0, 1], [0.1, 0.2, np.inf], [4.0, 5.0, 6.0]]
    colours = np.array([[1, 2, 3], [9, 9, 9], [9, 9, 9], [254, 255, 0]], np.uint8)
    assert write_ply(tmp_path / "cloud.ply", points, colours) == 2
    head, _, body = (tmp_path / "cloud.ply").read_bytes().partition(b"end_header\n")
    assert head.decode().splitlines() == [
        "ply",
        "format binary_little_endian 1.0",
        "element vertex 2",
        "property float x",
        "property float y",
        "property float z",
        "property uchar red",
        "property uchar green",
        "property uchar blue",
    ]
    assert list(struct.iter_unpack("<fffBBB", body)) == [
        (1.5, -2.25, 3.0, 1, 2, 3),
        (4.0, 5.0, 6.0, 254, 255, 0),
    ]


def test_a_cloud_without_points_is_a_valid_file(tmp_path: Path) -> None:
    assert write_ply(tmp_path / "empty.ply", np.empty((0, 3)), np.empty((0, 3), np.uint8)) == 0
    assert (tmp_path / "empty.ply").read_bytes().endswith(b"end_header\n")
