from __future__ import annotations

from dataclasses import asdict

import pytest
import yaml

from vlm3_ros.paths import share_folder

pytest.importorskip("rclpy")


def test_the_parameter_file_lists_every_parameter_with_its_default():
    from vlm3_ros.nodes.depth_node import DepthParameters

    text = (share_folder() / "config" / "depth.yaml").read_text()
    assert yaml.safe_load(text)["/**"]["ros__parameters"] == asdict(DepthParameters())
