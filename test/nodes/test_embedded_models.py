# SPDX-License-Identifier: Apache-2.0
"""The depth node and the pose node in one process, each with its embedded checkpoint."""

from __future__ import annotations

import json

import numpy as np
import pytest

from vlm3_lab.scenes.view_pairs import sample_pair
from vlm3_ros.cli import main
from vlm3_ros.engines.load import load_engine
from vlm3_ros.engines.settings import EngineSettings, ModelSettings, task_settings
from vlm3_ros.nodes.depth_node import DepthNode
from vlm3_ros.nodes.pose_node import PoseNode
from vlm3_ros.nodes.query_node import QueryNode
from vlm3_ros.paths import default_model
from vlm3_ros.tasks.two_view import ask_pair


def test_each_node_loads_the_checkpoint_of_its_task():
    embedded = {
        node: {task_settings(ModelSettings(), task).model for task in node.tasks[:2]}
        for node in (DepthNode, PoseNode, QueryNode)
    }
    depth, pairs = str(default_model("depth")), str(default_model("pose"))
    assert embedded == {DepthNode: {depth}, PoseNode: {pairs}, QueryNode: {depth}}
    assert depth != pairs
    assert task_settings(ModelSettings(model="mine"), "pose").model == "mine"


@pytest.mark.slow
def test_the_checkpoint_for_pairs_looks_at_both_images():
    """It answers every question, and its rotation follows the camera's."""
    engine = load_engine(EngineSettings(str(default_model("pose")), device="cpu", offline=True))
    turns = []
    for seed in range(24):
        pair = sample_pair(np.random.default_rng([7, seed]), gaps=(15, 20))
        images = pair.first.image, pair.second.image
        pose, matches = ask_pair(
            engine, images, (pair.first.camera, pair.second.camera), [(60, 60), (120, 100)]
        )
        assert not pose.failures and not matches.failures
        turns.append([T[0, 2] for T in (pose.T_cam1_cam2, pair.T_cam1_cam2)])
    engine.close()
    answered, true = np.array(turns).T
    assert np.corrcoef(answered, true)[0, 1] > 0.5


@pytest.mark.slow
def test_the_demo_has_depth_and_a_trajectory(tmp_path):
    bag = tmp_path / "drive"
    assert main(["sample-bag", str(bag), "--duration", "3", "--frame-rate", "5"]) == 0
    # Play slowly: a busy machine needs seconds per pair, and a trajectory needs two pairs.
    command = ["demo", "--bag", str(bag), "--out", str(tmp_path / "out"), "--rate", "0.2"]
    assert main(command) == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["model"] == "vlm3-tiny and vlm3-tiny-pairs"
    assert metrics["depth"]["delta1"] > 0.5
    assert metrics["frames"]["odometry_steps"]
    assert (tmp_path / "out" / "trajectory.png").stat().st_size > 10_000
