# SPDX-License-Identifier: Apache-2.0
"""Depth of images from the scans of a LiDAR."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import minimum_filter

from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.geometry.motion import Transform

SCAN_SECONDS = 0.06
"""How far in time a scan may be from an image: half a turn of a LiDAR at 10 Hz, and a little."""

OCCLUSION = 0.1
"""A point that is farther by this share than one beside it is seen through a gap between points."""

WINDOW = 0.02
"""Share of the width that is beside a point."""

_MIN_Z = 0.05


def projected_depth(
    points: NDArray[np.float64], T_camera_points: Transform, camera: PinholeCamera
) -> NDArray[np.float32]:
    """The depth image that points of a scan make, metres along Z, NaN where there is no point.

    The nearest point of a pixel counts. Points beside a notably nearer one are left out: a scan
    is sparse, and seen from the camera it shows what lies behind things, too.

    Args:
        points: shape (n, 3), metres.
        T_camera_points: shape (4, 4), takes them to the optical frame.
        camera: of the depth image.
    """
    seen = points @ T_camera_points[:3, :3].T + T_camera_points[:3, 3]
    seen = seen[seen[:, 2] > _MIN_Z]
    pixels = np.rint(camera.project(seen)).astype(int)
    inside = ((pixels >= 0) & (pixels < (camera.width, camera.height))).all(axis=1)
    depth = np.full((camera.height, camera.width), np.inf)
    u, v = pixels[inside].T
    np.minimum.at(depth, (v, u), seen[inside, 2])
    nearest = minimum_filter(depth, size=2 * max(1, round(WINDOW * camera.width / 2)) + 1)
    is_shown = np.isfinite(depth) & (depth <= nearest * (1 + OCCLUSION))
    return np.where(is_shown, depth, np.nan).astype(np.float32)
