# SPDX-License-Identifier: Apache-2.0
"""Check an answered motion against matched image features, which need no model.

Features tell the rotation and the epipolar lines, but never the distance. They say nothing where
too few of them agree: blank walls, darkness, images that share too little. A motion is refused only
if no motion near it explains the features: planes and small parallax leave more than one.

Limits were chosen on five recordings with true poses (`benchmarks/odometry_checks.py`, with the
curves in docs/odometry.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlm3_ros.geometry.epipolar import epipolar_residuals, motion_from_matches, parallaxes
from vlm3_ros.geometry.features import Features, matched_features, sift_features
from vlm3_ros.geometry.motion import Transform, motion_error
from vlm3_ros.geometry.refinement import refined_motion, rotation_std
from vlm3_ros.tasks.task import CameraPair

WIDTH, COUNT, CONTRAST = 400, 1000, 0.01
"""Width in px to which images are shrunk, number of features, contrast of the weakest.

OpenCV's default contrast, 0.04, leaves indoor images without features three times as often.
"""

TOLERANCE_PX = 1.0
"""Pixels of the shrunk image within which a match supports a motion."""

MIN_MATCHES = 15
"""Fewer matches that support one motion say nothing."""

SUPPORT = 0.8
"""A motion near the answered one explains the features if it has this share of the best support."""

ROTATION_LIMIT_DEG, ROTATION_STDS = 5.5, 4.0
"""A rotation is refused if it is this many degrees and standard deviations off."""

RESIDUAL_LIMIT_DEG = 3.0
"""A motion is refused if supporting matches lie farther off its epipolar lines, in the median."""

BEHIND_LIMIT_DEG = 2.5
"""A motion is refused as reversed if features meet behind the cameras, at this angle and
`ROTATION_STDS` standard deviations of the rotation, in the median."""


@dataclass(frozen=True)
class FeatureEvidence:
    """What features say about a motion.

    `matches`: number that support one motion. `rotation_deg`: from the answered rotation to the
    nearest one that explains them. `rotation_std_deg`: how well they determine it, about each axis.
    `residual_deg`: their median distance from the answered motion's epipolar lines. `behind_deg`:
    median angle at which they meet behind the cameras, for that rotation and the answered
    direction; negative in front of them, 0 without displacement.
    """

    matches: int
    rotation_deg: float
    rotation_std_deg: float
    residual_deg: float
    behind_deg: float

    @property
    def rotation_limit_deg(self) -> float:
        """Rotation above which the motion is refused."""
        return ROTATION_LIMIT_DEG + ROTATION_STDS * self.rotation_std_deg

    @property
    def behind_limit_deg(self) -> float:
        """Angle behind the cameras above which the motion is refused."""
        return BEHIND_LIMIT_DEG + ROTATION_STDS * self.rotation_std_deg

    @property
    def contradiction(self) -> str | None:
        """How the features contradict the motion; None if they do not."""
        if self.rotation_deg > self.rotation_limit_deg:
            return (
                f"the rotation is {self.rotation_deg:.1f} degrees off that of {self.matches} "
                f"image features, more than {self.rotation_limit_deg:.1f}"
            )
        if self.residual_deg > RESIDUAL_LIMIT_DEG:
            return (
                f"{self.matches} image features are {self.residual_deg:.1f} degrees off the "
                f"motion's epipolar lines, more than {RESIDUAL_LIMIT_DEG:.1f}"
            )
        if self.behind_deg > self.behind_limit_deg:
            return (
                f"{self.matches} image features meet behind the cameras, at "
                f"{self.behind_deg:.1f} degrees: the motion would be the other way"
            )
        return None


def checked_features(
    image: NDArray[np.uint8], visible: NDArray[np.bool_] | None = None
) -> Features:
    """Find the features of an image for `feature_evidence`; see `sift_features`."""
    return sift_features(image, COUNT, WIDTH, CONTRAST, visible)


def feature_evidence(
    T_cam1_cam2: Transform, features: tuple[Features, Features], cameras: CameraPair
) -> FeatureEvidence | None:
    """Compare a motion with the features of its images.

    Args:
        T_cam1_cam2: the answered motion, shape (4, 4).
        features: of the first and the second image.
        cameras: of both images.

    Returns:
        None if the features say nothing.
    """
    pixels1, pixels2 = matched_features(*features)
    shrunk = max(1.0, cameras[0].width / WIDTH)
    tolerance = TOLERANCE_PX * shrunk / cameras[0].fx
    matches = (cameras[0], pixels1, cameras[1], pixels2)
    best = motion_from_matches(*matches, tolerance)
    if best is None or best.inliers.sum() < MIN_MATCHES:
        return None
    explains = [best.T_cam1_cam2]
    # If the answered direction is far off, or arbitrary, begin with that of the features.
    turned = best.T_cam1_cam2.copy()
    turned[:3, :3] = T_cam1_cam2[:3, :3]
    is_displaced = np.linalg.norm(T_cam1_cam2[:3, 3]) > np.finfo(float).eps
    starts = [T_cam1_cam2, turned] if is_displaced else [turned]
    least = SUPPORT * best.inliers.sum()
    for start in starts:
        near = refined_motion(start, *matches, tolerance)
        if np.sum(epipolar_residuals(near, *matches) < tolerance) >= least:
            explains.append(near)
    turns = [float(np.linalg.norm(motion_error(T_cam1_cam2, motion)[3:])) for motion in explains]
    nearest = int(np.argmin(turns))
    directed = T_cam1_cam2.copy()
    directed[:3, :3] = explains[nearest][:3, :3]
    supporting = (cameras[0], pixels1[best.inliers], cameras[1], pixels2[best.inliers])
    return FeatureEvidence(
        matches=int(best.inliers.sum()),
        rotation_deg=math.degrees(turns[nearest]),
        rotation_std_deg=math.degrees(rotation_std(best.T_cam1_cam2, *supporting, tolerance / 2)),
        residual_deg=math.degrees(np.median(epipolar_residuals(starts[0], *supporting))),
        behind_deg=-math.degrees(np.median(parallaxes(directed, *supporting))),
    )
