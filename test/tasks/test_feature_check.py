# SPDX-License-Identifier: Apache-2.0
"""What image features say about motions, on rendered scenes."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest

from vlm3_lab.scenes.sequences import sample_sequence
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.geometry.motion import inverse, motion_from_parts, perturbed
from vlm3_ros.geometry.refinement import refined_motion, rotation_std
from vlm3_ros.tasks.feature_check import (
    MIN_MATCHES,
    FeatureEvidence,
    checked_features,
    feature_evidence,
)

CAMERA = PinholeCamera(400, 300, 300.0, 300.0, 199.5, 149.5)
CAMERAS = (CAMERA, CAMERA)
MOTIONS = [
    motion_from_parts(0.3, (0.0, 0.0, 1.0), (0, 0, 0)),
    motion_from_parts(0.3, (0.6, 0.0, 0.8), (5, 0, 0)),
    motion_from_parts(0.2, (-1.0, 0.0, 0.0), (-6, 2, 1)),
    motion_from_parts(0.0, (0.0, 0.0, 1.0), (8, 0, 0)),
]


def wall(texture: np.ndarray, T_cam1_cam2: np.ndarray, depth: float = 2.0) -> list[np.ndarray]:
    """Render a wall across the first camera's axis, from both cameras."""
    images = []
    for T in (np.eye(4), T_cam1_cam2):
        T_cam_wall = inverse(T)
        plane = np.stack([T_cam_wall[:3, 0], T_cam_wall[:3, 1], T_cam_wall[:3, 3]], axis=1)
        plane[:, 2] += depth * T_cam_wall[:3, 2]
        side = texture.shape[0]
        to_wall = np.array([[4 / side, 0, -2], [0, 4 / side, -2], [0, 0, 1]])
        size = (CAMERA.width, CAMERA.height)
        image = cv2.warpPerspective(texture, CAMERA.K @ plane @ to_wall, size, flags=cv2.INTER_AREA)
        images.append(np.asarray(image, np.uint8))
    return images


def of_images(images: list[np.ndarray], T: np.ndarray) -> FeatureEvidence | None:
    return feature_evidence(T, (checked_features(images[0]), checked_features(images[1])), CAMERAS)


def plaster() -> np.ndarray:
    noise = np.random.default_rng(3).normal(0, 1, (1200, 1200, 3))
    noise = sum(cv2.GaussianBlur(noise, (0, 0), s) * s for s in (2, 5, 12))
    return np.clip(128 + 60 * noise, 0, 255).astype(np.uint8)


def turned(T: np.ndarray, degrees: float, axis: tuple[float, float, float]) -> np.ndarray:
    return perturbed(T, np.concatenate([np.zeros(3), np.radians(degrees) * np.array(axis)]))


@pytest.fixture(scope="module")
def drive() -> list:
    rng = np.random.default_rng(8)
    views = list(sample_sequence(rng, CAMERA, kind="room", duration=1.5, rate=10.0).views(rng))
    return [(view, checked_features(view.image)) for view in views]


def test_right_motions_of_a_drive_pass_and_wrong_ones_are_refused(drive):
    spoken, passed, turn, back = 0, 0, 0, 0
    for (first, words1), (second, words2) in pairwise(drive):
        truth = inverse(first.T_world_camera) @ second.T_world_camera
        evidence = feature_evidence(truth, (words1, words2), CAMERAS)
        if evidence is None:
            continue
        spoken += 1
        passed += evidence.contradiction is None
        wrong = feature_evidence(turned(truth, 12.0, (0, 1, 0)), (words1, words2), CAMERAS)
        turn += wrong.contradiction is not None
        reverse = truth.copy()
        reverse[:3, 3] *= -1
        back += feature_evidence(reverse, (words1, words2), CAMERAS).behind_deg > 0
    assert spoken >= 5
    assert passed == spoken
    assert turn >= spoken - 1
    assert back >= spoken - 1


@pytest.mark.parametrize("motion", MOTIONS)
def test_a_textured_wall_tells_right_from_wrong(motion):
    """A plane has two solutions: the one near the answer counts."""
    images = wall(plaster(), motion)
    right = of_images(images, motion)
    assert right.contradiction is None and right.matches >= 100
    assert right.rotation_deg < 1 and right.rotation_std_deg < 1
    for axis in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):
        contradiction = of_images(images, turned(motion, 15.0, axis)).contradiction
        assert contradiction and "image features" in contradiction


