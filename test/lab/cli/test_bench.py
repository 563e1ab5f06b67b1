# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest

from vlm3_ros.cli import main

SIZES = ["--questions", "1,5", "--naive-questions", "3", "--batched-questions", "2"]


def test_all_methods_are_measured_and_give_the_same_answers(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["bench", "--model", str(checkpoint), "--visual-tokens", "12", "--repeats", "1"]
    assert main([*command, *SIZES, "--device", "cpu", "--out", str(tmp_path)]) == 0
    bench = json.loads((tmp_path / "bench.json").read_text())
    assert (bench["model"], bench["visual_tokens"], bench["image_size"]) == (
        checkpoint.name,
        12,
        [128, 96],
    )
    rows = bench["rows"]
    assert [(row["method"], row["questions"]) for row in rows] == [
        ("naive", 3),
        ("batched", 2),
        ("packed", 3),
        ("engine", 1),
        ("engine", 5),
        ("engine-forced", 1),
        ("engine-forced", 5),
    ]
    naive, *others = rows
    assert naive["ratio_to_naive"] == 1
    for row in others:
        assert row["equal_answers"] == 1
        assert row["compared"] == min(3, row["questions"])
        per_question = naive["ms_per_frame"] / 3
        assert row["ratio_to_naive"] == pytest.approx(
            row["questions"] * per_question / row["ms_per_frame"], rel=1e-4
        )
    for row in rows:
        assert 0 < row["roofline_ms"] < row["ms_per_frame"]
        assert 0 <= row["added_memory_mb"] < row["peak_memory_mb"]
    printed = capsys.readouterr().out
    written = (tmp_path / "bench.txt").read_text()
    assert "engine-forced" in printed
    assert f" {naive['ms_per_frame']:,.0f} " in written
    assert cv2.imread(str(tmp_path / "bench.png")) is not None


def test_shape_and_model_exclude_each_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "--shape", "4b", "--model", "any", "--out", str(tmp_path)]) == 2
    assert "--shape replaces --model" in capsys.readouterr().err
