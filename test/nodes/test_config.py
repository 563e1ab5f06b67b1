# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from vlm3_ros.nodes.depth_parameters import DepthParameters
from vlm3_ros.nodes.pose_parameters import PoseParameters
from vlm3_ros.nodes.query_parameters import QueryParameters
from vlm3_ros.ros.node_parameters import CameraModelParameters

CONFIG = Path(__file__).parents[2] / "config"


@pytest.mark.parametrize(
    ("name", "table"),
    [("depth", DepthParameters), ("pose", PoseParameters), ("query", QueryParameters)],
)
def test_the_parameter_files_state_every_default(
    name: str, table: type[CameraModelParameters]
) -> None:
    content = yaml.safe_load((CONFIG / f"{name}.yaml").read_text())
    assert content == {f"/**/{name}_node": {"ros__parameters": asdict(table())}}
