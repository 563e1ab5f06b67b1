# SPDX-License-Identifier: Apache-2.0
"""A short run in the conventions of a released checkpoint leaves a checkpoint that can be asked."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from vlm3_lab.studies.tasks.depth import evaluation_view
from vlm3_lab.studies.tasks.pairs import pair_sample
from vlm3_ros.cli import main
from vlm3_ros.engines.base import Engine
from vlm3_ros.engines.load import load_engine
from vlm3_ros.engines.settings import EngineSettings
from vlm3_ros.tasks.depth import ask_depth, uniform_grid
from vlm3_ros.tasks.pose import ask_pose

pytestmark = pytest.mark.slow

RECIPE = """
shape: {vision_hidden: 32, vision_depth: 2, vision_heads: 2, hidden: 64, layers: 2, heads: 4}
optimiser: {learning_rate: 4.0e-3, batch_size: 4, steps: 60}
dtype: float32
evaluate_every: 60
evaluation_views: 1
"""


def _trained(folder: Path, profile: str, data: str) -> tuple[Engine, dict[str, float]]:
    """The checkpoint of a short run, and its scores."""
    recipe = folder / "recipe.yaml"
    recipe.write_text(f"{RECIPE}profile: {profile}\ndata: {data}\n")
    assert main(["train", str(recipe), "--out", str(folder / "run")]) == 0
    log = json.loads((folder / "run" / "log.json").read_text())
    scores = next(entry for entry in log if "loss" not in entry)
    return load_engine(EngineSettings(str(folder / "run" / "final"), offline=True)), scores


def test_depth_with_the_number_twice(tmp_path: Path) -> None:
    # So short a training does not always teach to repeat the number: this seed's does.
    profile, data = "{name: vlm3-depth, focal: 60.0}", "{questions: 16, workers: 0, seed: 3}"
    engine, scores = _trained(tmp_path, profile, data)
    assert scores["delta1"] >= 0
    view = evaluation_view(7, 0)[0]
    answers = ask_depth(engine, view.image, view.camera, uniform_grid(view.camera, 4, 3))
    assert np.isfinite(answers.depth).all()
    assert np.isfinite(answers.std).all()
    assert "<think> The point is around " in answers.texts[0]


def test_pose_with_four_questions(tmp_path: Path) -> None:
    profile = "{name: vlm3-pose, focal: 60.0}"
    engine, scores = _trained(tmp_path, profile, "{tasks: {pairs: 1}, matches: 0, workers: 0}")
    assert "auc30" in scores
    assert "epe_share" not in scores
    pair = pair_sample(7, 0, matches=1)
    pose = ask_pose(engine, pair.images, pair.cameras)
    assert not pose.failures
    assert np.isfinite([*pose.T_cam1_cam2.ravel(), pose.angle_deg]).all()
