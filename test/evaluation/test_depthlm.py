# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from truth import TruthEngine

from vlm3_lab.scenes import sample_view
from vlm3_ros.datasets.depthlm import DepthLmFile, read_depthlm
from vlm3_ros.datasets.views import View
from vlm3_ros.engines.base import Engine
from vlm3_ros.errors import DatasetError
from vlm3_ros.evaluation.dataset.depth import evaluate_depth
from vlm3_ros.evaluation.dataset.reading import FrameReader
from vlm3_ros.evaluation.dataset.settings import DataSettings
from vlm3_ros.evaluation.scores.base import Progress, no_progress
from vlm3_ros.evaluation.scores.depth import DepthScores

COUNT, PIXELS = 3, 12


@pytest.fixture(scope="module")
def views() -> list[View]:
    rng = np.random.default_rng(8)
    return [sample_view(rng, "room") for _ in range(COUNT)]


def entry(view: View, name: str) -> dict[str, Any]:
    """A line as DepthLM's tools write them."""
    camera = view.camera
    known = np.argwhere(np.isfinite(view.depth))
    chosen = known[np.random.default_rng(0).permutation(len(known))[:PIXELS]]
    return {
        "image": f"rgb/{name}.png",
        "intrinsics": [camera.fx, camera.fy, camera.cx, camera.cy, camera.width, camera.height],
        "pixel_coords": chosen[:, ::-1].tolist(),
        "depth": view.depth[chosen[:, 0], chosen[:, 1]].astype(float).tolist(),
    }


def write(path: Path, views: list[View], **changed: Any) -> Path:
    """A data set of views with a changed last line."""
    (path / "rgb").mkdir()
    entries = []
    for index, view in enumerate(views):
        Image.fromarray(view.image).save(path / "rgb" / f"{index}.png")
        entries.append(entry(view, str(index)))
    entries[-1].update(changed)
    file = path / "data.jsonl"
    file.write_text("\n".join(map(json.dumps, entries)) + "\n")
    return file


def evaluate_dataset(
    engine: Engine, dataset: DepthLmFile, progress: Progress = no_progress
) -> DepthScores:
    usable = dataset.contents.has_depth
    reader = FrameReader(dataset)
    return evaluate_depth(engine, reader, usable, DataSettings(), progress).depth.overall


def test_true_answers_have_no_error(views: list[View], tmp_path: Path) -> None:
    dataset = read_depthlm(write(tmp_path, views))
    done: list[tuple[int, int]] = []
    scores = evaluate_dataset(TruthEngine(views), dataset, lambda *step: done.append(step))
    assert scores.model.delta1 == 1
    assert scores.model.abs_rel < 1e-6
    assert (scores.model.images, scores.model.pixels) == (COUNT, COUNT * PIXELS)
    assert scores.model.unanswered == 0
    assert scores.constant.metrics.delta1 < 1
    assert scores.constant.metrics.delta1 <= scores.row.metrics.delta1 < 1
    assert done == [(1, 3), (2, 3), (3, 3)]


def test_unanswered_pixels_are_wrong(views: list[View], tmp_path: Path) -> None:
    """The engine does not know the depths behind a curtain."""
    dataset = read_depthlm(write(tmp_path, views))
    far = np.median(np.concatenate([dataset.line(index).depth for index in range(COUNT)]))
    blind = [
        View(v.image, np.where(v.depth < far, v.depth, np.inf), v.camera, v.T_world_camera, "", ())
        for v in views
    ]
    model = evaluate_dataset(TruthEngine(blind), dataset).model
    assert model.unanswered == COUNT * PIXELS / 2
    assert model.delta1 == 0.5


