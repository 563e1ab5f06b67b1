# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from truth import TruthEngine, exact_prompts

from vlm3_lab.scenes.sequences import sample_sequence
from vlm3_lab.scenes.view_pairs import true_matches
from vlm3_ros.cli import main
from vlm3_ros.cli.ask_pair import match_lines, pose_text
from vlm3_ros.datasets.views import ViewPair
from vlm3_ros.engines.recorded import RecordingEngine
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.geometry.lens import load_camera_yaml
from vlm3_ros.geometry.motion import motion_from_parts
from vlm3_ros.tasks.correspondence import ask_matches
from vlm3_ros.tasks.pose import RelativePose, ask_pose
from vlm3_ros.tasks.reading import Missing
from vlm3_ros.tasks.two_view import ask_pair

CAMERA = PinholeCamera.from_hfov(160, 120, 60.0)
CALIBRATION = """
image_width: 160
image_height: 120
camera_name: front
camera_matrix: {rows: 3, cols: 3, data: [130, 0, 82, 0, 130, 57, 0, 0, 1]}
distortion_model: plumb_bob
distortion_coefficients: {rows: 1, cols: 5, data: [0, 0, 0, 0, 0]}
rectification_matrix: {rows: 3, cols: 3, data: [1, 0, 0, 0, 1, 0, 0, 0, 1]}
projection_matrix: {rows: 3, cols: 4, data: [130, 0, 90, 0, 0, 130, 50, 0, 0, 0, 1, 0]}
"""
PIXELS = [[80.0, 60.0], [100.0, 90.0]]


def pair_of(camera: PinholeCamera) -> ViewPair:
    rng = np.random.default_rng(3)
    drive = sample_sequence(rng, camera, kind="corridor", duration=1.0)
    return ViewPair(drive.view(0, rng), drive.view(5, rng))


@pytest.fixture
def pair() -> ViewPair:
    return pair_of(CAMERA)


@pytest.fixture
def photos(pair: ViewPair, tmp_path: Path) -> list[str]:
    return saved(pair, tmp_path)


@pytest.fixture
def recording(pair: ViewPair, tmp_path: Path) -> list[str]:
    return recorded(pair, tmp_path)


def saved(pair: ViewPair, folder: Path) -> list[str]:
    paths = [folder / "first.png", folder / "second.png"]
    for path, view in zip(paths, (pair.first, pair.second), strict=True):
        Image.fromarray(view.image).save(path)
    return [str(path) for path in paths]


def recorded(pair: ViewPair, folder: Path) -> list[str]:
    """Return options that replay the ground truth of a pair."""
    file = folder / "truth.jsonl"
    engine = RecordingEngine(TruthEngine([pair.first, pair.second]), file)
    images = (pair.first.image, pair.second.image)
    ask_pair(engine, images, (pair.first.camera, pair.second.camera), PIXELS)
    engine.close()
    return ["--engine", "recorded", "--recording", str(file)]


