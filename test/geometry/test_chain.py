# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np

from vlm3_ros.geometry.chain import ORIGIN_COVARIANCE, ChainedPose
from vlm3_ros.geometry.motion import (
    compose,
    motion_error,
    motion_from_parts,
    perturbed,
)

REFERENCE = motion_from_parts(3.0, (0.6, 0.8, 0.0), (40, 10, -20))
EARLIER = motion_from_parts(0.4, (1.0, 0.0, 0.0), (5, 0, 0))
LATER = motion_from_parts(0.9, (0.8, 0.6, 0.0), (12, -3, 2))


def covariance(seed: int) -> np.ndarray:
    """Correlated errors of centimetres and half degrees."""
    root = np.random.default_rng(seed).normal(0, 0.006, (6, 6))
    return root @ root.T


POSE = ChainedPose(REFERENCE, covariance(0), LATER, covariance(1))


def test_a_chain_begins_at_the_origin():
    origin = ChainedPose()
    np.testing.assert_array_equal(origin.T_odom_base, np.eye(4))
    np.testing.assert_allclose(origin.covariance_odom_base, ORIGIN_COVARIANCE)
    moved = origin.moved(LATER, covariance(1))
    np.testing.assert_allclose(moved.T_odom_base, LATER, atol=1e-12)


def test_the_covariance_of_a_pose_is_that_of_samples():
    rng = np.random.default_rng(2)
    errors = []
    for reference, motion in zip(
        rng.multivariate_normal(np.zeros(6), covariance(0), 4000),
        rng.multivariate_normal(np.zeros(6), covariance(1), 4000),
        strict=True,
    ):
        truth = compose(perturbed(REFERENCE, reference), perturbed(LATER, motion))
        errors.append(motion_error(POSE.T_odom_base, truth))
    expected = POSE.covariance_odom_base
    np.testing.assert_allclose(np.cov(errors, rowvar=False), expected, atol=0.1 * expected.max())


def test_a_pose_that_becomes_a_reference_does_not_change():
    again = POSE.as_reference()
    np.testing.assert_allclose(again.T_odom_base, POSE.T_odom_base, atol=1e-12)
    np.testing.assert_allclose(again.covariance_odom_base, POSE.covariance_odom_base, atol=1e-12)
    np.testing.assert_array_equal(again.T_ref_base, np.eye(4))


def test_noise_leaves_the_pose_and_adds_to_its_covariance():
    noise = np.diag([1e-4] * 6)
    disturbed = POSE.disturbed(noise)
    np.testing.assert_array_equal(disturbed.T_odom_base, POSE.T_odom_base)
    added = disturbed.covariance_odom_base - POSE.covariance_odom_base
    np.testing.assert_allclose(added, noise, atol=1e-12)
