# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from geometry_msgs.msg import TransformStamped

from vlm3_ros.ros.frames import FrameTree


class Buffer:
    """As tf2's: frames have no leading slash, and a name with one is unknown."""

    def can_transform(self, target: str, source: str, when: object) -> bool:
        return (target, source) == ("base", "camera")

    def lookup_transform(self, target: str, source: str, when: object) -> TransformStamped:
        assert self.can_transform(target, source, when)
        found = TransformStamped()
        found.transform.translation.z = 0.5
        return found


@pytest.mark.parametrize("camera", ["camera", "/camera"])
def test_a_leading_slash_of_a_frame_is_dropped(
    monkeypatch: pytest.MonkeyPatch, camera: str
) -> None:
    tf2_ros = SimpleNamespace(Buffer=Buffer, TransformListener=lambda *_, **__: None)
    monkeypatch.setitem(sys.modules, "tf2_ros", tf2_ros)
    T_base_camera = FrameTree(node=None).newest("base", camera, 0.0, lambda: True)
    assert T_base_camera is not None
    np.testing.assert_array_equal(T_base_camera[:3, 3], [0, 0, 0.5])
    assert FrameTree(node=None).newest("base", "lidar", 0.0, lambda: True) is None
