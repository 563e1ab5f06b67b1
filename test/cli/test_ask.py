# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image

from vlm3_ros.cli import main
from vlm3_ros.cli.ask import answer_lines
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.paths import default_model
from vlm3_ros.tasks.depth import DepthAnswers
from vlm3_ros.tasks.reading import Missing

K = np.array([[130.0, 0, 82], [0, 131, 57], [0, 0, 1]])
D = np.array([-0.3, 0.08, 0.001, -0.002, 0.0])


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 3)).astype(np.uint8)
    path = tmp_path / "photo.jpg"
    Image.fromarray(pixels).resize((160, 120)).save(path)
    return path


@pytest.fixture
def calibration(tmp_path: Path) -> Path:
    """A file in the format of camera_calibration."""

    def matrix(values: np.ndarray) -> dict[str, object]:
        values = np.atleast_2d(values)
        rows, columns = values.shape
        return {"rows": rows, "cols": columns, "data": values.ravel().tolist()}

    content = {
        "image_width": 160,
        "image_height": 120,
        "camera_name": "front",
        "camera_matrix": matrix(K),
        "distortion_model": "plumb_bob",
        "distortion_coefficients": matrix(D),
        "rectification_matrix": matrix(np.eye(3)),
        "projection_matrix": matrix(np.hstack([K, np.zeros((3, 1))])),
    }
    path = tmp_path / "camera.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_each_pixel_gets_a_line_with_the_raw_answer(
    photo: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels = ["--pixel", "10", "20", "--pixel", "100.5", "50"]
    assert main(["ask", str(photo), "--hfov", "60", *pixels, "--model", str(checkpoint)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[0] for line in lines] == ["pixel (10, 20)", "pixel (100.5, 50)"]
    for line in lines:
        match = re.search(r": ([\d.]+) ± [\d.]+ m, point \(.+, ([\d.]+)\) m, answer '(.*)'$", line)
        assert match is not None
        assert match[1] == match[2]  # depth is measured along the camera's axis
        assert re.fullmatch("<think> </think> <answer>[0-9.]+</answer>", match[3])


def test_the_conventions_of_a_chosen_model_stay_on_the_screen(
    photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["ask", str(photo), "--hfov", "60", "--pixel", "10", "20", "--device", "cpu"]
    assert main(command) == 0
    assert "images at a focal length" not in capsys.readouterr().err
    assert main([*command, "--depth-profile", str(default_model("depth"))]) == 0
    told = capsys.readouterr().err
    assert "vlm3-tiny: images at a focal length of 128 px" in told
    assert "by the setting profile" in told


def test_line_shows_depth_spread_point_and_text() -> None:
    camera = PinholeCamera(160, 120, 100.0, 200.0, 80.0, 60.0)
    answers = DepthAnswers(
        pixels=np.array([[130.0, 100.0], [80.0, 60.0], [0.0, 0.0]]),
        depth=np.array([2.0, 3.5, np.nan], np.float32),
        std=np.array([0.25, np.nan, np.nan], np.float32),
        texts=("<answer>1.00</answer>", "<answer>3.5</answer>", "far away"),
        missing=(None, None, Missing("no answer", "far away")),
    )
    assert answer_lines(answers, camera) == [
        "2.00 ± 0.25 m, point (1.00, 0.40, 2.00) m, answer '<answer>1.00</answer>'",
        "3.50 m, point (0.00, 0.00, 3.50) m, answer '<answer>3.5</answer>'",
        "no depth: no answer in the model's text 'far away'",
    ]


def test_grid_writes_a_picture_and_clouds(
    photo: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "deep" / "out"
    command = ["ask", str(photo), "--hfov", "60", "--grid", "4x3", "--out", str(out)]
    assert main([*command, "--model", str(checkpoint)]) == 0
    printed = capsys.readouterr().out
    assert cv2.imread(str(out / "depth.png")) is not None
    assert "12 pixels, 0 without a depth" in printed
    assert b"element vertex 12\n" in (out / "points.ply").read_bytes()
    assert (out / "cloud.ply").stat().st_size > (out / "points.ply").stat().st_size


def test_pixels_refer_to_the_photo_before_rectification(
    photo: Path, calibration: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rectification moves the corner out of the image and keeps the centre in place."""
    corner = np.array([[[1.0, 1.0]]])
    u, v = cv2.undistortPoints(corner, K, D, P=K).ravel()
    assert min(u, v) < -0.5
    command = ["ask", str(photo), "--camera-info", str(calibration), "--model", str(checkpoint)]
    assert main([*command, "--pixel", "1", "1"]) == 2
    assert "pixel (1, 1) lies outside of the rectified 160x120 image" in capsys.readouterr().err
    assert main([*command, "--pixel", "82", "57"]) == 0


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--hfov", "60", "--pixel", "160", "5"], r"pixel (160, 5) lies outside of the 160x120"),
        (["--hfov", "60", "--pixel", "nan", "5"], r"pixel (nan, 5) lies outside"),
        (
            ["--hfov", "180", "--pixel", "1", "5"],
            "field of view of 180 degrees",
        ),
        (["--hfov", "60", "--pixel", "1", "5", "--model", "/no/model"], "/no/model"),
    ],
)
def test_invalid_requests_are_refused_in_one_line(
    photo: Path, arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ask", str(photo), *arguments]) == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert len(error.splitlines()) == 1


def test_calibration_of_another_size_is_refused(
    photo: Path, calibration: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calibration.write_text(calibration.read_text().replace("160", "320"))
    assert main(["ask", str(photo), "--camera-info", str(calibration), "--grid", "4x3"]) == 2
    assert "calibrates images of 320x120, but the image is 160x120" in capsys.readouterr().err


def test_recording_answers_like_the_model_without_torch(
    photo: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording = str(tmp_path / "answers.jsonl")
    pixels = ["--pixel", "10", "20", "--pixel", "100.5", "50", "--pixel", "159", "119"]
    question = ["ask", str(photo), "--hfov", "60", *pixels]
    assert main([*question, "--model", str(checkpoint), "--record-to", recording]) == 0
    live = capsys.readouterr().out
    program = (
        "import sys; from vlm3_ros.cli import main; code = main(sys.argv[1:]); "
        "sys.exit(code or 'torch' in sys.modules)"
    )
    command = [*question, "--engine", "recorded", "--recording", recording]
    ended = subprocess.run(
        [sys.executable, "-c", program, *command], capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == live
    assert len(live.splitlines()) == 3
