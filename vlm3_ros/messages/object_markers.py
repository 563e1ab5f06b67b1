# SPDX-License-Identifier: Apache-2.0
"""Objects as visualization_msgs/MarkerArray."""

from __future__ import annotations

import colorsys
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vlm3_ros.tasks.located import LocatedObject

if TYPE_CHECKING:
    from std_msgs.msg import ColorRGBA, Header
    from visualization_msgs.msg import MarkerArray

_OPACITY = 0.4
_TEXT_HEIGHT, _MIN_TEXT_HEIGHT = 0.04, 0.05
"""As a share of the distance, and in metres."""


def markers_message(
    header: Header, objects: Sequence[tuple[str, LocatedObject]], lifetime: float
) -> MarkerArray:
    """Build markers: one that deletes all earlier ones, then a cube and a text per object.

    Args:
        header: of the image; the objects lie in its optical frame.
        objects: each object with its name, which determines the colour.
        lifetime: seconds until the markers disappear; 0 for never.
    """
    from geometry_msgs.msg import Point, Pose, Vector3
    from rclpy.duration import Duration
    from visualization_msgs.msg import Marker, MarkerArray

    markers = [Marker(header=header, action=Marker.DELETEALL)]
    lasting = Duration(seconds=lifetime).to_msg()
    for index, (name, located) in enumerate(objects):
        x, y, z = located.centre.tolist()
        width, height, depth = located.size.tolist()
        text_height = max(_MIN_TEXT_HEIGHT, _TEXT_HEIGHT * located.distance)
        common = {"header": header, "id": index, "action": Marker.ADD, "lifetime": lasting}
        markers.append(
            Marker(
                **common,
                ns="boxes",
                type=Marker.CUBE,
                pose=Pose(position=Point(x=x, y=y, z=z)),
                scale=Vector3(x=width, y=height, z=depth),
                color=_colour(name, _OPACITY),
            )
        )
        markers.append(
            Marker(
                **common,
                ns="texts",
                type=Marker.TEXT_VIEW_FACING,
                pose=Pose(position=Point(x=x, y=y - height / 2 - text_height, z=z)),
                scale=Vector3(z=text_height),
                color=_colour(name, 1.0),
                text=f"{name} {located.distance:.2f} m".lstrip(),
            )
        )
    return MarkerArray(markers=markers)


def _colour(name: str, opacity: float) -> ColorRGBA:
    from std_msgs.msg import ColorRGBA

    hue = zlib.crc32(name.encode(errors="replace")) / 2**32
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.8, 1.0)
    return ColorRGBA(r=red, g=green, b=blue, a=opacity)
