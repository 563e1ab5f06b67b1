# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from drives import record_bag_truth, write_drive
from videos import write_video

from vlm3_ros.bags.writing import write_bag
from vlm3_ros.cli import main
from vlm3_ros.evaluation.metrics.trajectories import read_tum
from vlm3_ros.messages.classes import ROSBAGS
from vlm3_ros.messages.images import image_message
from vlm3_ros.paths import default_model

FRAMES = 6

ROS = ("rclpy", "sensor_msgs", "geometry_msgs", "nav_msgs", "std_msgs", "builtin_interfaces")


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("drive") / "drive"
    write_drive(path)
    return path


@pytest.fixture(scope="module")
def recorded(drive: Path) -> list[str]:
    """Options that choose an engine with true answers about the drive."""
    file = drive.with_name("truth.jsonl")
    record_bag_truth(drive, file)
    return ["--engine", "recorded", "--recording", str(file)]


def assert_without_error(metrics: dict) -> None:
    assert metrics["depth"]["delta1"] == 1
    assert metrics["depth"]["abs_rel"] < 1e-6
    assert metrics["odometry"]["auc3"] == 1
    assert metrics["odometry"]["rotation_deg"]["median"] < 1e-5
    assert metrics["odometry"]["distance_error_m"]["median"] < 1e-6
    assert metrics["trajectory"]["ape_rmse_m"] < 1e-6
    assert metrics["trajectory"]["rpe_rmse_m"] < 1e-6
    assert metrics["trajectory"]["rpe_rotation_rmse_deg"] < 1e-5


def test_a_bag_is_evaluated_without_ros(drive: Path, recorded: list[str], tmp_path: Path) -> None:
    """With None in sys.modules, Python refuses to import a module."""
    blocked = f"import sys; sys.modules.update(dict.fromkeys({ROS!r}))"
    command = ["evaluate", str(drive), *recorded, "--out", str(tmp_path / "out")]
    ended = subprocess.run(
        [sys.executable, "-c", f"{blocked}; from vlm3_ros.cli import main; main({command!r})"],
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert_without_error(metrics)
    assert metrics["source"]["mode"] == "offline"
    assert metrics["pose"]["auc30"] == metrics["pose"]["auc3"] == 1
    assert metrics["pose"]["direction_deg"]["median"] < 1e-4
    assert metrics["correspondence"]["epe_px"] < 1e-3
    assert metrics["latency"]["pose_ms"]["p95"] > 0
    assert metrics["left_out"] == {}
    assert metrics["frames"]["odometry_steps"] == {"first": 1, "accepted": FRAMES - 1}
    for title in (
        "depth: ",
        "relative pose",
        "odometry",
        "trajectory",
        "latency",
        "map from above",
    ):
        assert title in ended.stdout
    assert len(read_tum(tmp_path / "out" / "estimate.tum").poses) == FRAMES


def test_the_report_is_one_file_with_real_pictures(
    drive: Path, recorded: list[str], tmp_path: Path
) -> None:
    assert main(["evaluate", str(drive), *recorded, "--out", str(tmp_path)]) == 0
    page = (tmp_path / "report.html").read_text()
    assert not re.search(r'(?:src|href)=(?!"data:)', page)
    assert "http" not in re.sub(r'"data:[^"]*"', "", page)
    pictures = re.findall(r'src="data:image/(png|svg\+xml);base64,([^"]+)"', page)
    assert [kind for kind, _ in pictures] == ["png", *["svg+xml"] * 4]
    for kind, text in pictures:
        content = base64.b64decode(text)
        if kind == "png":
            drawn = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
            assert drawn.std() > 10
        else:
            assert ElementTree.fromstring(content).tag.endswith("svg")
    for title in (
        "Trajectory",
        "Map from above",
        "Errors over time",
        "Latency",
        "Depth and its errors",
    ):
        assert f"<h2>{title}</h2>" in page
    assert "<td>identity</td>" in page


def test_nodes_in_real_time_are_equally_exact(
    drive: Path, recorded: list[str], tmp_path: Path
) -> None:
    pytest.importorskip("rclpy")
    assert main(["evaluate", str(drive), *recorded, "--online", "--out", str(tmp_path)]) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["source"]["mode"] == "online"
    assert_without_error(metrics)
    frames = metrics["frames"]
    assert frames["in_bag"] == FRAMES
    assert 2 <= frames["with_pose"] == metrics["trajectory"]["poses"]
    assert frames["dropped"]["pose"] == FRAMES - frames["with_pose"] - frames["pose_refused"]
    assert 0 <= frames["dropped"]["depth"] < FRAMES
    steps = frames["odometry_steps"]
    assert steps["first"] == 1
    assert sum(steps.values()) == frames["with_pose"] + frames["pose_refused"]
    assert set(metrics["left_out"]) == {"pose", "correspondence"}
    assert (tmp_path / "perception_node.log").stat().st_size > 0


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "takes a bag"),
        (["{drive}", "--synthetic", "3"], "takes a bag"),
        (["{drive}", "--online", "--rate", "2"], "without --rate"),
        (["{drive}", "--calibrate"], "--calibrate is for procedural scenes (--synthetic), not for"),
        (["{drive}", "--matches", "4"], "--matches is for procedural scenes"),
        (["--synthetic", "1", "--depth-topic", "/depth"], "--depth-topic is for bags, not for"),
        (["data.jsonl", "--online"], "--online is for bags, not for data sets"),
        (["{drive}", "--gt", "/nowhere"], "no topic '/nowhere'; the bag has"),
        (["{drive}", "--gt", "map"], "'map' is neither a topic nor a TF frame"),
        (["{drive}", "--depth-topic", "/nowhere"], "no topic '/nowhere'"),
        (["missing.mcap"], "there is no such bag"),
    ],
)
def test_impossible_requests_are_refused_with_a_reason(
    drive: Path,
    recorded: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    complaint: str,
) -> None:
    given = [argument.format(drive=drive) for argument in arguments]
    assert main(["evaluate", *given, *recorded, "--out", str(tmp_path / "out")]) == 2
    assert complaint in capsys.readouterr().err


