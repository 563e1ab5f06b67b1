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
