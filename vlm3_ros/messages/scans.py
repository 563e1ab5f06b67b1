# SPDX-License-Identifier: Apache-2.0
"""Planar scans as sensor_msgs/LaserScan (REP-117)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vlm3_ros.messages.classes import classes_of
from vlm3_ros.tasks.scan import PlanarScan, ScanLimits

if TYPE_CHECKING:
    from sensor_msgs.msg import LaserScan
    from std_msgs.msg import Header


def scan_message(header: Header, scan: PlanarScan, limits: ScanLimits) -> LaserScan:
    """Build a LaserScan whose beams were all measured at the time of the header.

    Args:
        header: stamp of the image, and frame of the scan, whose z axis points up.
        scan: the ranges.
        limits: the limits that the scan was made with.
    """
    classes = classes_of(header)
    beams = len(scan.ranges)
    return classes.message(
        "sensor_msgs/msg/LaserScan",
        {"ranges": scan.ranges, "intensities": np.empty(0, np.float32)},
        header=header,
        angle_min=scan.angle_min,
        angle_max=scan.angle_min + (beams - 1) * scan.angle_increment,
        angle_increment=scan.angle_increment,
        time_increment=0.0,
        scan_time=0.0,
        range_min=limits.min_range,
        range_max=limits.max_range,
    )