def test_a_model_that_was_chosen_for_a_task_must_have_learned_it(
    drive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = ["--pose-model", str(default_model("depth"))]
    assert main(["evaluate", str(drive), "--out", str(tmp_path), *chosen]) == 2
    assert "vlm3-tiny did not learn relative pose" in capsys.readouterr().err
    assert not (tmp_path / "metrics.json").exists()


def test_a_video_is_a_recording_without_truth(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video, out = write_video(tmp_path / "walk.mp4", (192, 144)), tmp_path / "out"
    command = ["evaluate", str(video), "--out", str(out), "--model", str(checkpoint)]
    assert main([*command, "--rate", "3"]) == 2
    assert "walk.mp4: a video has no calibration: give --hfov" in capsys.readouterr().err
    assert main([*command, "--hfov", "75", "--gt", "/odom"]) == 2
    assert "--gt is for bags, not for a video" in capsys.readouterr().err
    assert main([*command, "--hfov", "75", "--rate", "3"]) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["frames"]["in_bag"] == 10
    assert metrics["frames"]["answered"] == 3
    assert "depth" not in metrics
    assert metrics["left_out"]["depth"].endswith("walk.mp4: the bag has no depth images")
    assert cv2.imread(str(out / "overview.png")) is not None
    assert (out / "cloud.ply").read_bytes().startswith(b"ply\n")


def test_a_given_camera_serves_a_bag_without_camera_info(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with write_bag(tmp_path / "bag") as writer:
        for stamp in (1, 2):
            header = ROSBAGS.header(stamp * 10**9, "camera")
            image = np.full((144, 192, 3), 80 * stamp, np.uint8)
            writer.write("/image", image_message(header, image), stamp * 10**9)
    command = ["evaluate", str(tmp_path / "bag"), "--out", str(tmp_path / "out")]
    command += ["--model", str(checkpoint)]
    assert main(command) == 2
    assert "give the calibration (--camera-info FILE) or the field of" in capsys.readouterr().err
    assert main([*command, "--hfov", "75"]) == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["frames"]["answered"] == 2
    capsys.readouterr()
    (tmp_path / "kalibr.txt").write_text("fx: 100\n")
    assert main([*command, "--camera-info", str(tmp_path / "kalibr.txt")]) == 2
    error = capsys.readouterr().err
    assert "kalibr.txt: a file with fx is not read; read are" in error
    assert len(error.splitlines()) == 1