def test_motion_and_matches_of_two_photos(
    pair: ViewPair,
    photos: list[str],
    recording: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    picture = tmp_path / "deep" / "pair.png"
    asked = ["--pose", "--match", "80", "60", "--match", "100", "90", "--out", str(picture)]
    assert main(["ask", *photos, "--hfov", "60", *asked, *recording]) == 0
    printed = capsys.readouterr().out
    assert [line.split(": ")[0] for line in printed.splitlines()[:3]] == [
        "distance",
        "direction",
        "rotation",
    ]
    numbers = re.search(r"T_cam1_cam2 =\n((?:  .*\n){4})", printed)
    assert numbers is not None
    T = np.array(re.findall(r"-?\d+\.\d*", numbers[1]), float).reshape(4, 4)
    np.testing.assert_allclose(T, pair.T_cam1_cam2, atol=1e-4)
    distance = np.linalg.norm(pair.T_cam1_cam2[:3, 3])
    assert f"the camera moved {distance:.2f} m forward; yaw " in printed
    matched = re.findall(r"pixel \((\d+), (\d+)\): \((.*), (.*)\) in the second photo", printed)
    expected = true_matches(pair.first, pair.second, PIXELS)
    np.testing.assert_allclose(np.array(matched, float), np.hstack([PIXELS, expected]), atol=0.06)
    assert cv2.imread(str(picture)) is not None


def test_motion_and_matches_of_two_models(
    pair: ViewPair, photos: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each has its own recording, focal length or longest side, and knows nothing of the other."""
    images, cameras = (pair.first.image, pair.second.image), (pair.first.camera, pair.second.camera)
    prompts, views = exact_prompts(), [pair.first, pair.second]
    motions = prompts.without("depth", "correspondence", "objects")
    matches = prompts.without("depth", "pose", "objects")
    engine = RecordingEngine(TruthEngine(views, motions, 750.0), tmp_path / "truth-pose.jsonl")
    ask_pose(engine, images, cameras)
    engine.close()
    truth = TruthEngine(views, matches, None, longest_side=1024)
    engine = RecordingEngine(truth, tmp_path / "truth-match.jsonl")
    ask_matches(engine, images, cameras, PIXELS)
    engine.close()
    recording = ["--engine", "recorded", "--recording", str(tmp_path / "truth.jsonl")]
    models = ["--pose-model", "motions", "--match-model", "matches"]
    asked = ["--pose", "--match", "80", "60", "--match", "100", "90"]
    command = ["ask", *photos, "--hfov", "60", *recording]
    assert main([*command, *asked, *models]) == 0
    printed = capsys.readouterr().out
    distance = np.linalg.norm(pair.T_cam1_cam2[:3, 3])
    assert f"the camera moved {distance:.2f} m forward; yaw " in printed
    matched = re.findall(r"\): \((.*), (.*)\) in the second photo", printed)
    expected = true_matches(pair.first, pair.second, PIXELS)
    np.testing.assert_allclose(np.array(matched, float), expected, atol=0.06)
    # Only what is needed is read.
    (tmp_path / "truth-pose.jsonl").rename(tmp_path / "other-pose.jsonl")
    assert main([*command, "--match", "80", "60", *models]) == 0
    (tmp_path / "truth-match.jsonl").rename(tmp_path / "truth-pose.jsonl")
    (tmp_path / "other-pose.jsonl").rename(tmp_path / "truth-match.jsonl")
    capsys.readouterr()
    assert main([*command, *asked, *models]) == 2
    error = capsys.readouterr().err
    assert "pose_model (or model) and match_model seem to be swapped" in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize("asked", [["--pose"], ["--match", "80", "60"]])
def test_pose_or_matches_alone(
    photos: list[str],
    recording: list[str],
    asked: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = ["--out", str(tmp_path / "pair.png")]
    assert main(["ask", *photos, "--hfov", "60", *asked, *recording, *out]) == 0
    printed = capsys.readouterr().out
    assert ("T_cam1_cam2" in printed) == (asked == ["--pose"])
    assert ("in the second photo" in printed) == (asked != ["--pose"])
    assert cv2.imread(str(tmp_path / "pair.png")) is not None


def test_pixels_refer_to_the_photos_before_rectification(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """P shifts the image by (8, -7) px; both pixels of a match are shifted back."""
    calibration = tmp_path / "camera.yaml"
    calibration.write_text(CALIBRATION)
    lens = load_camera_yaml(calibration)
    pair = pair_of(lens.rectified)
    first, second = (
        dataclasses.replace(v, image=lens.rectify(v.image)) for v in (pair.first, pair.second)
    )
    recording = recorded(ViewPair(first, second), tmp_path)
    photos = saved(pair, tmp_path)
    asked = ["--match", "72", "67", "--match", "92", "97"]
    command = ["ask", *photos, "--camera-info", str(calibration), *asked, *recording]
    assert main(command) == 0
    matched = re.findall(r"\): \((.*), (.*)\) in the second photo", capsys.readouterr().out)
    expected = true_matches(first, second, PIXELS) - (8, -7)
    np.testing.assert_allclose(np.array(matched, float), expected, atol=0.06)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["{first}", "--pose"], "--pose and --match need a second photo"),
        (
            ["{first}", "{second}", "--pixel", "1", "2"],
            "depth is asked about one photo: remove {second}",
        ),
        (["{first}"], "ask for depth with --pixel or --grid, about objects"),
        (["{first}", "{second}"], "ask for depth with --pixel or --grid, about objects"),
        (
            ["{first}", "{second}", "--pose", "--grid", "4x3"],
            "ask for depth with --pixel or --grid",
        ),
        (["{first}", "{second}", "--match", "160", "3"], "pixel (160, 3) lies outside of the 160"),
        (["{first}", "{second}", "--pose", "--focal", "64"], "--focal is for depth only"),
        (["{first}", "{second}", "--pose", "--out", "folder"], "name a .png"),
        (["{first}", "nowhere.png", "--pose"], "nowhere.png: there is no such file"),
    ],
)
def test_invalid_requests_are_refused_in_one_line(
    photos: list[str], arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = photos
    command = [argument.format(first=first, second=second) for argument in arguments]
    assert main(["ask", *command, "--hfov", "60"]) == 2
    error = capsys.readouterr().err
    assert complaint.format(second=second) in error
    assert len(error.splitlines()) == 1


def test_depth_only_checkpoint_is_refused(
    photos: list[str], checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ask", *photos, "--hfov", "60", "--pose", "--model", str(checkpoint)]) == 2
    assert "did not learn relative pose" in capsys.readouterr().err


def test_a_profile_that_describes_no_asked_model_is_refused(
    photos: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A model of one task does not inherit it."""
    options = ["--pose-model", "VLM3-pose", "--profile", "vlm3-pose"]
    assert main(["ask", *photos, "--hfov", "60", "--pose", *options]) == 2
    message = capsys.readouterr().err
    assert "--profile vlm3-pose describes --model, which is not asked here" in message
    assert "set --pose-profile to what VLM3-pose was trained for" in message


def test_unreadable_answers_are_shown_with_the_reason() -> None:
    failure = Missing("no answer", "well")
    pose = RelativePose(np.full((4, 4), np.nan), np.nan, ("0.5", "well", "none"), (failure,))
    assert pose_text(pose).splitlines() == [
        "distance: '0.5'",
        "direction: 'well'",
        "rotation: 'none'",
        "no motion: no answer in the model's text 'well'",
    ]
    missing = (Missing("outside", "(9999, 0)"),)
    lines = match_lines([[1.0, 2.0]], np.full((1, 2), np.nan), ("(9999, 0)",), missing)
    assert lines == ["pixel (1, 2): no match: outside in the model's text '(9999, 0)'"]


@pytest.mark.parametrize(
    ("angle_deg", "line"),
    [
        (10.2, "the rotation angle of 10.2° agrees with yaw, pitch and roll (10.0°)"),
        (
            30.0,
            "doubtful: the answered rotation angle of 30.0 degrees contradicts yaw, pitch and "
            "roll, whose angle is 10.0 degrees",
        ),
        (np.nan, "not read: no answer in the model's text 'large'"),
    ],
)
def test_the_rotation_angle_is_shown_and_compared(angle_deg: float, line: str) -> None:
    T = motion_from_parts(0.5, (0.6, 0, 0.8), (10, 0, 0))
    failures = () if np.isfinite(angle_deg) else (Missing("no answer", "large"),)
    pose = RelativePose(T, np.nan, ("a", "b", "c", "large"), failures, angle_deg, 10.0)
    assert pose_text(pose).splitlines()[3:5] == ["angle: 'large'", line]
    assert "the camera moved 0.50 m right, forward" in pose_text(pose)


def test_spread_of_the_distance_is_shown_if_known() -> None:
    T = motion_from_parts(0.5, (0.6, 0, 0.8), (10, 0, 0))
    text = pose_text(RelativePose(T, 0.04, ("a", "b", "c"), ()))
    assert (
        "moved 0.50 m right, forward; yaw 10.0°, pitch 0.0°, roll 0.0°, distance ± 0.04 m" in text
    )
    assert "second camera at (0.300, 0.000, 0.400) m" in text
