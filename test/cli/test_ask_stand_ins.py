# SPDX-License-Identifier: Apache-2.0
"""`vlm3 ask` with stand-ins of the authors' checkpoints."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from stand_ins.words import (
    BOX_A,
    BOX_B,
    CAMERA,
    MATCH_GRID,
    OBJECT_PAIRS,
    PAIR_CAMERA,
    as_the_authors,
    depth_pair,
    grid,
    match_pair,
    object_pair,
)

from vlm3_ros.cli import main
from vlm3_ros.geometry.camera import PinholeCamera

ON_CPU = ["--device", "cpu", "--dtype", "float32", "--offline"]


def photo(folder: Path, camera: PinholeCamera, seed: int) -> str:
    shape = (camera.height, camera.width, 3)
    pixels = np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)
    Image.fromarray(pixels).save(folder / f"{seed}.png")
    return str(folder / f"{seed}.png")


def calibration(folder: Path, camera: PinholeCamera) -> list[str]:
    """Options that name a file in the format of camera_calibration, without distortion."""

    def matrix(values: np.ndarray) -> dict[str, object]:
        rows, columns = values.shape
        return {"rows": rows, "cols": columns, "data": values.ravel().tolist()}

    content = {
        "image_width": camera.width,
        "image_height": camera.height,
        "camera_name": "front",
        "camera_matrix": matrix(camera.K),
        "distortion_model": "plumb_bob",
        "distortion_coefficients": matrix(np.zeros((1, 5))),
        "rectification_matrix": matrix(np.eye(3)),
        "projection_matrix": matrix(np.hstack([camera.K, np.zeros((3, 1))])),
    }
    path = folder / "camera.yaml"
    path.write_text(yaml.safe_dump(content))
    return ["--camera-info", str(path)]


def test_depth(stand_ins, seen, tmp_path, capsys):
    (u, v), *_ = grid(CAMERA, 8, 4)
    asked = ["--pixel", str(u), str(v), *calibration(tmp_path, CAMERA)]
    model = ["--depth-model", str(stand_ins / "VLM3-depth")]
    assert main(["ask", photo(tmp_path, CAMERA, 0), *asked, *model, *ON_CPU]) == 0
    question, answer = depth_pair(*as_the_authors((u, v), CAMERA, 2000))
    printed = capsys.readouterr()
    assert repr(answer) in printed.out
    assert "focal length of 1000 px" in printed.err
    assert seen.sizes == {((384, 320),)}
    assert seen.questions == {question}


def test_motion_and_matches_of_two_models(stand_ins, seen, tmp_path, capsys):
    photos = [photo(tmp_path, PAIR_CAMERA, seed) for seed in (1, 2)]
    pixels = list(grid(PAIR_CAMERA, *MATCH_GRID))[:2]
    hfov = math.degrees(2 * math.atan(64 / 187.5))
    asked = ["--pose", *(part for u, v in pixels for part in ("--match", str(u), str(v)))]
    models = ["--pose-model", str(stand_ins / "VLM3-pose")]
    models += ["--match-model", str(stand_ins / "VLM3-corr")]
    assert main(["ask", *photos, "--hfov", str(hfov), *asked, *models, *ON_CPU]) == 0
    printed = capsys.readouterr()
    assert "'Yaw=-3.9°, Pitch=-0.9°, Roll=+0.6°'" in printed.out
    assert "the rotation angle of 4.0° agrees with yaw, pitch and roll (4.0°)" in printed.out
    assert "the camera moved 0.48 m right, forward" in printed.out
    # (74, 25) and (342, 25) of 1000 are pixels of 128x32 px.
    assert re.findall(r"\(([\d.]+), ([\d.]+)\) in the second photo", printed.out) == [
        ("9.5", "0.8"),
        ("43.8", "0.8"),
    ]
    assert re.search(r"2 models, about .*: VLM3-pose 72 MB, VLM3-corr 72 MB", printed.err)
    assert seen.sizes == {((512, 128), (512, 128)), ((1024, 256), (1024, 256))}
    expected = {match_pair(*as_the_authors(p, PAIR_CAMERA, 1000))[0] for p in pixels}
    assert expected < seen.questions
    assert len(seen.questions) == 4 + 2


def test_objects(stand_ins, seen, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    boxes = [part for box in (BOX_A, BOX_B) for part in ("--box", *map(str, box))]
    asked = [*boxes, "--relation", "small", "--relation", "behind"]
    asked += calibration(tmp_path, CAMERA)
    model = ["--object-model", str(stand_ins / "VLM3-object")]
    assert main(["ask", photo(tmp_path, CAMERA, 0), *asked, *model, *ON_CPU]) == 0
    pairs = [object_pair(OBJECT_PAIRS[index]) for index in (3, 6, *range(8, 16))]
    printed = capsys.readouterr().out
    for _, answer in pairs:
        assert answer in printed
    assert seen.sizes == {((384, 256),)}
    assert seen.questions == {question for question, _ in pairs}


@pytest.mark.parametrize("name", ["VLM3-pose", "VLM3-corr", "VLM3-object"])
def test_depth_of_a_checkpoint_that_did_not_learn_it(stand_ins, tmp_path, capsys, name):
    asked = ["--pixel", "3", "4", "--hfov", "60", "--model", str(stand_ins / name)]
    assert main(["ask", photo(tmp_path, CAMERA, 0), *asked, *ON_CPU]) == 2
    (error,) = capsys.readouterr().err.splitlines()[-1:]
    assert f"{name} did not learn metric depth" in error
    assert "facebook/VLM3-depth" in error
