# SPDX-License-Identifier: Apache-2.0
"""Errors in a training set name the file and the line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from recordings import EVERYTHING, drive_of, write_recording

from vlm3_lab.datasets.making import make_dataset
from vlm3_ros.datasets.own import load_dataset
from vlm3_ros.errors import DatasetError


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    write_recording(folder / "bag", drive_of(5))
    make_dataset(folder / "made", [folder / "bag"], EVERYTHING)
    return folder / "made"


@pytest.fixture
def made(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "made"))


def change_line(path: Path, number: int, **changes: object) -> None:
    lines = path.read_text().splitlines()
    lines[number - 1] = json.dumps(json.loads(lines[number - 1]) | changes)
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("frames.jsonl", {"split": "test"}, "'split' is 'test'"),
        ("frames.jsonl", {"image": "/etc/passwd"}, "not a path within the folder"),
        ("frames.jsonl", {"image": "../x.jpg"}, "not a path within the folder"),
        ("frames.jsonl", {"intrinsics": [1, 2, 3]}, "not enough values"),
        ("frames.jsonl", {"intrinsics": [0, 5, 3, 3, 9, 9]}, "focal lengths are 0"),
        ("frames.jsonl", {"depth": [1.0]}, "'depth' must hold a positive number for each of 10"),
        ("frames.jsonl", {"depth": [-1.0] * 10}, "'depth' must hold a positive number"),
        ("frames.jsonl", {"T_world_camera": [[1, 2]]}, "'T_world_camera' is not an array of 4x4"),
        ("frames.jsonl", {"objects": [{"kind": "chair"}]}, "centre"),
        ("pairs.jsonl", {"second": 99}, "there is no frame 99: frames.jsonl has 5"),
        ("pairs.jsonl", {"second": 4}, "frame 4 is of split held_out"),
        ("pairs.jsonl", {"covisibility": None}, "TypeError"),
    ],
)
def test_a_wrong_line_is_named(made: Path, file: str, changes: dict, message: str) -> None:
    change_line(made / file, 2, **changes)
    with pytest.raises(DatasetError, match=message) as caught:
        load_dataset(made)
    assert str(made / f"{file}:2") in str(caught.value)


def test_a_folder_without_a_dataset_is_refused(made: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"there is no dataset\.json"):
        load_dataset(tmp_path)
    (made / "dataset.json").write_text('{"version": 99}')
    with pytest.raises(
        DatasetError, match="the format has version 99; this program reads version 1"
    ):
        load_dataset(made)
    (made / "dataset.json").write_text("{")
    with pytest.raises(DatasetError, match=r"dataset\.json: it cannot be read"):
        load_dataset(made)


@pytest.mark.parametrize("file", ["pairs.jsonl", "frames.jsonl"])
def test_a_missing_file_is_named(made: Path, file: str) -> None:
    (made / file).unlink()
    with pytest.raises(DatasetError, match=file):
        load_dataset(made)


def test_images_that_cannot_be_read_are_named(made: Path) -> None:
    dataset = load_dataset(made)
    first, second, third, fourth = dataset.frames[:4]
    (made / first.image).unlink()
    (made / second.image).write_bytes((made / second.image).read_bytes()[:100])
    (made / third.depth_image).write_bytes((made / third.image).read_bytes())
    (made / fourth.depth_image).write_bytes(b"")
    broken = (first.image, second.image, third.depth_image, fourth.depth_image)
    for index, name in enumerate(broken):
        with pytest.raises(DatasetError, match=name):
            dataset.read(index)
    assert dataset.read(4).image.shape == (144, 192, 3)
