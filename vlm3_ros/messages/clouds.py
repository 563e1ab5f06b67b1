# SPDX-License-Identifier: Apache-2.0
"""Points as sensor_msgs/PointCloud2, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vlm3_ros.errors import MessageError
from vlm3_ros.messages.classes import classes_of

if TYPE_CHECKING:
    from sensor_msgs.msg import PointCloud2
    from std_msgs.msg import Header

CLOUD_TYPE = "sensor_msgs/msg/PointCloud2"

_FLOAT32, _FLOAT64 = 7, 8
"""Of sensor_msgs/PointField."""

_CELL = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("rgb", "<u4"), ("uncertainty", "<f4")])


def cloud_message(
    header: Header,
    points: NDArray[np.floating],
    colours: NDArray[np.uint8],
    uncertainty: NDArray[np.floating],
) -> PointCloud2:
    """Build an unorganised cloud with the FLOAT32 fields x, y, z, rgb and uncertainty.

    `rgb` holds 0x00RRGGBB in the bits of a float, as PCL and RViz read it. `uncertainty` is one
    standard deviation of the depth in metres, NaN if unknown.

    Args:
        header: of the source image; the points lie in its optical frame.
        points: shape (N, 3), metres. Points with a NaN or infinite coordinate are dropped.
        colours: shape (N, 3), RGB.
        uncertainty: shape (N,), metres.
    """
    classes = classes_of(header)
    known = np.isfinite(points).all(axis=1)
    cells = np.empty(np.count_nonzero(known), _CELL)
    cells["x"], cells["y"], cells["z"] = points[known].T
    red, green, blue = colours[known].astype(np.uint32).T
    cells["rgb"] = red << 16 | green << 8 | blue
    cells["uncertainty"] = uncertainty[known]
    return classes.message(
        CLOUD_TYPE,
        {"data": cells.view(np.uint8)},
        header=header,
        height=1,
        width=len(cells),
        fields=[
            classes.message(
                "sensor_msgs/msg/PointField", name=name, offset=field[1], datatype=_FLOAT32, count=1
            )
            for name, field in (_CELL.fields or {}).items()
        ],
        is_bigendian=False,
        point_step=_CELL.itemsize,
        row_step=cells.nbytes,
        is_dense=True,
    )


def points_from_message(message: PointCloud2) -> NDArray[np.float64]:
    """Measured points of a cloud in its own frame, metres, shape (n, 3).

    Points with a NaN or infinite coordinate and points at the sensor, (0, 0, 0), are dropped:
    drivers mark beams without a return with them. A step or height of 0, which some drivers leave
    unset, is what the length of the data says.

    Args:
        message: its fields x, y and z are FLOAT32 or FLOAT64.

    Raises:
        MessageError: if it lacks these fields or is damaged.
    """
    formats = {_FLOAT32: "f4", _FLOAT64: "f8"}
    fields = {field.name: field for field in message.fields}
    if not {"x", "y", "z"} <= set(fields) or any(
        fields[name].datatype not in formats for name in "xyz"
    ):
        raise MessageError(
            "a point cloud has no x, y, z of floating point; its fields are "
            f"{', '.join(fields) or 'none'}"
        )
    order = ">" if message.is_bigendian else "<"
    data = np.frombuffer(memoryview(message.data), np.uint8)
    height, width, size, row = _layout(message, len(data))
    needed = max(fields[n].offset + int(formats[fields[n].datatype][1]) for n in "xyz")
    if row < width * size or len(data) < height * row or not size:
        raise MessageError(
            f"a point cloud of {message.width}x{message.height} points of {message.point_step} "
            f"bytes has {len(data)} bytes"
        )
    if needed > size:
        raise MessageError(
            f"a point cloud has points of {size} bytes, but x, y, z end at byte {needed}"
        )
    if not width * height:
        return np.empty((0, 3))
    cell = np.dtype(
        {
            "names": list("xyz"),
            "formats": [order + formats[fields[name].datatype] for name in "xyz"],
            "offsets": [fields[name].offset for name in "xyz"],
            "itemsize": size,
        }
    )
    rows = data[: height * row].reshape(height, row)[:, : width * size]
    cells = np.ascontiguousarray(rows).view(cell).ravel()
    points = np.stack([cells[name] for name in "xyz"], axis=-1).astype(float)
    return points[np.isfinite(points).all(axis=1) & points.any(axis=1)]


def _layout(message: PointCloud2, length: int) -> tuple[int, int, int, int]:
    """Height, width, point step and row step of a cloud of `length` bytes.

    What a driver left at 0 is what the length says if the points have no padding between rows.
    """
    height, width = message.height, message.width
    size, row = message.point_step, message.row_step
    if width and not height and length == width * size:
        height = 1
    if width and height and not size and length % (width * height) == 0:
        size = length // (width * height)
    if not row and length == height * width * size:
        row = width * size
    return height, width, size, row
