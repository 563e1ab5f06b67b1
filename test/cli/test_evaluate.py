from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest

from vlm3_ros.cli import main
from vlm3_ros.synthetic import KINDS


def test_a_checkpoint_is_scored_beside_the_baselines(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", "--synthetic", "16", "--seed", "4", "--out", str(tmp_path / "out")]
    assert main([*command, "--model", str(checkpoint)]) == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["model"] == checkpoint.name
    assert (metrics["images"], metrics["seed"], metrics["depth"]["pixels"]) == (16, 4, 160)
    assert metrics["depth"]["unanswered"] == 0
    # It learned to speak, not to see: a guess that knows these very depths is at least as good.
    assert 0 < metrics["depth"]["delta1"] <= metrics["baseline"]["row"]["delta1"]
    assert cv2.imread(str(tmp_path / "out" / "views.png")) is not None
    printed = capsys.readouterr().out
    assert all(kind in printed for kind in KINDS)
    assert f"{metrics['baseline']['row']['delta1']:.3f}" in printed
