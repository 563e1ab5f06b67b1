# SPDX-License-Identifier: Apache-2.0
"""Detections of vision_msgs: boxes of 2D ones, and located objects as 3D ones.

vision_msgs is optional: this module imports without it; only `located_message` needs it.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from vlm3_ros.geometry.camera import GeometryError, PinholeCamera
from vlm3_ros.geometry.lens import LensCamera
from vlm3_ros.tasks.located import LocatedObject
from vlm3_ros.tasks.objects import Box
from vlm3_ros.tasks.queries import QueryError, rectified_box

if TYPE_CHECKING:
    from std_msgs.msg import Header
    from vision_msgs.msg import Detection2D, Detection3DArray

_UNKNOWN_ANGLE_VARIANCE = math.pi**2 / 3
"""rad^2, of a uniform distribution over all angles."""

_UNKNOWN_DEPTH_STD = 1000.0
"""Metres; 0 would claim an exact depth."""


def detected_box(detection: Detection2D) -> Box:
    """Outermost pixels of a vision_msgs/Detection2D: left, top, right, bottom.

    A rotated box gives its upright bounding box. Detectors measure from the corner of the first
    pixel, this package from its centre. The values are not checked; they may be NaN or empty.
    """
    bounds = detection.bbox
    x, y = bounds.center.position.x, bounds.center.position.y
    with np.errstate(invalid="ignore"):
        cos, sin = (float(abs(f(bounds.center.theta))) for f in (np.cos, np.sin))
    width = bounds.size_x * cos + bounds.size_y * sin
    height = bounds.size_x * sin + bounds.size_y * cos
    return x - width / 2, y - height / 2, x + width / 2 - 1, y + height / 2 - 1


def detected_class(detection: Detection2D) -> tuple[str, float]:
    """The most likely class of a detection and its score; ("", -inf) without a class."""
    hypotheses = [result.hypothesis for result in detection.results]
    scored = [(h.class_id, h.score if math.isfinite(h.score) else -math.inf) for h in hypotheses]
    return max(scored, key=lambda pair: pair[1], default=("", -math.inf))


def referred_box(detections: Sequence[Detection2D], reference: str | int) -> Box:
    """Box of the first detection with an id (text), or of the detection with an index from 0.

    Raises:
        QueryError: if no detection has it.
    """
    named: Iterable[Detection2D] = (d for d in detections if d.id == reference)
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
    """The detections with the highest scores, with their boxes in the rectified image.

    Args:
        detections: in the received image.
        room: maximum number of detections.
        camera: of the rectified image.
        lens: of the received image; None if it is rectified already.

    Returns:
        The chosen detections, and the number of dropped ones by reason.
    """
    chosen: list[tuple[Detection2D, Box]] = []
    dropped: Counter[str] = Counter()
    for detection in sorted(detections, key=lambda d: -detected_class(d)[1]):
        if len(chosen) == room:
            dropped[f"beyond max_objects ({room})"] = len(detections) - room - dropped.total()
            break
        try:
            chosen.append((detection, rectified_box(detected_box(detection), camera, lens)))
        except GeometryError:
            dropped["without a box in the image"] += 1
    return chosen, dropped


def located_message(
    header: Header, objects: Sequence[tuple[Detection2D, LocatedObject]]
) -> Detection3DArray:
    """Build a Detection3DArray with the classes, scores and ids of the 2D detections.

    The covariance of a pose holds the uncertainty of the depth along the ray through the object
    (1 km if the engine does not give one) and an unknown rotation.

    Args:
        header: of the image; the objects lie in its optical frame.
        objects: each object with its 2D detection.
    """
    from geometry_msgs.msg import Point, Pose, PoseWithCovariance, Vector3
    from vision_msgs.msg import (
        BoundingBox3D,
        Detection3D,
        Detection3DArray,
        ObjectHypothesisWithPose,
    )

    message = Detection3DArray(header=header)
    for detection, located in objects:
        x, y, z = located.centre.tolist()
        width, height, depth = located.size.tolist()
        pose = Pose(position=Point(x=x, y=y, z=z))
        covariance = np.zeros((6, 6))
        along = located.centre / z * np.nan_to_num(located.depth_std, nan=_UNKNOWN_DEPTH_STD)
        covariance[:3, :3] = np.outer(along, along)
        covariance[range(3, 6), range(3, 6)] = _UNKNOWN_ANGLE_VARIANCE
        placed = PoseWithCovariance(pose=pose, covariance=covariance.ravel())
        message.detections.append(
            Detection3D(
                header=header,
                id=detection.id,
                bbox=BoundingBox3D(center=pose, size=Vector3(x=width, y=height, z=depth)),
                results=[
                    ObjectHypothesisWithPose(hypothesis=result.hypothesis, pose=placed)
                    for result in detection.results
                ],
            )
        )
    return message
