# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import pytest
from truth import TruthEngine, exact_prompts

from vlm3_lab.scenes import KINDS
from vlm3_lab.studies.tasks.depth import depth_pictures, evaluate_depth, evaluation_view
from vlm3_lab.studies.tasks.objects import evaluate_objects, evaluation_objects
from vlm3_lab.studies.tasks.pairs import evaluate_pairs, evaluation_pair
from vlm3_ros.cli import main
from vlm3_ros.engines.profiles import read_profile, write_profile
from vlm3_ros.engines.recorded import RecordingEngine


def test_a_checkpoint_is_scored_next_to_the_baselines(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", "--synthetic", "16", "--seed", "4", "--out", str(tmp_path / "out")]
    assert main([*command, "--model", str(checkpoint)]) == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["model"] == checkpoint.name
    assert (metrics["depth"]["images"], metrics["depth"]["pixels"]) == (16, 160)
    assert metrics["source"] == {"kind": "scenes", "name": "procedural scenes", "seed": 4}
    assert metrics["depth"]["unanswered"] == 0
    # It only learned the form of answers: a guess chosen on these depths is at least as good.
    assert 0 < metrics["depth"]["delta1"] <= metrics["baselines"]["row"]["depth"]["delta1"]
    assert cv2.imread(str(tmp_path / "out" / "views.png")) is not None
    printed = capsys.readouterr().out
    assert all(kind in printed for kind in KINDS)
    assert f"{metrics['baselines']['row']['depth']['delta1']:.3f}" in printed
    assert "did not learn relative pose and correspondence" in printed
    assert "pose" not in metrics
    assert not (tmp_path / "out" / "pairs.png").exists()
    assert "did not learn about objects" in printed
    assert "objects" not in metrics
    assert not (tmp_path / "out" / "objects.png").exists()
    assert metrics["calibration"]["pixels"] == 160
    assert cv2.imread(str(tmp_path / "out" / "reliability.png")) is not None


def test_each_task_is_scored_by_its_own_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Motions of one recording and matches of another; depth and objects were learned by none."""
    count, seed = 2, 2
    pairs = [evaluation_pair(seed, index)[0].views for index in range(count)]
    known = [view for pair in pairs for view in (pair.first, pair.second)]
    prompts = exact_prompts()
    motions = TruthEngine(known, prompts.without("depth", "correspondence", "objects"), 200.0)
    matches = TruthEngine(
        known, prompts.without("depth", "pose", "objects"), None, longest_side=512, name="corr"
    )
    for file, engine in {"truth.jsonl": motions, "truth-match.jsonl": matches}.items():
        recording = RecordingEngine(engine, tmp_path / file)
        evaluate_pairs(recording, count, seed, matches=3)
        recording.close()
    command = ["evaluate", "--synthetic", str(count), "--seed", str(seed), "--matches", "3"]
    command += ["--engine", "recorded", "--recording", str(tmp_path / "truth.jsonl")]
    for models, scored in (
        (["--match-model", "corr"], {"pose", "correspondence", "consistency"}),
        ([], {"pose", "consistency"}),
    ):
        out = tmp_path / ("two" if models else "one")
        assert main([*command, *models, "--out", str(out)]) == 0
        metrics = json.loads((out / "metrics.json").read_text())
        assert scored <= set(metrics)
        all_tasks = {"depth", "pose", "correspondence", "objects"}
        assert set(metrics["left_out"]) == all_tasks - scored
        assert metrics["pose"]["auc3"] == 1
        assert ("match_model" in metrics) == bool(models)
        if models:
            assert metrics["correspondence"]["epe_px"] < 0.01
        assert cv2.imread(str(out / "pairs.png")) is not None
    assert "did not learn correspondence" in capsys.readouterr().out


def test_pairs_and_objects_are_scored_if_learned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Answers recorded from the truth make no error, from the command to its report."""
    count, seed, recording = 4, 2, tmp_path / "truth.jsonl"
    views = [evaluation_view(seed, index)[0] for index in range(count)]
    pairs = [evaluation_pair(seed, index)[0].views for index in range(count)]
    with_objects = [evaluation_objects(seed, index)[0] for index in range(count)]
    known = [*views, *with_objects, *(view for p in pairs for view in (p.first, p.second))]
    engine = RecordingEngine(TruthEngine(known), recording)
    depth_pictures(engine, seed, evaluate_depth(engine, count, seed).overall)
    evaluate_pairs(engine, count, seed, matches=3)
    evaluate_objects(engine, count, seed)
    engine.close()
    command = ["evaluate", "--synthetic", str(count), "--seed", str(seed), "--matches", "3"]
    command += ["--engine", "recorded", "--recording", str(recording)]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["depth"]["delta1"] == 1
    assert metrics["pose"]["auc3"] == 1
    assert metrics["correspondence"]["epe_px"] < 0.01
    assert metrics["groups"]["yard"]["depth"]["delta1"] == 1
    assert metrics["groups"]["yard"]["pose"]["auc30"] == 1
    for scores in (metrics, metrics["groups"]["yard"]):
        assert {"constant", "row", "constant_velocity", "sift"} <= set(scores["baselines"])
    printed = capsys.readouterr().out
    assert "const. velocity" in printed
    assert "uncertainty of motions: 4 motions" in printed
    assert metrics["consistency"]["nees"]["mean"] < 1e-2
    assert cv2.imread(str(tmp_path / "out" / "pairs.png")) is not None
    assert metrics["objects"]["accuracy"] == metrics["objects"]["success"] == 1
    assert metrics["groups"]["street"]["objects"]["accuracy"] == 1
    assert "behind/front" in printed and "vertical distance" in printed
    assert cv2.imread(str(tmp_path / "out" / "objects.png")) is not None


def test_a_std_scale_is_stored_if_it_helps_on_other_views(checkpoint: Path, tmp_path: Path) -> None:
    """The checkpoint is one whose standard deviations were made ten times too large."""
    folder = tmp_path / "model"
    shutil.copytree(checkpoint, folder)
    profile = read_profile(folder)
    write_profile(folder, replace(profile, std_scale=10.0))
    command = ["evaluate", "--synthetic", "12", "--calibrate", "--model", str(folder)]
    assert main([*command, "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "metrics.json").read_text())["calibration"]
    check = found["check"]
    assert check["stored"]
    assert check["seed"] == 1
    assert check["after"]["deviation"] < check["before"]["deviation"]
    stored = read_profile(folder)
    assert stored == replace(profile, std_scale=pytest.approx(10 * found["scale"], rel=1e-4))
    assert stored.std_scale < 10


def test_a_model_without_a_folder_cannot_be_calibrated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", "--synthetic", "1", "--calibrate", "--model", "owner/name"]
    assert main([*command, "--out", str(tmp_path)]) == 2
    assert "owner/name" in capsys.readouterr().err
