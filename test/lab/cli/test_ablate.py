# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest

from vlm3_lab.training.config import load_config
from vlm3_ros.cli import main
from vlm3_ros.engines.profiles import read_profile
from vlm3_ros.language.prompts import load_prompt_set
from vlm3_ros.language.wordings.depth import DepthWording
from vlm3_ros.paths import share_folder

RECIPE = """
shape: {vision_hidden: 32, vision_depth: 2, vision_heads: 2, hidden: 64, layers: 2, heads: 2,
        kv_heads: 1, intermediate: 96, position_grid: 8}
profile: {focal: 60.0, fit: pad, prompts: vlm3-short}
warmup:
  data: &data
    workers: 0
    sources: {indoors: {kinds: [room], scenes: 2}, outdoors: {kinds: [yard], scenes: 20}}
  optimiser: {batch_size: 2, steps: 4}
data: {<<: *data, questions: 2}
optimiser: {batch_size: 2, steps: 4}
dtype: float32
"""


pytestmark = pytest.mark.slow


def test_all_findings_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "out"
    recipe.write_text(RECIPE)
    command = ["ablate", "--out", str(out), "--config", str(recipe), "--steps", "2", "--views", "3"]
    assert main([*command, "--only", "pixels"]) == 0
    first = (out / "arms" / "vlm3-0" / "score.json").stat().st_mtime_ns
    assert [len(rows) for rows in _findings(out).values()] == [2]

    assert main(command) == 0
    assert (out / "arms" / "vlm3-0" / "score.json").stat().st_mtime_ns == first, "trained again"
    findings = _findings(out)
    assert {name: len(rows) for name, rows in findings.items()} == {
        "cameras": 2,
        "pixels": 2,
        "mixture": 3,
        "wording": 2,
    }
    for rows in findings.values():
        for row in rows:
            assert 0 <= row["delta1"]["low"] <= row["delta1"]["value"] <= row["delta1"]["high"] <= 1
            assert row["labels_per_second"] > 0
            assert row["seconds"] > 0
            assert row["warmup_seconds"] > 0
    # One more of images as they are, and one for each mixture.
    assert len(list((out / "warmups").iterdir())) == 4
    # Both wordings start from the same weights, with a tokenizer that has the words of both.
    authors, last = (out / "starts" / f"{name}-0" for name in ("vlm3-depth", "vlm3-last"))
    for file in ("model.safetensors", "tokenizer.json"):
        assert (authors / file).read_bytes() == (last / file).read_bytes()
    assert read_profile(last).prompts[DepthWording] == load_prompt_set("vlm3-last")[DepthWording]
    log = json.loads((out / "warmups" / "unified-given-0" / "warmup" / "log.json").read_text())
    assert log[-1]["step"] == 2, "the warm-up is shortened with the questions"
    assert "### How a pixel is named" in capsys.readouterr().out
    assert cv2.imread(str(out / "ablation.png")) is not None

    command[command.index("--steps") + 1] = "3"
    assert main(command) == 2
    assert "settings.json is of another recipe" in capsys.readouterr().err


def _findings(out: Path) -> dict[str, list[dict]]:
    findings: dict[str, list[dict]] = json.loads((out / "ablation.json").read_text())["findings"]
    return findings


def test_the_shipped_recipe_is_valid() -> None:
    config = load_config(share_folder() / "config" / "training" / "ablation.yaml")
    assert config.data.sources == config.warmup.data.sources
    assert all(source.scenes for source in config.data.sources.values())


def test_an_unknown_finding_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["ablate", "--out", "out", "--only", "pixels,colours"])
    assert "'colours' is not one of cameras, pixels, mixture, wording" in capsys.readouterr().err
