# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import cv2
import psutil
import pytest
from drives import record_bag_truth, write_drive
from videos import write_video

from vlm3_ros.cli import main

pytest.importorskip("rclpy")


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("demo") / "drive"
    assert main(["sample-bag", str(path), "--duration", "3", "--frame-rate", "5"]) == 0
    return path


def test_a_bag_goes_through_the_real_nodes_over_dds(
    bag: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The checkpoint learned depth alone."""
    out = tmp_path / "out"
    command = ["demo", "--bag", str(bag), "--out", str(out), "--model", str(checkpoint)]
    assert main(command) == 0, capsys.readouterr().err
    metrics = json.loads((out / "metrics.json").read_text())
    frames = metrics["frames"]
    assert frames["in_bag"] == frames["frames"] == 15
    assert frames["answered"] >= 1
    assert frames["answered"] + frames["failed"] + frames["dropped"]["depth"] == 15
    assert 0 <= metrics["depth"]["delta1"] <= 1
    # Below the horizon there is ground in every frame of a drive.
    assert metrics["depth"]["pixels"] >= 16 * 12 / 2 * frames["answered"]
    latency = metrics["latency"]["depth_ms"]
    assert 0 < latency["p50"] <= latency["p95"]
    assert "did not learn relative pose" in metrics["left_out"]["trajectory"]
    assert cv2.imread(str(out / "overview.png")) is not None
    assert (out / "cloud.ply").read_bytes().startswith(b"ply\n")
    assert (out / "report.html").stat().st_size > 10_000
    assert "latency of a frame" in capsys.readouterr().out


def test_a_video_goes_through_the_nodes_without_truth(
    tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video, out = write_video(tmp_path / "walk.mp4", (192, 144)), tmp_path / "out"
    command = ["demo", "--video", str(video), "--hfov", "75", "--out", str(out)]
    assert main([*command, "--model", str(checkpoint)]) == 0, capsys.readouterr().err
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["frames"]["in_bag"] == 10
    assert metrics["source"]["name"] == "walk.mp4"
    assert metrics["source"]["topics"]["camera_info"] == "--hfov 75"
    assert metrics["frames"]["answered"] >= 1
    assert cv2.imread(str(out / "overview.png")) is not None
    assert (out / "cloud.ply").read_bytes().startswith(b"ply\n")


def test_motion_is_shown_next_to_depth(tmp_path: Path) -> None:
    write_drive(tmp_path / "drive")
    record_bag_truth(tmp_path / "drive", tmp_path / "truth.jsonl")
    command = ["demo", "--bag", str(tmp_path / "drive"), "--out", str(tmp_path / "out")]
    recorded = ["--engine", "recorded", "--recording", str(tmp_path / "truth.jsonl")]
    assert main([*command, *recorded]) == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["depth"]["abs_rel"] < 1e-6
    assert metrics["trajectory"]["ape_rmse_m"] < 1e-6
    assert metrics["occupancy"]["maps"]["model_own_poses"]["real"]["0.25_m"] == 1
    for picture in ("trajectory.png", "occupancy.png"):
        assert cv2.imread(str(tmp_path / "out" / picture)).std() > 10


def test_a_model_that_cannot_be_loaded_ends_the_demo_with_one_line(
    bag: Path, tmp_path: Path
) -> None:
    command = ["demo", "--bag", bag, "--out", tmp_path / "out", "--model", tmp_path / "nowhere"]
    ended = subprocess.run(
        [sys.executable, "-m", "vlm3_ros.cli", *map(str, command)],
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith("vlm3: the depth node has no model:")
    assert str(tmp_path / "nowhere") in line


def test_a_bag_without_depth_is_refused_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty.bag").touch()
    command = ["demo", "--bag", str(tmp_path / "empty.bag"), "--out", str(tmp_path / "out")]
    assert main(command) == 2
    assert "empty.bag: the file is empty" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*.log"))


def test_a_terminated_demo_ends_its_nodes(bag: Path, checkpoint: Path, tmp_path: Path) -> None:
    log = tmp_path / "out" / "perception_node.log"
    command = [sys.executable, "-m", "vlm3_ros.cli", "demo", "--bag", str(bag)]
    command += ["--out", str(tmp_path / "out"), "--model", str(checkpoint)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as demo:
        while not (log.exists() and "ready for images" in log.read_text()):
            assert demo.poll() is None
            time.sleep(0.1)
        children = psutil.Process(demo.pid).children()
        demo.terminate()
        assert "vlm3: interrupted" in demo.communicate()[1]
    assert demo.returncode == 130
    assert children
    assert not any(child.is_running() for child in children)
