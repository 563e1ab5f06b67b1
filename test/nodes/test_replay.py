# SPDX-License-Identifier: Apache-2.0
"""The recording of a replay, converted to answers about a bag."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy")

from vlm3_ros.evaluation.bag.counts import frames_json
from vlm3_ros.nodes.replay import DEPTH_NODE, POSE_NODE, Recording, recorded_answers


def test_refusals_and_resets_of_the_odometry_are_counted() -> None:
    poses = {stamp: np.eye(4) for stamp in (1, 2, 5)}
    recording = Recording(
        depths={},
        poses=poses,
        starts={1, 5},
        latency={DEPTH_NODE: {}, POSE_NODE: dict.fromkeys(poses, 0.1)},
        frames={DEPTH_NODE: {}, POSE_NODE: {"answered": 6}},
        steps={"first": 1, "accepted": 1, "refused": 2, "skipped": 1, "reset": 1, "fused": 0},
    )
    answers = recorded_answers(recording, played=10)
    frames = frames_json(answers)
    assert (frames["with_pose"], frames["pose_refused"], frames["resets"]) == (3, 3, 1)
    assert frames["dropped"]["pose"] == 4
    assert frames["odometry_steps"] == {
        "first": 1,
        "accepted": 1,
        "refused": 2,
        "skipped": 1,
        "reset": 1,
    }


def test_frames_fail_for_the_reason_in_diagnostics() -> None:
    recording = Recording(
        depths={},
        poses={},
        starts=set(),
        latency={DEPTH_NODE: {}, POSE_NODE: {}},
        frames={DEPTH_NODE: {"failed": 3}, POSE_NODE: {"failed": 2}},
        steps={},
        errors={DEPTH_NODE: "http://a/v1 cannot be reached"},
    )
    assert recorded_answers(recording, played=3).failed == {
        f"{DEPTH_NODE}: http://a/v1 cannot be reached": 3,
        f"{POSE_NODE}: see its log": 2,
    }
