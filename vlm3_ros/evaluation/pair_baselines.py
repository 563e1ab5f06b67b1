"""Motions and matches of two images that need no model: what a model must be better than."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from vlm3_ros.geometry.epipolar import motion_from_matches
from vlm3_ros.geometry.motion import Transform, motion_parts, transform
from vlm3_ros.tasks.views import CameraPair, ImagePair

IDENTITY, CONSTANT_MOTION, CONSTANT_VELOCITY, SIFT = (
    "identity",
    "constant_motion",
    "constant_velocity",
    "sift",
)
"""Names of the motions that need no model."""

SIFT_RATIO = 0.8
"""Nearest by second nearest descriptor below which a match is taken for unique (Lowe 2004)."""

SIFT_TOLERANCE_PX = 1.0
"""Distance from the epipolar line within which a match is an inlier.

On 120 procedural pairs the AUC@30 is 0.28 to 0.33 for anything between 0.15 and 1.5 px.
"""


def constant_motion(truth: ArrayLike) -> Transform:
    """The guess that is the same for every pair, chosen on the pairs that it is scored on.

    Mean rotation, mean direction and median distance: for a robot, straight ahead.

    Args:
        truth: T_cam1_cam2, shape (n, 4, 4), metres, at least one.
    """
    truth = np.asarray(truth, dtype=float)
    distances = np.linalg.norm(truth[:, :3, 3], axis=1)
    directed = truth[distances > 0, :3, 3] / distances[distances > 0, None]
    mean = transform(Rotation.from_matrix(truth[:, :3, :3]).mean(), directed.sum(axis=0))
    mean[:3, 3] = np.median(distances) * motion_parts(mean).direction
    return mean


def sift_motion(images: ImagePair, cameras: CameraPair) -> Transform | None:
    """The motion up to its scale as classical vision tells it: SIFT and the essential matrix.

    Matches that are nearest to each other both ways and pass Lowe's ratio test, RANSAC, and the
    pose of the essential matrix that has points in front of both cameras (OpenCV).

    Args:
        images: rectified RGB, shape (camera.height, camera.width, 3) each, uint8.
        cameras: their intrinsics.

    Returns:
        T_cam1_cam2 of unit displacement; None where the images determine none.
    """
    sift = cv2.SIFT.create()
    (points1, words1), (points2, words2) = (
        sift.detectAndCompute(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), None) for image in images
    )
    if words1 is None or words2 is None:
        return None
    forward, backward = _nearest(words1, words2), _nearest(words2, words1)
    pairs = [(i, j) for i, j in forward.items() if backward.get(j) == i]
    if not pairs:
        return None
    pixels1 = _places([points1[i] for i, _ in pairs])
    pixels2 = _places([points2[j] for _, j in pairs])
    # The solver looks at both images as one of focal length 1.
    focal = np.mean([(camera.fx, camera.fy) for camera in cameras])
    tolerance = SIFT_TOLERANCE_PX / float(focal)
    motion = motion_from_matches(cameras[0], pixels1, cameras[1], pixels2, tolerance)
    return None if motion is None else motion.T_cam1_cam2


def _nearest(words: cv2.typing.MatLike, others: cv2.typing.MatLike) -> dict[int, int]:
    """The nearest other descriptor of each one that has no rival."""
    found = cv2.BFMatcher(cv2.NORM_L2).knnMatch(words, others, k=2)
    return {
        pair[0].queryIdx: pair[0].trainIdx
        for pair in found
        if len(pair) == 2 and pair[0].distance < SIFT_RATIO * pair[1].distance
    }


def _places(points: list[cv2.KeyPoint]) -> NDArray[np.float64]:
    return np.array([point.pt for point in points], dtype=float)
