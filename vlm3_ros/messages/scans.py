# SPDX-License-Identifier: Apache-2.0
"""Planar scans as sensor_msgs/LaserScan (REP-117)."""

from __future__ import annotations

from array import array

from sensor_msgs.msg import LaserScan
from std_msgs.msg import Header

from vlm3_ros.tasks.scan import PlanarScan, ScanLimits


def scan_message(header: Header, scan: PlanarScan, limits: ScanLimits) -> LaserScan:
    """A scan whose beams were all measured at the time of the header.

    Args:
        header: stamp of the image, and the scan's own frame, whose z is up.
        scan: the ranges.
        limits: with which they were made.
    """
    beams = len(scan.ranges)
    return LaserScan(
        header=header,
        angle_min=scan.angle_min,
        angle_max=scan.angle_min + (beams - 1) * scan.angle_increment,
        angle_increment=scan.angle_increment,
        range_min=limits.min_range,
        range_max=limits.max_range,
        ranges=array("f", scan.ranges.tobytes()),
    )
