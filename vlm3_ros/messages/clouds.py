# SPDX-License-Identifier: Apache-2.0
"""Points as sensor_msgs/PointCloud2."""

from __future__ import annotations

import sys
from array import array

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

_POINT = np.dtype([("x", "f4"), ("y", "f4"), ("z", "f4"), ("rgb", "u4"), ("uncertainty", "f4")])


def cloud_message(
    header: Header,
    points: NDArray[np.floating],
    colours: NDArray[np.uint8],
    uncertainty: NDArray[np.floating],
) -> PointCloud2:
    """An unorganised cloud with fields x, y, z, rgb and uncertainty, all FLOAT32.

    `rgb` holds 0x00RRGGBB in the bits of a float, as PCL and RViz read it; `uncertainty` is one
    standard deviation of the depth in metres, NaN where unknown.

    Args:
        header: of the source image; the points lie in its optical frame.
        points: shape (N, 3), metres. A point with a coordinate that is not finite stays out.
        colours: shape (N, 3), RGB.
        uncertainty: shape (N,), metres.
    """
    known = np.isfinite(points).all(axis=1)
    cells = np.empty(np.count_nonzero(known), _POINT)
    cells["x"], cells["y"], cells["z"] = points[known].T
    red, green, blue = colours[known].astype(np.uint32).T
    cells["rgb"] = red << 16 | green << 8 | blue
    cells["uncertainty"] = uncertainty[known]
    message = PointCloud2(
        header=header,
        height=1,
        width=len(cells),
        is_bigendian=sys.byteorder == "big",
        point_step=_POINT.itemsize,
        row_step=cells.nbytes,
        is_dense=True,
    )
    for name in _POINT.names or ():
        offset = _POINT.fields[name][1]  # type: ignore[index]
        message.fields.append(
            PointField(name=name, offset=offset, datatype=PointField.FLOAT32, count=1)
        )
    message.data = array("B", cells.tobytes())
    return message
