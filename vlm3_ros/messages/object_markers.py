# SPDX-License-Identifier: Apache-2.0
"""Objects as visualization_msgs/MarkerArray."""

from __future__ import annotations

import colorsys
import zlib
from collections.abc import Sequence

from geometry_msgs.msg import Point, Pose, Vector3
from rclpy.duration import Duration
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from vlm3_ros.tasks.located import LocatedObject

_OPACITY = 0.4
_LETTERS, _SMALLEST_LETTERS = 0.04, 0.05
"""Height of the text, as a share of the distance and in metres at least."""


def markers_message(
    header: Header, objects: Sequence[tuple[str, LocatedObject]], lifetime: float
) -> MarkerArray:
    """A cube and a text for each object, behind a marker that takes away all earlier ones.

    Args:
        header: of the image; the objects lie in its optical frame.
        objects: each with what is called; one name has one colour.
        lifetime: seconds after which they disappear by themselves; 0 for never.
    """
    markers = [Marker(header=header, action=Marker.DELETEALL)]
    lasting = Duration(seconds=lifetime).to_msg()
    for index, (name, located) in enumerate(objects):
        x, y, z = located.centre.tolist()
        width, height, deep = located.size.tolist()
        letters = max(_SMALLEST_LETTERS, _LETTERS * located.distance)
        common = {"header": header, "id": index, "action": Marker.ADD, "lifetime": lasting}
        markers.append(
            Marker(
                **common,
                ns="boxes",
                type=Marker.CUBE,
                pose=Pose(position=Point(x=x, y=y, z=z)),
                scale=Vector3(x=width, y=height, z=deep),
                color=_colour(name, _OPACITY),
            )
        )
        markers.append(
            Marker(
                **common,
                ns="texts",
                type=Marker.TEXT_VIEW_FACING,
                pose=Pose(position=Point(x=x, y=y - height / 2 - letters, z=z)),
                scale=Vector3(z=letters),
                color=_colour(name, 1.0),
                text=f"{name} {located.distance:.2f} m".lstrip(),
            )
        )
    return MarkerArray(markers=markers)


def _colour(name: str, opacity: float) -> ColorRGBA:
    hue = zlib.crc32(name.encode(errors="replace")) / 2**32
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.8, 1.0)
    return ColorRGBA(r=red, g=green, b=blue, a=opacity)
