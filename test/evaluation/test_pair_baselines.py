# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from vlm3_lab.scenes.view_pairs import sample_pair
from vlm3_ros.evaluation.metrics.pair_baselines import (
    SIFT_FEATURES,
    constant_motion,
    sift_motion,
)
from vlm3_ros.evaluation.metrics.pairs import pose_errors
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.geometry.features import sift_features
from vlm3_ros.geometry.motion import motion_from_parts, motion_parts


def test_the_constant_motion_by_hand() -> None:
    """Directions 20 degrees to both sides, turns of -4 and 10 degrees, distances 1, 2 and 9."""
    side = (math.sin(math.radians(20)), 0.0, math.cos(math.radians(20)))
    truth = [
        motion_from_parts(1.0, side, (-4, 0, 0)),
        motion_from_parts(2.0, (0, 0, 1), (3, 0, 0)),
        motion_from_parts(9.0, (-side[0], 0, side[2]), (10, 0, 0)),
    ]
    parts = motion_parts(constant_motion(truth))
    assert parts.distance == pytest.approx(2)
    np.testing.assert_allclose(parts.direction, (0, 0, 1), atol=1e-12)
    np.testing.assert_allclose(parts.yaw_pitch_roll_deg, (3, 0, 0), atol=1e-9)


def test_the_constant_motion_of_a_standstill_is_identity() -> None:
    np.testing.assert_allclose(constant_motion([np.eye(4)]), np.eye(4), atol=1e-12)


def test_sift_finds_rotation_and_direction_of_a_pair_with_parallax() -> None:
    rng = np.random.default_rng(2)
    errors = []
    for _ in range(8):
        pair = sample_pair(rng, "street")
        images, cameras = (
            (pair.first.image, pair.second.image),
            (pair.first.camera, pair.second.camera),
        )
        motion = sift_motion(images, cameras)
        if motion is not None:
            assert np.linalg.norm(motion[:3, 3]) == pytest.approx(1)
            found = pose_errors(motion[None], pair.T_cam1_cam2[None])
            errors.append((found.rotation_deg[0], found.direction_deg[0]))
    rotation, direction = np.median(errors, axis=0)
    assert rotation < 1
    assert direction < 15


def test_images_without_features_have_no_motion() -> None:
    grey = np.full((48, 64, 3), 90, np.uint8)
    camera = PinholeCamera.from_hfov(64, 48, 60.0)
    assert sift_motion((grey, grey), (camera, camera)) is None
    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3)).astype(np.uint8)
    assert sift_motion((noise, grey), (camera, camera)) is None


def test_only_the_strongest_features_of_an_image_are_kept():
    noise = cv2.GaussianBlur(np.random.default_rng(0).normal(0, 500, (480, 640, 3)), (0, 0), 2)
    features = sift_features(np.clip(128 + noise, 0, 255).astype(np.uint8), SIFT_FEATURES)
    # Features of equal strength as the last one are kept.
    assert SIFT_FEATURES <= len(features.words) < 1.1 * SIFT_FEATURES
    assert features.pixels.shape == (len(features.words), 2)
