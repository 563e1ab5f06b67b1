# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("vision_msgs")

from std_msgs.msg import Header
from vision_msgs import msg as vision_msgs

from vlm3_ros.messages.detections import located_message
from vlm3_ros.tasks.located import LocatedObject


@pytest.mark.parametrize(
    ("depth_std", "expected"), [(0.1, 0.1), (0.0, 0.0), (float("nan"), 1000.0)]
)
def test_the_covariance_holds_the_depth_std_of_the_engine(depth_std, expected):
    located = LocatedObject(np.array([1.0, -2.0, 4.0]), np.ones(3), depth_std)
    detection = vision_msgs.Detection2D(results=[vision_msgs.ObjectHypothesisWithPose()])
    message = located_message(Header(frame_id="camera"), [(detection, located)])
    covariance = message.detections[0].results[0].pose.covariance.reshape(6, 6)
    ray = np.array([0.25, -0.5, 1.0])
    np.testing.assert_allclose(covariance[:3, :3], np.outer(ray, ray) * expected**2)
    np.testing.assert_allclose(covariance[3:, 3:], np.eye(3) * np.pi**2 / 3)
    assert not covariance[:3, 3:].any()
