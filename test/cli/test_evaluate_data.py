# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlm3_lab.scenes import sample_view
from vlm3_ros.cli import main


@pytest.fixture
def data(tmp_path: Path) -> Path:
    lines = []
    for index in range(2):
        view = sample_view(np.random.default_rng(index), "room")
        camera = view.camera
        Image.fromarray(view.image).save(tmp_path / f"{index}.png")
        pixels = [[20, 30], [50, 60], [100, 90]]
        line = {
            "image": f"{index}.png",
            "intrinsics": [camera.fx, camera.fy, camera.cx, camera.cy, camera.width, camera.height],
            "pixel_coords": pixels,
            "depth": [float(view.depth[v, u]) for u, v in pixels],
        }
        lines.append(json.dumps(line))
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_data_set_is_scored_by_greedy_answers(
    data: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, record = tmp_path / "out", tmp_path / "answers.jsonl"
    command = ["evaluate", str(data), "--out", str(out), "--model", str(checkpoint)]
    assert main([*command, "--record-to", str(record)]) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert (metrics["depth"]["images"], metrics["depth"]["pixels"]) == (2, 6)
    assert metrics["source"] == {"kind": "jsonl", "name": "data.jsonl", "protocol": "DepthLM"}
    assert metrics["depth"]["unanswered"] == 0
    assert metrics["baselines"]["constant"]["depth"]["delta1"] >= metrics["depth"]["delta1"]
    answers = [json.loads(line) for line in record.read_text().splitlines()[1:]]
    assert len(answers) == 6
    assert all(answer["value"] is None for answer in answers)
    printed = capsys.readouterr().out
    assert "data.jsonl by DepthLM's protocol" in printed
    assert "depth: 6 pixels of 2 images" in printed
    assert f"{metrics['depth']['delta1']:.3f}" in printed


def test_a_broken_line_is_named_before_a_model_is_loaded(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data.write_text(data.read_text() + '{"image": "1.png"}\n')
    command = ["evaluate", str(data), "--out", str(tmp_path / "out"), "--model", "/no/model"]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert "data.jsonl:3: missing depth, intrinsics, pixel_coords" in error
    assert len(error.splitlines()) == 1


def test_a_folder_that_cannot_be_made_is_named_before_a_model_is_loaded(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    out = str(tmp_path / "file" / "out")
    assert main(["evaluate", str(data), "--out", out, "--model", "/no/model"]) == 2
    assert out in capsys.readouterr().err
