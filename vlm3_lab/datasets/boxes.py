# SPDX-License-Identifier: Apache-2.0
"""Boxes of objects that a recording holds (vision_msgs/Detection3DArray)."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from vlm3_lab.scenes.scene import SceneObject
from vlm3_ros.geometry.motion import Transform, transform

BOXES_TYPE = "vision_msgs/msg/Detection3DArray"

MAX_TILT_DEG = 10.0
"""Boxes of data sets stand upright; one that is tilted more is left out."""


def boxes_from_message(
    message: Any, T_world_frame: Transform, left_out: Counter[str]
) -> tuple[SceneObject, ...]:
    """The boxes of a message in a world with z up; of each the class of the highest score.

    Args:
        message: vision_msgs/Detection3DArray.
        T_world_frame: of the message's frame, shape (4, 4).
        left_out: is told how many boxes are not used, by reason.
    """
    boxes = []
    for detection in message.detections:
        kind = _kind(detection)
        T_world_box = T_world_frame @ _pose(detection.bbox.center)
        size = np.array([getattr(detection.bbox.size, axis) for axis in "xyz"], dtype=float)
        if not kind:
            left_out["boxes without a class"] += 1
        elif not np.isfinite(T_world_box).all() or not (np.isfinite(size) & (size > 0)).all():
            left_out["boxes without a finite pose and size"] += 1
        elif np.degrees(np.arccos(np.clip(T_world_box[2, 2], -1, 1))) > MAX_TILT_DEG:
            left_out[f"boxes that are tilted by more than {MAX_TILT_DEG:g} degrees"] += 1
        else:
            yaw = float(np.arctan2(T_world_box[1, 0], T_world_box[0, 0]))
            boxes.append(SceneObject(kind, T_world_box[:3, 3], size, yaw))
    return tuple(boxes)


def _kind(detection: Any) -> str:
    if not len(detection.results):
        return ""
    # Since ROS 2 Humble class and score are in `hypothesis`.
    found = [getattr(result, "hypothesis", result) for result in detection.results]
    best = max(found, key=lambda hypothesis: hypothesis.score)
    return str(best.class_id if hasattr(best, "class_id") else best.id)


def _pose(pose: Any) -> NDArray[np.float64]:
    place, turn = pose.position, pose.orientation
    quaternion = np.array([turn.x, turn.y, turn.z, turn.w])
    if not np.isfinite(quaternion).all() or not quaternion.any():
        return np.full((4, 4), np.nan)
    return transform(Rotation.from_quat(quaternion), (place.x, place.y, place.z))
