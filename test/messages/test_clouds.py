# SPDX-License-Identifier: Apache-2.0
"""Clouds, read back by their own fields, by `points_from_message` and by sensor_msgs_py."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

from vlm3_ros.errors import MessageError
from vlm3_ros.messages.classes import RCLPY, ROSBAGS
from vlm3_ros.messages.clouds import cloud_message, points_from_message

HEADER = Header(stamp=Time(sec=12, nanosec=34), frame_id="camera_optical")


def arrays(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return (
        random.normal(size=(count, 3)),
        random.integers(0, 256, (count, 3), np.uint8),
        random.uniform(size=count),
    )


def read_back(message: PointCloud2) -> list[dict[str, bytes]]:
    """The cells of a cloud as the fields of the message describe them, four bytes per field."""
    message = deserialize_message(serialize_message(message), PointCloud2)
    assert not message.is_bigendian
    assert message.row_step == message.width * message.point_step
    assert len(message.data) == message.height * message.row_step
    data = bytes(message.data)
    return [
        {
            field.name: data[start + field.offset : start + field.offset + 4]
            for field in message.fields
        }
        for start in range(0, len(data), message.point_step)
    ]


def as_float(cell: bytes) -> float:
    return struct.unpack("<f", cell)[0]


def test_pcl_and_rviz_read_the_fields():
    message = cloud_message(HEADER, *arrays(3))
    assert message.header == HEADER
    assert [(f.name, f.datatype, f.count) for f in message.fields] == [
        (name, PointField.FLOAT32, 1) for name in ("x", "y", "z", "rgb", "uncertainty")
    ]
    assert (message.height, message.width) == (1, 3)
    assert message.is_dense


@given(count=st.integers(0, 20), seed=st.integers(0, 1000))
def test_values_come_back(count, seed):
    points, colours, uncertainty = arrays(count, seed)
    cells = read_back(cloud_message(HEADER, points, colours, uncertainty))
    assert len(cells) == count
    for cell, point, (red, green, blue), sigma in zip(
        cells, points, colours, uncertainty, strict=True
    ):
        assert [as_float(cell[axis]) for axis in "xyz"] == list(point.astype(np.float32))
        # The bytes of 0x00RRGGBB, least significant first.
        assert tuple(cell["rgb"]) == (blue, green, red, 0)
        assert as_float(cell["uncertainty"]) == np.float32(sigma)


@given(
    points=hnp.arrays(
        np.float64,
        st.tuples(st.integers(0, 12), st.just(3)),
        elements=st.sampled_from([0.5, -1.5, 2.5, np.nan, np.inf, -np.inf]),
    )
)
def test_incomplete_points_are_dropped_and_the_others_keep_their_colour(points):
    _, colours, uncertainty = arrays(len(points))
    cells = read_back(cloud_message(HEADER, points, colours, uncertainty))
    complete = [i for i, point in enumerate(points) if all(abs(value) < 10 for value in point)]
    assert [[as_float(cell[axis]) for axis in "xyz"] for cell in cells] == [
        list(points[i]) for i in complete
    ]
    assert [tuple(cell["rgb"][2::-1]) for cell in cells] == [tuple(colours[i]) for i in complete]


def test_unknown_uncertainty_keeps_its_point():
    points, colours, _ = arrays(2)
    cells = read_back(cloud_message(HEADER, points, colours, np.array([np.nan, 0.5])))
    assert np.isnan(as_float(cells[0]["uncertainty"]))
    assert as_float(cells[1]["uncertainty"]) == 0.5


@pytest.mark.parametrize("classes", [RCLPY, ROSBAGS], ids=["rclpy", "rosbags"])
def test_points_are_read_back(classes):
    points, colours, uncertainty = arrays(9)
    points[3] = np.nan
    points[5] = 0.0  # a beam without a return
    message = cloud_message(classes.header(0, "camera"), points, colours, uncertainty)
    expected = np.delete(points, (3, 5), axis=0).astype(np.float32)
    np.testing.assert_array_equal(points_from_message(message), expected)


@pytest.mark.parametrize("field", range(3))
def test_a_coordinate_beyond_its_point_is_named(field):
    message = cloud_message(HEADER, *arrays(9))
    message.fields[field].offset = message.point_step - 3
    with pytest.raises(MessageError, match="points of 20 bytes, but x, y, z end at byte 21"):
        points_from_message(message)


def test_an_empty_cloud_of_huge_points_has_no_points():
    message = cloud_message(HEADER, *arrays(0))
    message.point_step = 2**32 - 1
    assert points_from_message(message).shape == (0, 3)


def test_parity_with_sensor_msgs_py():
    point_cloud2 = pytest.importorskip("sensor_msgs_py.point_cloud2")
    points, colours, uncertainty = arrays(50)
    points[7] = np.nan
    cloud = point_cloud2.read_points(cloud_message(HEADER, points, colours, uncertainty))
    known = np.isfinite(points[:, 0])
    for axis, name in enumerate("xyz"):
        np.testing.assert_array_equal(cloud[name], points[known, axis].astype(np.float32))
    packed = np.ascontiguousarray(cloud["rgb"]).view(np.uint32)
    np.testing.assert_array_equal(packed >> 16, colours[known, 0])
    np.testing.assert_array_equal(packed & 255, colours[known, 2])
    np.testing.assert_array_equal(cloud["uncertainty"], uncertainty[known].astype(np.float32))


@pytest.mark.parametrize(
    "unset",
    [
        {"row_step": 0},
        {"point_step": 0},
        {"height": 0},
        {"row_step": 0, "height": 0},
        {"row_step": 0, "point_step": 0},
    ],
)
@pytest.mark.parametrize("library", [RCLPY, ROSBAGS], ids=["rclpy", "rosbags"])
def test_what_a_driver_leaves_unset_is_told_by_the_length(library, unset):
    points, colours, uncertainty = arrays(5)
    message = cloud_message(library.header(0, "lidar"), points, colours, uncertainty)
    for name, value in unset.items():
        setattr(message, name, value)
    np.testing.assert_allclose(points_from_message(message), points, rtol=1e-6)


def test_a_step_of_zero_that_the_length_does_not_tell_is_refused():
    message = cloud_message(RCLPY.header(0, "lidar"), *arrays(5))
    message.point_step, message.data = 0, message.data[:-1]
    with pytest.raises(MessageError, match="5x1 points of 0 bytes has 99 bytes"):
        points_from_message(message)
