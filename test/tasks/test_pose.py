# SPDX-License-Identifier: Apache-2.0
"""The four answers of the authors' pose checkpoint as a motion with its check."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from vlm3_ros.engines.base import Answer
from vlm3_ros.engines.profiles import shipped_profile
from vlm3_ros.geometry.camera import ImageLimits, PinholeCamera
from vlm3_ros.tasks.pose import POSE, RelativePose
from vlm3_ros.tasks.task import model_views
from vlm3_ros.tasks.verification import verify_motion

CAMERA = PinholeCamera(1752, 1168, 464.3, 464.3, 876.0, 583.3)
LABELS = {
    "distance": "Translation distance: 1.98 meters",
    "direction": "The camera moves left, forward, unit vector (-0.69, +0.02, +0.72).",
    "rotation": "Yaw=+89.6°, Pitch=+2.6°, Roll=+6.1°",
    "angle": "Rotation angle: 89.7 degrees",
}


def read(is_cut: bool = False, **changes: str) -> RelativePose:
    profile = shipped_profile("vlm3-pose")
    views = model_views(profile, ImageLimits(32, 1024, 2**24), [CAMERA, CAMERA])
    answers = [Answer(text, is_cut=is_cut) for text in {**LABELS, **changes}.values()]
    return POSE.read(profile.prompts[POSE.wording], views, None, answers)


def test_the_labels_are_a_motion_whose_angle_agrees() -> None:
    pose = read()
    assert pose.texts_by_part == LABELS and not pose.failures
    true = Rotation.from_euler("YXZ", [89.600772, 2.598684, 6.072328], degrees=True)
    assert np.degrees(true.magnitude()) == pytest.approx(89.654735, abs=1e-6)
    seen = Rotation.from_matrix(pose.T_cam1_cam2[:3, :3])
    assert np.degrees((true.inv() * seen).magnitude()) < 0.06
    assert np.linalg.norm(pose.T_cam1_cam2[:3, 3]) == pytest.approx(1.98, rel=0.01)
    assert (pose.angle_deg, pose.rotation_deg) == (89.7, pytest.approx(89.65, abs=0.05))
    assert verify_motion(pose, None, (CAMERA, CAMERA)).status == "accepted"


def test_a_contradicting_angle_refuses_the_motion_and_names_both_angles() -> None:
    pose = read(angle="Rotation angle: 45.0 degrees")
    assert pose.has_motion
    verdict = verify_motion(pose, None, (CAMERA, CAMERA))
    assert verdict.status == "refused" and np.isnan(verdict.T_cam1_cam2).all()
    assert verdict.reason == (
        "the answered rotation angle of 45.0 degrees contradicts yaw, pitch and roll, whose angle "
        "is 89.7 degrees"
    )


def test_an_unread_angle_is_counted_but_leaves_the_motion() -> None:
    pose = read(angle="Rotation angle: large")
    assert pose.has_motion and math.isnan(pose.angle_deg)
    assert [failure.text for failure in pose.failures] == ["Rotation angle: large"]
    assert verify_motion(pose, None, (CAMERA, CAMERA)).status == "accepted"


def test_without_another_part_there_is_no_motion() -> None:
    pose = read(distance="far", rotation="Yaw=+89.6°")
    assert not pose.has_motion
    assert [failure.text for failure in pose.failures] == ["far", "Yaw=+89.6°"]
    assert pose.angle_deg == 89.7 and math.isnan(pose.rotation_deg)
    assert "could not be read" in verify_motion(pose, None, (CAMERA, CAMERA)).reason


def test_an_answer_that_was_cut_off_is_not_read() -> None:
    assert not read(is_cut=True, rotation="Yaw=+89.6°, Pitch=+2.6°, Roll=+6.").has_motion
    assert read(is_cut=True).has_motion
