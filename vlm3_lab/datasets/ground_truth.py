# SPDX-License-Identifier: Apache-2.0
"""What messages say about an image: depth from LiDAR scans, and boxes of objects."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import minimum_filter
from scipy.spatial.transform import Rotation

from vlm3_ros.datasets.views import SceneObject
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.geometry.motion import Transform, transform

SCAN_SECONDS = 0.06
"""Largest time between a scan and an image: a little over half a turn of a LiDAR at 10 Hz."""

OCCLUSION = 0.1
"""A point that is farther than a neighbour by this share is seen through a gap between points."""

WINDOW = 0.02
"""Width of a point's neighbourhood, as a share of the image's width."""

_MIN_Z = 0.05

BOXES_TYPE = "vision_msgs/msg/Detection3DArray"

MAX_TILT_DEG = 10.0
"""Boxes of data sets stand upright; boxes that are tilted more are skipped."""


def projected_depth(
    points: NDArray[np.float64], T_camera_points: Transform, camera: PinholeCamera
) -> NDArray[np.float32]:
    """Project a scan into a depth image, metres along Z, NaN where there is no point.

    The nearest point per pixel counts. Points next to a much nearer one are dropped: a scan is
    sparse, so from the camera it also shows surfaces behind things.

    Args:
        points: shape (n, 3), metres.
        T_camera_points: shape (4, 4), takes the points to the optical frame.
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


def boxes_from_message(
    message: Any, T_world_frame: Transform, left_out: Counter[str]
) -> tuple[SceneObject, ...]:
    """The boxes of a message in a world with z up, each with its class of the highest score.

    Args:
        message: vision_msgs/Detection3DArray.
        T_world_frame: takes points of the message's frame to the world, shape (4, 4).
        left_out: counts skipped boxes, by reason.
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
            left_out[f"boxes tilted by more than {MAX_TILT_DEG:g} degrees"] += 1
        else:
            yaw = float(np.arctan2(T_world_box[1, 0], T_world_box[0, 0]))
            boxes.append(SceneObject(kind, T_world_box[:3, 3], size, yaw))
    return tuple(boxes)


def _kind(detection: Any) -> str:
    if not len(detection.results):
        return ""
    # Since ROS 2 Humble class and score are in `hypothesis`.
    hypotheses = [getattr(result, "hypothesis", result) for result in detection.results]
    best = max(hypotheses, key=lambda hypothesis: hypothesis.score)
    return str(best.class_id if hasattr(best, "class_id") else best.id)


def _pose(pose: Any) -> NDArray[np.float64]:
    place, turn = pose.position, pose.orientation
    quaternion = np.array([turn.x, turn.y, turn.z, turn.w])
    if not np.isfinite(quaternion).all() or not quaternion.any():
        return np.full((4, 4), np.nan)
    return transform(Rotation.from_quat(quaternion), (place.x, place.y, place.z))
