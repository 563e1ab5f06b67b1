# SPDX-License-Identifier: Apache-2.0
"""SpatialRGPT's training set, and the cameras of images without intrinsics."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from spatialrgpt_files import open_spatial_entries, views_of_objects, write_open_spatial

from vlm3_ros.datasets.opening import SourceOptions, open_source
from vlm3_ros.datasets.photo_cameras import PhotoCameras, read_intrinsics
from vlm3_ros.datasets.spatialrgpt import SpatialRgptFile, read_spatialrgpt
from vlm3_ros.datasets.views import View
from vlm3_ros.errors import DatasetError
from vlm3_ros.geometry.calibration_files import GivenCamera
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.language.regions import mentioned_regions

HFOV = PhotoCameras(GivenCamera(hfov=60.0))


@pytest.fixture(scope="module")
def views() -> list[View]:
    return views_of_objects(2)


@pytest.fixture
def entries(views: list[View]) -> list[dict[str, Any]]:
    return open_spatial_entries(views)


@pytest.fixture
def file(views: list[View], entries: list[dict[str, Any]], tmp_path: Path) -> Path:
    path = tmp_path / "result_10_depth_convs.json"
    write_open_spatial(path, views, entries)
    return path


def test_the_nth_mask_of_an_image_is_its_nth_box(
    file: Path, views: list[View], entries: list[dict[str, Any]]
) -> None:
    source = read_spatialrgpt(file, cameras=HFOV)
    assert len(source.contents) == 2 and source.contents.has_objects.all()
    assert not source.contents.has_depth.any() and not len(source.pairs())
    for index, (view, entry) in enumerate(zip(views, entries, strict=True)):
        read = source.read(index)
        assert read.image.shape == view.image.shape
        assert np.isnan(read.T_world_camera).all() and np.isnan(read.depth).all()
        boxes = [list(box) for one in read.conversations for box in one.question.boxes]
        assert boxes == entry["bbox"]
        assert len(read.conversations) == len(entry["conversations"]) / 2
        for number, one in enumerate(read.conversations):
            asked = entry["conversations"][2 * number]["value"]
            parts = asked.removeprefix("<image>\n").split("<mask> <depth>")
            text = parts[0]
            for region, part in enumerate(parts[1:]):
                text += f"Region [{region}]{part}"
            assert one.question.text == text
            assert one.answer == entry["conversations"][2 * number + 1]["value"]
            assert mentioned_regions(text) == list(range(len(one.question.boxes)))
    assert not source.omissions


def test_masks_of_a_refused_question_still_count(
    file: Path, views: list[View], entries: list[dict[str, Any]]
) -> None:
    entries[0]["bbox"][0] = [50, 50, 3, 3]
    file.write_text(json.dumps(entries))
    source = read_spatialrgpt(file, cameras=HFOV)
    rest = source.read(0).conversations
    first = 1 + ("<mask>" in entries[0]["conversations"][0]["value"].replace("<mask>", "", 1))
    boxes = [list(box) for one in rest for box in one.question.boxes]
    assert boxes == entries[0]["bbox"][first:]
    assert "with x1 <= x2" in str(source.omissions)
    assert source.notes == [f"questions left out: {source.omissions}"]


def test_no_question_is_asked_where_a_box_is_missing(
    file: Path, entries: list[dict[str, Any]]
) -> None:
    """It may be any of them, and then all others would be off by one."""
    del entries[0]["bbox"][-1]
    file.write_text(json.dumps(entries))
    source = read_spatialrgpt(file, cameras=HFOV)
    assert source.read(0).conversations == ()
    assert str(source.omissions).startswith("10 times: the question names more regions than")
    assert len(source.read(1).conversations) == 10


def test_a_rotated_image_is_refused(file: Path, entries: list[dict[str, Any]]) -> None:
    entries[0]["rle"][0]["size"] = entries[0]["rle"][0]["size"][::-1]
    file.write_text(json.dumps(entries))
    with pytest.raises(DatasetError, match=r"entry 1: .* px, and the entry is about"):
        read_spatialrgpt(file, cameras=HFOV).read(0)


def intrinsics_of(views: list[View]) -> str:
    return "".join(
        json.dumps(
            {
                "image": f"{number:016x}.jpg",
                "intrinsics": [
                    *(view.camera.fx, view.camera.fy, view.camera.cx, view.camera.cy),
                    *(view.camera.width, view.camera.height),
                ],
            }
        )
        + "\n"
        for number, view in reversed(list(enumerate(views)))
    )


def test_intrinsics_of_each_image_come_from_lines(file: Path, views: list[View]) -> None:
    lines = file.with_name("intrinsics.jsonl")
    lines.write_text(intrinsics_of(views))
    options = SourceOptions(None, GivenCamera(file=str(lines)))
    source = open_source(f"spatialrgpt:{file}", options)
    assert isinstance(source, SpatialRgptFile)
    for index, view in enumerate(views):
        camera = source.read(index).camera
        assert camera.fx == pytest.approx(view.camera.fx)
        assert camera.cy == pytest.approx(view.camera.cy)
    lines.write_text(intrinsics_of(views[:1]))
    with pytest.raises(DatasetError, match=r"entry 2: .*intrinsics\.jsonl does not name it"):
        open_source(f"spatialrgpt:{file}", options).read(1)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "Expecting property name"),
        ('{"image": "a.jpg"}', "it has no 'intrinsics'"),
        ('{"intrinsics": [1, 1, 1, 1, 2, 2]}', "it has no 'image'"),
        ('{"image": "a.jpg", "intrinsics": [1, 2]}', "intrinsics are not"),
        ('{"image": 3, "intrinsics": [1, 1, 1, 1, 2, 2]}', "has no attribute"),
        ("[]", "indices must be"),
    ],
)
def test_a_broken_line_of_intrinsics_is_named(line: str, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "intrinsics.jsonl"
    path.write_text('{"image": "b.jpg", "intrinsics": [1, 1, 1, 1, 2, 2]}\n' + line + "\n")
    with pytest.raises(DatasetError, match=rf"intrinsics\.jsonl:2: .*{complaint}"):
        read_intrinsics(path)
    path.write_text("\n")
    with pytest.raises(DatasetError, match="no line has intrinsics"):
        read_intrinsics(path)


def test_impossible_cameras_are_refused(tmp_path: Path) -> None:
    image = np.zeros((20, 30, 3), np.uint8)
    lines = tmp_path / "intrinsics.jsonl"
    lines.write_text('{"image": "a.jpg", "intrinsics": [1, 1, 1, 1, 2, 2]}\n')
    cameras = PhotoCameras(GivenCamera(file=str(lines)))
    with pytest.raises(DatasetError, match="its intrinsics are for 2x2 px, the image is 30x20 px"):
        cameras.camera("a.jpg", image)
    with pytest.raises(DatasetError, match="its camera is unknown: give a field of view"):
        PhotoCameras().camera("a.jpg", image)
    with pytest.raises(DatasetError, match=r"a\.jpg: .* which no lens has"):
        PhotoCameras().camera("a.jpg", image, np.diag([1e6, 1e6, 1]))
    calibration = tmp_path / "camera.yaml"
    calibration.write_text(
        "image_width: 30\nimage_height: 20\ncamera_matrix: {rows: 3, cols: 3, "
        "data: [20, 0, 15, 0, 20, 10, 0, 0, 1]}\ndistortion_model: plumb_bob\n"
        "distortion_coefficients: {rows: 1, cols: 5, data: [0.1, 0, 0, 0, 0]}\n"
    )
    with pytest.raises(DatasetError, match=r"camera\.yaml has distortion"):
        PhotoCameras(GivenCamera(file=str(calibration))).camera("a.jpg", image)


def test_what_nothing_is_known_about_is_estimated_once_loaded() -> None:
    loads: list[int] = []
    asked: list[int] = []
    camera = PinholeCamera(30, 20, 25.0, 25.0, 14.5, 9.5)

    def load() -> Any:
        loads.append(1)
        return lambda image: asked.append(1) or camera

    cameras = PhotoCameras(calibrator=load)
    image, K = np.zeros((20, 30, 3), np.uint8), np.diag([7.0, 7.0, 1.0])
    assert cameras.camera("a.jpg", image, K).fx == 7
    assert not loads
    assert cameras.camera("a.jpg", image) == cameras.camera("b.jpg", image) == camera
    assert loads == [1]
    assert asked == [1, 1], "once per image"
    assert cameras.camera("a.jpg", image) == camera and len(asked) == 2


def test_unknown_files_and_cameras_are_told_when_the_file_is_opened(
    file: Path, tmp_path: Path
) -> None:
    with pytest.raises(DatasetError, match=r"entry 1: its camera is unknown"):
        read_spatialrgpt(file)
    with pytest.raises(DatasetError, match="there is no such folder of images"):
        read_spatialrgpt(file, tmp_path / "none", HFOV)
    file.write_text('[{"image": "a.jpg", "conversations": []}]')
    with pytest.raises(DatasetError, match="it is neither of SpatialRGPT-Bench"):
        read_spatialrgpt(file, cameras=HFOV)
