# SPDX-License-Identifier: Apache-2.0
"""Detections in messages (vision_msgs), as detectors publish them, and located ones.

vision_msgs need not be installed: who imports this module does not need it, who calls it does.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from geometry_msgs.msg import Point, Pose, PoseWithCovariance, Vector3
from std_msgs.msg import Header

from vlm3_ros.geometry.camera import GeometryError, PinholeCamera
from vlm3_ros.geometry.lens import LensCamera
from vlm3_ros.tasks.located import LocatedObject
from vlm3_ros.tasks.objects import Box
from vlm3_ros.tasks.queries import QueryError, rectified_box

if TYPE_CHECKING:
    from vision_msgs.msg import Detection2D, Detection3DArray

_ANY_TURN = math.pi**2 / 3
"""Variance in rad^2 of an angle of which nothing is known."""

_ANY_DEPTH = 1000.0
"""Standard deviation in metres of a depth of which nothing is known; 0 would say: exact."""


def detected_box(detection: Detection2D) -> Box:
    """Outermost pixels of a vision_msgs/Detection2D, (left, top, right, bottom).

    Of a turned box, of the upright one around it. Detectors count from the corner of the first
    pixel, where this package counts from its middle. Not checked: it may be no box at all.
    """
    bounds = detection.bbox
    x, y = bounds.center.position.x, bounds.center.position.y
    with np.errstate(invalid="ignore"):
        cos, sin = (float(abs(f(bounds.center.theta))) for f in (np.cos, np.sin))
    width = bounds.size_x * cos + bounds.size_y * sin
    height = bounds.size_x * sin + bounds.size_y * cos
    return x - width / 2, y - height / 2, x + width / 2 - 1, y + height / 2 - 1


def detected_class(detection: Detection2D) -> tuple[str, float]:
    """The likeliest class of a detection and its score; ("", -inf) where it has none."""
    said = [(some.hypothesis.class_id, some.hypothesis.score) for some in detection.results]
    scored = [(name, score if math.isfinite(score) else -math.inf) for name, score in said]
    return max(scored, key=lambda one: one[1], default=("", -math.inf))


def referred_box(detections: Sequence[Detection2D], reference: str | int) -> Box:
    """The box of the first detection with an id, or of that with an index.

    Raises:
        QueryError: when there is none.
    """
    named: Iterable[Detection2D] = (some for some in detections if some.id == reference)
    if isinstance(reference, int):
        named = detections[reference : reference + 1] if reference >= 0 else ()
    for detection in named:
        return detected_box(detection)
    raise QueryError(
        f"none of the {len(detections)} newest detections is {json.dumps(reference)}: name one by "
        "its id (text) or its index from 0"
    )


def surest_boxes(
    detections: Sequence[Detection2D], room: int, camera: PinholeCamera, lens: LensCamera | None
) -> tuple[list[tuple[Detection2D, Box]], Counter[str]]:
    """The detections of the highest scores, with their boxes in the rectified image.

    Args:
        detections: in the image as it came.
        room: how many at most.
        camera: of the rectified image.
        lens: of the image as it came; None where that is the rectified one.

    Returns:
        these, and how many others there are, by what is wrong with them.
    """
    chosen: list[tuple[Detection2D, Box]] = []
    left_out: Counter[str] = Counter()
    for detection in sorted(detections, key=lambda some: -detected_class(some)[1]):
        if len(chosen) == room:
            left_out[f"beyond max_objects ({room})"] = len(detections) - room - left_out.total()
            break
        try:
            chosen.append((detection, rectified_box(detected_box(detection), camera, lens)))
        except GeometryError:
            left_out["without a box in the image"] += 1
    return chosen, left_out


def located_message(
    header: Header, objects: Sequence[tuple[Detection2D, LocatedObject]]
) -> Detection3DArray:
    """Detections in 3D, with the classes, scores and ids of those in 2D.

    The covariance of a pose has the uncertainty of the depth, along the ray through the object
    (1 km where the engine does not know it), and a rotation that may be any.

    Args:
        header: of the image; the objects lie in its optical frame.
        objects: each with its detection.
    """
    from vision_msgs.msg import (
        BoundingBox3D,
        Detection3D,
        Detection3DArray,
        ObjectHypothesisWithPose,
    )

    message = Detection3DArray(header=header)
    for detection, located in objects:
        x, y, z = located.centre.tolist()
        width, height, deep = located.size.tolist()
        pose = Pose(position=Point(x=x, y=y, z=z))
        covariance = np.zeros((6, 6))
        along = located.centre / z * np.nan_to_num(located.depth_std, nan=_ANY_DEPTH)
        covariance[:3, :3] = np.outer(along, along)
        covariance[range(3, 6), range(3, 6)] = _ANY_TURN
        placed = PoseWithCovariance(pose=pose, covariance=covariance.ravel())
        message.detections.append(
            Detection3D(
                header=header,
                id=detection.id,
                bbox=BoundingBox3D(center=pose, size=Vector3(x=width, y=height, z=deep)),
                results=[
                    ObjectHypothesisWithPose(hypothesis=some.hypothesis, pose=placed)
                    for some in detection.results
                ],
            )
        )
    return message