def test_a_reversed_motion_is_refused_if_there_is_parallax():
    sideways = motion_from_parts(0.5, (1.0, 0.0, 0.0), (0, 0, 0))
    images = wall(plaster(), sideways)
    assert of_images(images, sideways).contradiction is None
    assert "behind the cameras" in of_images(images, inverse(sideways)).contradiction


def test_a_blank_wall_and_darkness_say_nothing():
    noise = np.random.default_rng(0)
    for level in (200.0, 4.0):
        blank = np.full((300, 400, 3), level)
        images = [
            np.clip(blank + noise.normal(0, 1.5, blank.shape), 0, 255).astype(np.uint8)
            for _ in range(2)
        ]
        assert of_images(images, MOTIONS[1]) is None
    black = np.zeros((300, 400, 3), np.uint8)
    assert of_images([black, black], MOTIONS[0]) is None


def test_repeated_texture_does_not_refuse_right_motions():
    """Tiles look alike: their matches may agree on a shift by a whole tile."""
    tile = np.full((40, 40, 3), 210, np.uint8)
    cv2.rectangle(tile, (0, 0), (39, 39), (120, 110, 100), 2)
    cv2.circle(tile, (14, 20), 6, (60, 80, 140), -1)
    tiles = np.tile(tile, (30, 30, 1))
    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(20):
        direction = rng.normal(size=3)
        motion = motion_from_parts(
            rng.uniform(0.05, 0.4), direction / np.linalg.norm(direction), rng.normal(0, 3, 3)
        )
        evidence = of_images(wall(tiles, motion), motion)
        refused += evidence is not None and evidence.contradiction is not None
    assert refused <= 1


def test_invisible_pixels_have_no_features():
    images = wall(plaster(), MOTIONS[0])
    visible = np.zeros((300, 400), bool)
    visible[:, :200] = True
    features = checked_features(images[0], visible)
    assert len(features.pixels) > MIN_MATCHES and features.pixels[:, 0].max() < 200


def test_large_images_are_shrunk_and_pixels_are_those_of_the_image():
    image = wall(plaster(), np.eye(4))[0]
    large = cv2.resize(image, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    few, many = checked_features(image).pixels, checked_features(np.asarray(large)).pixels
    expected = 2 * few + 0.5  # pixel centres
    nearest = np.linalg.norm(expected[:, None] - many[None], axis=2).min(axis=1)
    assert np.median(nearest) < 0.5


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({}, None),
        ({"rotation_deg": 7.0}, "rotation is 7.0 degrees off that of 40 image features"),
        ({"rotation_deg": 7.0, "rotation_std_deg": 0.5}, None),
        ({"residual_deg": 3.5}, "40 image features are 3.5 degrees off"),
        ({"behind_deg": 5.0}, "40 image features meet behind the cameras"),
        ({"behind_deg": -20.0}, None),
    ],
)
def test_limits(values, reason):
    usual = {"rotation_deg": 1.0, "rotation_std_deg": 0.1, "residual_deg": 0.5, "behind_deg": -3.0}
    contradiction = FeatureEvidence(40, **{**usual, **values}).contradiction
    assert contradiction is None if reason is None else reason in contradiction


def test_a_refined_motion_is_that_of_the_matches():
    rng = np.random.default_rng(0)
    truth = motion_from_parts(1.0, (0.6, 0.0, 0.8), (6, -2, 1))
    points = rng.uniform((-2, -1.5, 3), (2, 1.5, 8), (80, 3))
    pixels1 = CAMERA.project(points)
    pixels2 = CAMERA.project((points - truth[:3, 3]) @ truth[:3, :3])
    start = turned(truth, 8.0, (0.0, 1.0, 0.0))
    refined = refined_motion(start, CAMERA, pixels1, CAMERA, pixels2, 1 / 300)
    np.testing.assert_allclose(refined, truth, atol=1e-9)
    pixels2[:8] += rng.normal(0, 60, (8, 2))  # outliers
    refined = refined_motion(start, CAMERA, pixels1, CAMERA, pixels2, 1 / 300)
    np.testing.assert_allclose(refined, truth, atol=0.03)
    std = rotation_std(refined, CAMERA, pixels1[8:], CAMERA, pixels2[8:], 1 / 300)
    few = rotation_std(refined, CAMERA, pixels1[20:32], CAMERA, pixels2[20:32], 1 / 300)
    assert 0 < std < np.radians(0.5) < 2 * few
