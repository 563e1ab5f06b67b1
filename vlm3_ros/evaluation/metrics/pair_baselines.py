# SPDX-License-Identifier: Apache-2.0
"""Motions of two images that need no model: what a model must beat."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.transform import Rotation

from vlm3_ros.geometry.epipolar import motion_from_matches
from vlm3_ros.geometry.features import Features, matched_features, sift_features
from vlm3_ros.geometry.motion import Transform, motion_parts, transform
from vlm3_ros.tasks.task import CameraPair, ImagePair

IDENTITY, CONSTANT_MOTION, CONSTANT_VELOCITY, SIFT = (
    "identity",
    "constant_motion",
    "constant_velocity",
    "sift",
)
"""Names of the motions that need no model."""

SIFT_FEATURES = 2048
"""Strongest features of an image that are kept; tens of thousands take a minute to match."""

SIFT_TOLERANCE_PX = 1.0
"""Largest distance of an inlier from the epipolar line.

On 120 procedural pairs the AUC@30 is 0.28 to 0.33 for anything between 0.15 and 1.5 px.
"""


def constant_motion(truth: ArrayLike, has_distance: ArrayLike = True) -> Transform:
    """Return the motion that is the same for every pair, chosen on the pairs that it is scored on.

    Mean rotation, mean direction and median distance: for a robot, straight ahead.

    Args:
        truth: T_cam1_cam2, shape (n, 4, 4), metres, at least one.
        has_distance: whether a displacement is in metres, shape (n,) or one for all; the others
            have no part in the median, unless all are such.
    """
    truth = np.asarray(truth, dtype=float)
    distances = np.linalg.norm(truth[:, :3, 3], axis=1)
    is_metric = np.broadcast_to(np.asarray(has_distance, bool), len(truth))
    directed = truth[distances > 0, :3, 3] / distances[distances > 0, None]
    mean = transform(Rotation.from_matrix(truth[:, :3, :3]).mean(), directed.sum(axis=0))
    measured = distances[is_metric] if is_metric.any() else distances
    mean[:3, 3] = np.median(measured) * motion_parts(mean).direction
    return mean


def sift_motion(images: ImagePair, cameras: CameraPair) -> Transform | None:
    """Estimate the motion up to its scale by classical vision: SIFT and the essential matrix.

    Args:
        images: rectified RGB, shape (camera.height, camera.width, 3) each, uint8.
        cameras: their intrinsics.

    Returns:
        T_cam1_cam2 of unit displacement; None if the images determine none.
    """
    first, second = (sift_features(image, SIFT_FEATURES) for image in images)
    return motion_of_features(first, second, cameras)


def motion_of_features(first: Features, second: Features, cameras: CameraPair) -> Transform | None:
    """Do as `sift_motion`, with known features.

    Mutual nearest neighbours that pass Lowe's ratio test, RANSAC, and the pose of the essential
    matrix with points in front of both cameras (OpenCV).
    """
    pixels1, pixels2 = matched_features(first, second)
    # The solver works on images of focal length 1.
    focal = np.mean([(camera.fx, camera.fy) for camera in cameras])
    tolerance = SIFT_TOLERANCE_PX / float(focal)
    motion = motion_from_matches(cameras[0], pixels1, cameras[1], pixels2, tolerance)
    return None if motion is None else motion.T_cam1_cam2
