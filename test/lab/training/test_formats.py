# SPDX-License-Identifier: Apache-2.0
"""Ten training steps of every task on data sets of other people's formats."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rgbd_folders import drive_views, write_folder, write_image, write_tum
from wai_folder import write_scene

from vlm3_ros.cli import main
from vlm3_ros.datasets.views import View
from vlm3_ros.geometry.camera import PinholeCamera

pytestmark = pytest.mark.slow

RECIPE = """
shape: {vision_hidden: 32, vision_depth: 2, vision_heads: 2, hidden: 64, layers: 2, heads: 2,
        kv_heads: 1, intermediate: 96, position_grid: 8}
profile: {focal: 80.0, fit: pad, prompts: vlm3-short}
optimiser: {learning_rate: 2.0e-3, batch_size: 2, steps: 10}
dtype: float32
evaluate_every: 10
evaluation_views: 0
data: {questions: 4, workers: 0, tasks: {%s: 1.0}, sources: {own: %s}}
"""


def write_depthlm(path: Path, views: list[View]) -> None:
    """Write ten labelled pixels of each view."""
    lines = []
    for index, view in enumerate(views):
        write_image(path.parent / f"photos/{index}.png", view.image)
        rows, columns = np.random.default_rng(index).integers(0, view.depth.shape, (10, 2)).T
        known = np.isfinite(view.depth[rows, columns])
        camera = view.camera
        line = {
            "image": f"{index}.png",
            "intrinsics": [camera.fx, camera.fy, camera.cx, camera.cy],
            "pixel_coords": np.stack([columns, rows], -1)[known].tolist(),
            "depth": view.depth[rows, columns][known].astype(float).tolist(),
        }
        lines.append(json.dumps(line))
    path.write_text("\n".join(lines) + "\n")


def folder(at: Path, views: list[View]) -> str:
    write_folder(at / "room", views)
    return f"{{folder: {at / 'room'}}}"


def tum(at: Path, views: list[View]) -> str:
    write_tum(at / "room", views)
    return f"{{tum: {at / 'room'}, hfov: 70}}"


def depthlm(at: Path, views: list[View]) -> str:
    (at / "photos").mkdir()
    write_depthlm(at / "room.jsonl", views)
    return f"{{depthlm: {at / 'room.jsonl'}, images: {at / 'photos'}}}"


def wai(at: Path, views: list[View]) -> str:
    write_scene(at / "rooms/one", views, matrix="v0")
    (at / "rooms/one/images/00000001.png").unlink()  # other frames are drawn instead
    return f"{{wai: {at / 'rooms'}}}"


def wai_of_unknown_scale(at: Path, views: list[View]) -> str:
    write_scene(at / "rooms/one", views, scale_type="colmap")
    return f"{{wai: {at / 'rooms'}}}"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("write", "task"),
    [
        (folder, "depth"),
        (folder, "pairs"),
        (tum, "depth"),
        (tum, "pairs"),
        (depthlm, "depth"),
        (wai, "depth"),
        (wai, "pairs"),
        (wai_of_unknown_scale, "pairs"),
    ],
)
def test_ten_steps(write: Callable[[Path, list[View]], str], task: str, tmp_path: Path) -> None:
    source = write(tmp_path, drive_views(6, PinholeCamera(96, 72, 80.0, 82.0, 47.0, 36.5)))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE % (task, source))
    assert main(["train", str(recipe), "--out", str(tmp_path / "out")]) == 0
    log = json.loads((tmp_path / "out/log.json").read_text())
    losses = [entry["loss"] for entry in log if "loss" in entry]
    assert len(losses) >= 1
    assert np.isfinite(losses).all()
    assert (tmp_path / "out/final/model.safetensors").is_file()


def test_labelled_pixels_without_poses_teach_no_pairs(tmp_path: Path, capsys) -> None:
    source = depthlm(tmp_path, drive_views(2, PinholeCamera(96, 72, 80.0, 82.0, 47.0, 36.5)))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE % ("pairs", source))
    assert main(["train", str(recipe), "--out", str(tmp_path / "out")]) == 2
    assert "asks for pairs, but own has no pairs of frames" in capsys.readouterr().err


def test_without_metric_scale_no_depth_is_taught(tmp_path: Path, capsys, caplog) -> None:
    camera = PinholeCamera(96, 72, 80.0, 82.0, 47.0, 36.5)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE % ("depth", wai_of_unknown_scale(tmp_path, drive_views(2, camera))))
    assert main(["train", str(recipe), "--out", str(tmp_path / "out")]) == 2
    assert "asks for depth, but own has no such frames" in capsys.readouterr().err
    assert "source own: scenes without metric scale" in caplog.text
