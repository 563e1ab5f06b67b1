# SPDX-License-Identifier: Apache-2.0
"""Motions of two images that need no model: what a model must beat."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from vlm3_ros.geometry.epipolar import motion_from_matches
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

SIFT_RATIO = 0.8
"""Largest ratio of nearest to second nearest descriptor distance of a match (Lowe 2004)."""

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


@dataclass(frozen=True)
class SiftFeatures:
    """`pixels`: (u, v), shape (n, 2). `words`: their descriptors, shape (n, 128), float32."""

    pixels: NDArray[np.float64]
    words: NDArray[np.float32]


def sift_motion(images: ImagePair, cameras: CameraPair) -> Transform | None:
    """Estimate the motion up to its scale by classical vision: SIFT and the essential matrix.

    Args:
        images: rectified RGB, shape (camera.height, camera.width, 3) each, uint8.
        cameras: their intrinsics.

    Returns:
        T_cam1_cam2 of unit displacement; None if the images determine none.
    """
    first, second = map(sift_features, images)
    return motion_of_features(first, second, cameras)


def sift_features(image: NDArray[np.uint8]) -> SiftFeatures:
    """Find the strongest SIFT features of an RGB image, shape (height, width, 3), uint8."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    found, words = cv2.SIFT.create(SIFT_FEATURES).detectAndCompute(grey, None)
    pixels = np.array([point.pt for point in found], dtype=float).reshape(-1, 2)
    none = np.empty((0, 128))
    return SiftFeatures(pixels, np.asarray(none if words is None else words, np.float32))


def motion_of_features(
    first: SiftFeatures, second: SiftFeatures, cameras: CameraPair
) -> Transform | None:
    """Do as `sift_motion`, with known features.

    Mutual nearest neighbours that pass Lowe's ratio test, RANSAC, and the pose of the essential
    matrix with points in front of both cameras (OpenCV).
    """
    if not len(first.words) or not len(second.words):
        return None
    forward, backward = _nearest(first.words, second.words), _nearest(second.words, first.words)
    pairs = np.array([(i, j) for i, j in forward.items() if backward.get(j) == i], dtype=int)
    if not pairs.size:
        return None
    pixels1, pixels2 = first.pixels[pairs[:, 0]], second.pixels[pairs[:, 1]]
    # The solver works on images of focal length 1.
    focal = np.mean([(camera.fx, camera.fy) for camera in cameras])
    tolerance = SIFT_TOLERANCE_PX / float(focal)
    motion = motion_from_matches(cameras[0], pixels1, cameras[1], pixels2, tolerance)
    return None if motion is None else motion.T_cam1_cam2


def _nearest(words: cv2.typing.MatLike, others: cv2.typing.MatLike) -> dict[int, int]:
    """Nearest other descriptor of each one that passes the ratio test."""
    found = cv2.BFMatcher(cv2.NORM_L2).knnMatch(words, others, k=2)
    return {
        pair[0].queryIdx: pair[0].trainIdx
        for pair in found
        if len(pair) == 2 and pair[0].distance < SIFT_RATIO * pair[1].distance
    }
