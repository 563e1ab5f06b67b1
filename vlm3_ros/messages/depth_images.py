# SPDX-License-Identifier: Apache-2.0
"""Depth as sensor_msgs/Image (REP-118)."""

from __future__ import annotations

import sys
from array import array

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import Image
from std_msgs.msg import Header


def depth_message(header: Header, depth: NDArray[np.floating]) -> Image:
    """A 32FC1 image of depth along Z in metres, NaN where it is unknown.

    Args:
        header: of the source image.
        depth: shape (height, width), metres.
    """
    height, width = depth.shape
    message = Image(
        header=header,
        height=height,
        width=width,
        encoding="32FC1",
        is_bigendian=int(sys.byteorder == "big"),
        step=4 * width,
    )
    message.data = array("B", depth.astype(np.float32, copy=False).tobytes())
    return message
