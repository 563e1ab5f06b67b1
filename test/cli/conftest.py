from __future__ import annotations

import json
from pathlib import Path

import pytest

from vlm3_ros.cli import main

SHORT_RUN = """
shape: {vision_hidden: 32, vision_depth: 2, vision_heads: 2, hidden: 64, layers: 2, heads: 4}
profile: {focal: 60.0}
data: {questions: 16, workers: 0}
optimiser: {learning_rate: 4.0e-3, batch_size: 4, steps: 60}
dtype: float32
evaluate_every: 60
evaluation_views: 4
"""


@pytest.fixture(scope="session")
def training_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of `vlm3 train`, long enough for a model to learn the form of answers."""
    folder = tmp_path_factory.mktemp("training")
    (folder / "short.yaml").write_text(SHORT_RUN)
    assert main(["train", str(folder / "short.yaml"), "--out", str(folder / "run")]) == 0
    return folder / "run"


@pytest.fixture(scope="session")
def checkpoint(training_run: Path) -> Path:
    return training_run / "final"


@pytest.fixture(scope="session")
def training_log(training_run: Path) -> list[dict[str, float]]:
    log: list[dict[str, float]] = json.loads((training_run / "log.json").read_text())
    return log
