from __future__ import annotations

from pathlib import Path

import pytest

from vlm3_ros.engines.base import Profile
from vlm3_ros.language.prompts import load_prompt_set
from vlm3_ros.training.checkpoint import TinyShape, build_checkpoint


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that a user may have: the real classes, of random weights."""
    folder = tmp_path_factory.mktemp("checkpoint")
    shape = TinyShape(
        vision_hidden=32, vision_depth=2, vision_heads=2, hidden=64, layers=2, heads=4
    )
    profile = Profile(focal=100.0, fit="scale", prompts=load_prompt_set("vlm3"))
    build_checkpoint(folder, shape, profile, seed=3)
    return folder
