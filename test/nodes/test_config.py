from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import yaml

from vlm3_ros.nodes.depth_node import DepthParameters

CONFIG = Path(__file__).parents[2] / "config" / "depth.yaml"


def test_the_parameter_file_states_every_default():
    written = yaml.safe_load(CONFIG.read_text())["/**"]["ros__parameters"]
    assert written == asdict(DepthParameters())
