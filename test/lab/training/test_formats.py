# SPDX-License-Identifier: Apache-2.0
"""Ten training steps of every task on data sets of other people's formats."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from rgbd_folders import drive_views, write_folder, write_image, write_tum
from spatialrgpt_files import open_spatial_entries, views_of_objects, write_open_spatial
from wai_folder import write_scene

from vlm3_ros.cli import main
from vlm3_ros.datasets.views import View
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.paths import share_folder

pytestmark = pytest.mark.slow

SMALL = PinholeCamera(96, 72, 80.0, 82.0, 47.0, 36.5)

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


def write_depthlm(path: Path, views: list[View], images: Path) -> None:
    """Write ten labelled pixels of each view, and their images to a folder."""
    images.mkdir(parents=True, exist_ok=True)
    lines = []
    for index, view in enumerate(views):
        write_image(images / f"{index}.png", view.image)
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
    write_depthlm(at / "room.jsonl", views, at / "photos")
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
    source = write(tmp_path, drive_views(6, SMALL))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE % (task, source))
    assert main(["train", str(recipe), "--out", str(tmp_path / "out")]) == 0
    log = json.loads((tmp_path / "out/log.json").read_text())
    losses = [entry["loss"] for entry in log if "loss" in entry]
    assert len(losses) >= 1
    assert np.isfinite(losses).all()
    assert (tmp_path / "out/final/model.safetensors").is_file()


def test_labelled_pixels_without_poses_teach_no_pairs(tmp_path: Path, capsys) -> None:
    source = depthlm(tmp_path, drive_views(2, SMALL))
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


def write_named(source: dict, views: list[View]) -> None:
    """Write a miniature of a source that a recipe names, where it is named."""
    if path := source.get("wai"):
        write_scene(Path(path) / "one", views)
    elif path := source.get("depthlm"):
        write_depthlm(Path(path), views, Path(path).parent)
    else:
        seen = views_of_objects(2)
        entries = open_spatial_entries(seen)
        images = Path(source["images"])
        images.mkdir(parents=True)
        write_open_spatial(images / "set.json", seen, entries)
        (images / "set.json").replace(source["spatialrgpt"])
        lines = [
            {
                "image": f"{number:016x}.jpg",
                "intrinsics": [
                    *(view.camera.fx, view.camera.fy, view.camera.cx, view.camera.cy),
                    *(view.camera.width, view.camera.height),
                ],
            }
            for number, view in enumerate(seen)
        ]
        Path(source["camera"]).write_text("\n".join(map(json.dumps, lines)))


@pytest.mark.parametrize("name", ["depth", "pose", "correspondence", "objects"])
def test_the_paper_s_recipes_start_on_miniatures_of_all_their_sources(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    caplog.set_level("INFO")
    recipe = yaml.safe_load((share_folder() / f"config/training/paper_{name}.yaml").read_text())
    small = yaml.safe_load(RECIPE % ("depth", "{}"))
    views = drive_views(4, SMALL)
    for source in recipe["data"]["sources"].values():
        write_named(source, views)
    recipe["data"]["workers"] = 0
    recipe["optimiser"] |= {"batch_size": 1, "accumulate": 1, "steps": 1}
    recipe |= {key: small[key] for key in ("shape", "dtype", "evaluate_every", "evaluation_views")}
    Path("recipe.yaml").write_text(yaml.safe_dump(recipe | {"model": ""}))
    assert main(["train", "recipe.yaml", "--out", "out"]) == 0
    (drawn,) = {text for text in caplog.messages if text.startswith("data: ")}
    assert all(f"{source} " in drawn for source in recipe["data"]["sources"])
    assert "has none" not in drawn
    assert Path("out/final/model.safetensors").is_file()