def test_missing_pixels_and_focal_lengths_of_zero_are_understood(
    views: list[View], tmp_path: Path
) -> None:
    camera = views[-1].camera
    file = write(
        tmp_path,
        views,
        intrinsics=[0.0, camera.fy, camera.cx, camera.cy],
        pixel_coords=[[-1, -1], [3, 4]],
        depth=[0.0, 2.5],
    )
    last = read_depthlm(file).line(COUNT - 1)
    assert last.intrinsics == (camera.fy, camera.fy, camera.cx, camera.cy)
    assert last.pixels.tolist() == [[3, 4]]
    assert last.depth.tolist() == [2.5]


def test_images_can_be_in_another_folder(views: list[View], tmp_path: Path) -> None:
    file = write(tmp_path, views, image="/rgb/0.png")
    moved = tmp_path / "elsewhere" / "data.jsonl"
    moved.parent.mkdir()
    file.rename(moved)
    with pytest.raises(DatasetError, match="no such image"):
        read_depthlm(moved).read(0)
    last = read_depthlm(moved, tmp_path).read(COUNT - 1)
    np.testing.assert_array_equal(last.image, views[0].image)


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"image": "rgb/none.png"}, "there is no such image"),
        ({"image": 3}, "image is not a string"),
        ({"intrinsics": [100.0, 100.0]}, "intrinsics are not"),
        ({"intrinsics": [float("nan"), 1.0, 1.0, 1.0]}, "intrinsics are not"),
        ({"intrinsics": "a lot"}, "could not convert"),
        ({"pixel_coords": [[1, 2, 3]]}, "cannot reshape"),
        ({"depth": [1.0]}, f"1 depths for {PIXELS} pixels"),
        ({"pixel_coords": [[1, 2]], "depth": [0.0]}, "not finite and positive"),
        ({"pixel_coords": [[9999, 2]], "depth": [1.0]}, r"pixel \[9999, 2\] lies outside"),
        ({"depth": None}, "depths for"),
    ],
)
def test_a_broken_line_is_named(
    views: list[View], tmp_path: Path, changed: dict[str, Any], complaint: str
) -> None:
    file = write(tmp_path, views, **changed)
    with pytest.raises(DatasetError, match=complaint) as raised:
        read_depthlm(file).read(COUNT - 1)
    assert str(raised.value).startswith(f"{file}:{COUNT}: ")


def test_lines_that_are_no_json_object_are_named(tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    for content, complaint in (
        ("\n\n{half", r":3: Expecting"),
        ("[]", r":1: it is not a JSON object"),
        ('{"image": "a.png"}', r":1: missing depth, intrinsics, pixel_coords"),
        ("\n", "it holds no JSON object"),
    ):
        file.write_text(content)
        with pytest.raises(DatasetError, match=complaint):
            read_depthlm(file)
    with pytest.raises(DatasetError, match="cannot be read"):
        read_depthlm(tmp_path / "nowhere.jsonl")


def test_an_image_that_does_not_fit_its_line_is_named(views: list[View], tmp_path: Path) -> None:
    file = write(tmp_path, views[:1])
    dataset = read_depthlm(file)
    Image.fromarray(views[0].image[:2, :2]).save(tmp_path / "rgb" / "0.png")
    with pytest.raises(DatasetError, match=r"data.jsonl:1: .*lies outside of 2x2 px"):
        evaluate_dataset(TruthEngine(views), dataset)
    (tmp_path / "rgb" / "0.png").write_bytes(b"no picture")
    with pytest.raises(DatasetError, match=r"data.jsonl:1: .*0.png: the image cannot be read"):
        evaluate_dataset(TruthEngine(views), dataset)
    tiny = write_again(file, intrinsics=[1e-3, 1e-3, 10.0, 10.0])
    Image.fromarray(views[0].image).save(tmp_path / "rgb" / "0.png")
    with pytest.raises(DatasetError, match=r"data.jsonl:1: .*which no lens has"):
        evaluate_dataset(TruthEngine(views), read_depthlm(tiny))


def write_again(file: Path, **changed: Any) -> Path:
    line = json.loads(file.read_text())
    file.write_text(json.dumps({**line, **changed}))
    return file
