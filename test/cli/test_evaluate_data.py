# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from dataset_folder import write_dataset
from PIL import Image
from rgbd_folders import drive_views, write_tum
from truth import TruthEngine, exact_prompts, for_all_tasks

from vlm3_lab.scenes import sample_view
from vlm3_ros.cli import main
from vlm3_ros.datasets.opening import SourceOptions, open_source
from vlm3_ros.engines.base import Engine
from vlm3_ros.engines.recorded import RecordingEngine
from vlm3_ros.evaluation.dataset.evaluate import data_tasks, evaluate_data
from vlm3_ros.evaluation.dataset.settings import DataSettings
from vlm3_ros.geometry.camera import PinholeCamera


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


def test_a_broken_first_line_is_named_before_a_model_is_loaded(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data.write_text('{"image": "1.png"}\n' + data.read_text())
    command = ["evaluate", str(data), "--out", str(tmp_path / "out"), "--model", "/no/model"]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert "data.jsonl:1: missing depth, intrinsics, pixel_coords" in error
    assert len(error.splitlines()) == 1


def test_other_broken_lines_and_missing_images_are_skipped_and_named(
    data: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = {**json.loads(data.read_text().splitlines()[0]), "image": "gone.png"}
    data.write_text(data.read_text() + '{"image": "1.png"}\n' + json.dumps(gone))
    command = ["evaluate", str(data), "--out", str(tmp_path / "out"), "--model", str(checkpoint)]
    assert main(command) == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["depth"]["images"] == metrics["frames"]["used"] == 2
    skipped = list(metrics["frames"]["skipped"].values())
    assert "data.jsonl:3: missing depth, intrinsics, pixel_coords" in skipped[0]
    assert "gone.png: there is no such image" in skipped[1]
    assert "Skipped: 2 frames or pairs." in capsys.readouterr().out


def test_a_folder_that_cannot_be_made_is_named_before_a_model_is_loaded(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    out = str(tmp_path / "file" / "out")
    assert main(["evaluate", str(data), "--out", out, "--model", "/no/model"]) == 2
    assert out in capsys.readouterr().err


TUM = "rgbd_dataset_freiburg1_desk"


@pytest.fixture(scope="module")
def tum(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tum") / TUM
    camera = PinholeCamera(640, 480, 517.306408, 516.469215, 318.643040, 255.313989)
    write_tum(folder, drive_views(3, camera))
    return folder


def test_true_answers_about_a_sequence_have_no_error(
    tum: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From files in TUM's layout to the report."""
    source = open_source(f"tum:{tum}", SourceOptions())
    truth = TruthEngine([source.read(index) for index in range(3)])
    recording = RecordingEngine(truth, tmp_path / "truth.jsonl")
    engines: dict[str, Engine] = for_all_tasks(recording)
    names = dict.fromkeys(("depth", "pose", "correspondence"), "truth")
    settings = DataSettings(frames=2, pixels=4, matches=3, seed=5)
    evaluate_data(engines, names, data_tasks(source), settings, _no_bar)
    recording.close()
    command = ["evaluate", f"tum:{tum}", "--frames", "2", "--pixels", "4", "--matches", "3"]
    command += ["--seed", "5", "--published", "--out", str(tmp_path / "out")]
    command += ["--engine", "recorded", "--recording", str(tmp_path / "truth.jsonl")]
    assert main(command) == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["source"] == {"kind": "tum", "name": TUM, "seed": 5}
    assert (metrics["depth"]["delta1"], metrics["depth"]["pixels"]) == (1, 8)
    assert (metrics["pose"]["auc3"], metrics["pose"]["pairs"]) == (1, 2)
    assert metrics["correspondence"]["epe_px"] < 0.1
    assert metrics["correspondence"]["matches"] == 6
    printed = capsys.readouterr().out
    assert f"truth, recorded in truth.jsonl on {TUM}" in printed
    assert "published, pose: AUC@30° in %" in printed
    report = (tmp_path / "out" / "report.html").read_text()
    assert report.count("<img ") == 2
    for picture in ("views.png", "pairs.png"):
        assert cv2.imread(str(tmp_path / "out" / picture)) is not None


def _no_bar(name: str) -> Any:
    return nullcontext(lambda done, total: None)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["tun:{tum}"], "tun:{tum}: expected FORMAT:PATH, where FORMAT is one of"),
        (["tun:{tum}"], "; did you mean tum:{tum}?"),
        (["wia:DIR"], "wia:DIR: expected FORMAT:PATH"),
        (
            ["tum:{tum}", "--images", "."],
            "tum takes no folder of images (images): they are for",
        ),
        (["tum:{tum}", "--rate", "2"], "--rate is for bags, not for data sets"),
        (["tum:{tum}", "--calibrate"], "--calibrate is for procedural scenes"),
        (["tum:{tum}", "--rerun", "a.rrd"], "--rerun is for procedural scenes"),
        (["tum:none"], "none"),
        (["{tum}.mcap", "--task", "depth"], "--task is for data sets, not for bags"),
        (["{tum}.mcap", "--pixels", "3"], "--pixels is for procedural scenes (--synthetic) and d"),
        (["--synthetic", "1", "--published"], "--published is for data sets, not for procedural"),
        (
            ["tum:{tum}", "--pairs", "p.json", "--covisibility", "0.3"],
            "--pairs and --covisibility both choose pairs",
        ),
        (["tum:{tum}", "--pairs", "p.json", "--task", "depth"], "--pairs is for --task pose and"),
        (["tum:{tum}", "--pairs", "none.json"], "none.json: it cannot be read"),
        (["tum:{tum}", "--task", "objects"], "there are no questions about objects"),
        (["tum:{tum}", "--task", "pose", "--covisibility", "1"], "no pair of frames could be used"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    tum: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    complaint: str,
) -> None:
    given = [argument.format(tum=tum) for argument in arguments]
    recording = tmp_path / "none.jsonl"
    RecordingEngine(TruthEngine([]), recording).close()
    command = ["evaluate", *given, "--out", str(tmp_path / "out")]
    assert main([*command, "--engine", "recorded", "--recording", str(recording)]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert complaint.format(tum=tum) in error
    assert error.startswith("vlm3: ")


def test_a_wanted_task_must_have_been_learned(
    tum: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording = tmp_path / "depth.jsonl"
    engine = TruthEngine([], exact_prompts().without("pose", "correspondence"))
    RecordingEngine(engine, recording).close()
    command = ["evaluate", f"tum:{tum}", "--task", "pose", "--out", str(tmp_path / "out")]
    assert main([*command, "--engine", "recorded", "--recording", str(recording)]) == 2
    assert "did not learn" in capsys.readouterr().err


def test_a_folder_of_vlm3_dataset_is_known_by_its_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    views = [sample_view(np.random.default_rng(index), "room") for index in range(2)]
    folder = tmp_path / "drives"
    write_dataset(folder, views, has_poses=False)
    (folder / "images" / "1.jpg").write_bytes(b"")
    (folder / "images" / "0.jpg").unlink()
    recording = tmp_path / "none.jsonl"
    RecordingEngine(TruthEngine([]), recording).close()
    command = ["evaluate", str(folder), "--out", str(tmp_path / "out")]
    assert main([*command, "--engine", "recorded", "--recording", str(recording)]) == 2
    error = capsys.readouterr().err
    assert f"{folder}: no frame with depth could be used: {folder}/images/0.jpg: there is no" in (
        error
    )
