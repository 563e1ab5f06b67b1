# SPDX-License-Identifier: Apache-2.0
"""Points of sensor_msgs/PointCloud2."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlm3_ros.errors import MessageError

CLOUD_TYPE = "sensor_msgs/msg/PointCloud2"

_FLOATS = {7: "f4", 8: "f8"}
"""sensor_msgs/PointField's FLOAT32 and FLOAT64."""


def points_from_message(message: Any) -> NDArray[np.float64]:
    """The points of a cloud in its own frame, metres, shape (n, 3); without those not measured.

    Drivers put beams that nothing sent back to NaN, or to the sensor itself, (0, 0, 0).

    Args:
        message: PointCloud2 of `rosbags` or of rclpy with fields x, y, z of floating point.

    Raises:
        MessageError: when it lacks these, or is damaged.
    """
    fields = {field.name: field for field in message.fields}
    if not {"x", "y", "z"} <= set(fields) or any(
        fields[name].datatype not in _FLOATS for name in "xyz"
    ):
        raise MessageError(
            "a point cloud has no x, y, z of floating point; its fields are "
            f"{', '.join(fields) or 'none'}"
        )
    order = ">" if message.is_bigendian else "<"
    size, row, width = message.point_step, message.row_step, message.width
    point = np.dtype(
        {
            "names": list("xyz"),
            "formats": [order + _FLOATS[fields[name].datatype] for name in "xyz"],
            "offsets": [fields[name].offset for name in "xyz"],
            "itemsize": max(size, 1),
        }
    )
    data = np.frombuffer(memoryview(message.data), np.uint8)
    if row < width * size or len(data) < message.height * row or not size:
        raise MessageError(
            f"a point cloud of {width}x{message.height} points of {size} bytes has {len(data)}"
        )
    rows = data[: message.height * row].reshape(message.height, row)[:, : width * size]
    cells = np.ascontiguousarray(rows).view(point).ravel()
    points = np.stack([cells[name] for name in "xyz"], axis=-1).astype(float)
    return points[np.isfinite(points).all(axis=1) & points.any(axis=1)]
