# SPDX-License-Identifier: Apache-2.0
"""Plain folders and TUM sequences give the views that were written; what is wrong is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from rgbd_folders import drive_views, write_folder, write_tum

from vlm3_ros.datasets.folder import read_folder
from vlm3_ros.datasets.rgbd import RgbdSource
from vlm3_ros.datasets.tum import read_tum
from vlm3_ros.datasets.views import View, ViewPair
from vlm3_ros.errors import DatasetError
from vlm3_ros.geometry.calibration_files import GivenCamera
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.geometry.lens import lens_from_calibration

SMALL = PinholeCamera(96, 72, 80.0, 82.0, 47.0, 36.5)
FR3 = PinholeCamera(640, 480, 535.4, 539.2, 320.1, 247.6)


@pytest.fixture(scope="module")
def views() -> list[View]:
    return drive_views(5, SMALL)


@pytest.fixture
def folder(views: list[View], tmp_path: Path) -> Path:
    write_folder(tmp_path / "room", views)
    return tmp_path / "room"


@pytest.fixture(scope="module")
def sequence(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[View]]:
    path = tmp_path_factory.mktemp("tum") / "rgbd_dataset_freiburg3_room"
    views = drive_views(3, FR3)
    write_tum(path, views)
    return path, views


def assert_same(source: RgbdSource, views: list[View], metres: float) -> None:
    assert len(source.contents) == len(views)
    assert source.contents.has_depth.all()
    assert source.contents.has_pose.all()
    for index, view in enumerate(views):
        found = source.read(index)
        np.testing.assert_array_equal(found.image, view.image)
        assert found.camera == view.camera
        assert found.T_world_camera == pytest.approx(view.T_world_camera, abs=1e-6)
        known = np.isfinite(found.depth)
        assert known.mean() > 0.9
        np.testing.assert_allclose(found.depth[known], view.depth[known], atol=metres)
        assert found.is_metric


@pytest.mark.parametrize("as_matrix", [False, True])
def test_a_folder_gives_the_views_written(views: list[View], tmp_path: Path, as_matrix: bool):
    write_folder(tmp_path / "room", views, as_matrix)
    source = read_folder(tmp_path / "room")
    assert_same(source, views, 0.51e-3)
    assert {source.read(index).kind for index in range(5)} == {"room"}
    assert source.notes == []


def test_a_folder_of_folders_pairs_frames_of_one_scene_only(views: list[View], tmp_path: Path):
    for name in ("a", "b"):
        write_folder(tmp_path / name, views)
    source = read_folder(tmp_path)
    assert [source.read(index).kind for index in range(10)] == ["a"] * 5 + ["b"] * 5
    pairs, rng = source.pairs(), np.random.default_rng(0)
    found = [(int(pairs.first[n]), pairs.second(n, rng, source.read)) for n in range(10)]
    known = [(first, second) for first, second in found if second is not None]
    assert len(known) > 5
    for first, second in known:
        assert first != second
        assert first // 5 == second // 5


def test_pairs_match_as_rendered(views: list[View], folder: Path):
    source = read_folder(folder)
    measured = ViewPair(source.read(0), source.read(2))
    pixels = SMALL.pixel_grid()[::9, ::9].reshape(-1, 2)
    exact = ViewPair(views[0], views[2]).matches(pixels)
    found = measured.matches(pixels)
    both = np.isfinite(exact[:, 0]) & np.isfinite(found[:, 0])
    assert both.sum() > 20
    np.testing.assert_allclose(found[both], exact[both], atol=0.1)


def test_depth_in_other_units(folder: Path):
    (folder / "meta.json").write_text(json.dumps({"depth_scale": 0.01}))
    (folder / "poses.txt").unlink()
    view = read_folder(folder).read(0)
    assert np.nanmedian(view.depth) > 8  # ten times that of a room
    assert np.isnan(view.T_world_camera).all()


def break_json(folder: Path) -> None:
    (folder / "intrinsics.json").write_text("{")


def without_focal(folder: Path) -> None:
    (folder / "intrinsics.json").write_text(
        '{"width": 96, "height": 72, "fx": 80, "cx": 1, "cy": 1}'
    )


def impossible_focal(folder: Path) -> None:
    text = '{"width": 96, "height": 72, "fx": 0.5, "fy": 0.5, "cx": 48, "cy": 36}'
    (folder / "intrinsics.json").write_text(text)


def scale_of_zero(folder: Path) -> None:
    (folder / "meta.json").write_text('{"depth_scale": 0}')


def short_pose(folder: Path) -> None:
    (folder / "poses.txt").write_text("0 1 2 3\n")


def zero_quaternion(folder: Path) -> None:
    (folder / "poses.txt").write_text("0 1 2 3 0 0 0 0\n")


def mirrored_matrix(folder: Path) -> None:
    (folder / "poses.txt").write_text("0 -1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1\n")


def pose_of_nan(folder: Path) -> None:
    (folder / "poses.txt").write_text("0 nan 2 3 0 0 0 1\n")


def no_images(folder: Path) -> None:
    shutil.rmtree(folder / "rgb")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (break_json, r"intrinsics.json: it is not JSON"),
        (without_focal, r"intrinsics.json: 'fy' is missing"),
        (impossible_focal, r"intrinsics.json: .*focal"),
        (scale_of_zero, r"meta.json: depth_scale is 0; it is metres per unit"),
        (short_pose, r"poses.txt:1: 3 numbers after the ID, instead of 7 or 16"),
        (zero_quaternion, r"poses.txt:1: the quaternion is zero"),
        (mirrored_matrix, r"poses.txt:1: the matrix is no rotation"),
        (pose_of_nan, r"poses.txt:1: the pose is not finite"),
        (no_images, r"rgb: there is no image in it"),
    ],
)
def test_a_wrong_file_is_named(folder: Path, damage, message: str):
    damage(folder)
    with pytest.raises(DatasetError, match=message):
        read_folder(folder)


def test_a_folder_without_calibration_says_what_is_needed(tmp_path: Path):
    with pytest.raises(DatasetError, match=r"has intrinsics.json: fx, fy, cx, cy, width, height"):
        read_folder(tmp_path)


def test_broken_frames_are_named_when_they_are_read(folder: Path, views: list[View]):
    image, depth = folder / "rgb/00001.png", folder / "depth/00002.png"
    image.write_bytes(image.read_bytes()[:200])
    shutil.copy(folder / "rgb/00003.png", depth)
    (folder / "depth/00003.png").unlink()
    source = read_folder(folder)
    with pytest.raises(DatasetError, match=r"00001.png: the image cannot be read"):
        source.read(1)
    with pytest.raises(DatasetError, match=r"00002.png: it is not depth, which is grey"):
        source.read(2)
    assert not source.contents.has_depth[3]
    assert np.isnan(source.read(3).depth).all()
    assert source.notes == [f"{folder}: 1 of 5 images have no depth"]
    np.testing.assert_array_equal(source.read(4).image, views[4].image)


def test_an_image_of_another_size_is_named(folder: Path):
    content = json.loads((folder / "intrinsics.json").read_text())
    (folder / "intrinsics.json").write_text(json.dumps(content | {"width": 100}))
    with pytest.raises(DatasetError, match=r"00000.png: 96x72 px, .* is for 100x72"):
        read_folder(folder).read(0)


def test_a_sequence_of_tum_gives_the_views_written(sequence):
    path, views = sequence
    assert_same(read_tum(path), views, 0.11e-3)
    assert read_tum(path).notes == []


def test_images_of_tum_are_undistorted_with_their_depth(sequence, tmp_path: Path):
    path, _ = sequence
    first = Path(shutil.copytree(path, tmp_path / "rgbd_dataset_freiburg1_room"))
    K = np.array([[517.3, 0, 318.6], [0, 516.5, 255.3], [0, 0, 1]])
    D = [0.2624, -0.9531, -0.0054, 0.0026, 1.1633]
    lens = lens_from_calibration(640, 480, K, D, "plumb_bob", np.eye(3), np.zeros((3, 4)))
    view, raw = read_tum(first).read(0), read_tum(path).read(0)
    assert view.camera == lens.rectified
    np.testing.assert_array_equal(view.image, lens.rectify(raw.image))
    u, v = 500, 400
    from_u, from_v = np.rint(lens.distort_pixels([[u, v]])[0]).astype(int)
    assert view.depth[v, u] == pytest.approx(raw.depth[from_v, from_u])


def test_a_sequence_of_another_camera_needs_its_calibration(sequence, tmp_path: Path):
    other = Path(shutil.copytree(sequence[0], tmp_path / "kitchen"))
    with pytest.raises(DatasetError, match=r"kitchen: its camera is unknown.*calibration file or"):
        read_tum(other)
    view = read_tum(other, GivenCamera(hfov=60.0)).read(0)
    assert view.camera.fx == pytest.approx(320 / np.tan(np.radians(30)))


def test_frames_without_depth_or_pose_at_their_time_are_counted(sequence, tmp_path: Path):
    path = Path(shutil.copytree(sequence[0], tmp_path / "freiburg3"))
    for name in ("depth", "groundtruth"):
        lines = (path / f"{name}.txt").read_text().splitlines()
        (path / f"{name}.txt").write_text("\n".join(lines[:-1]) + "\n")
    source = read_tum(path)
    assert source.contents.has_depth.tolist() == [True, True, False]
    assert source.contents.has_pose.tolist() == [True, True, False]
    assert source.notes == [
        "1 of 3 images have no depth at their time",
        "1 of 3 images have no pose at their time",
    ]


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("rgb.txt", "# empty\n", r"rgb.txt: no file is listed"),
        ("rgb.txt", "1.0\n", r"rgb.txt:1: expected a stamp and a file, found '1.0'"),
        ("depth.txt", "soon depth/1.png\n", r"depth.txt:1: 'soon' is no stamp"),
        ("groundtruth.txt", "1 2 3\n", r"groundtruth.txt:1: expected 'stamp tx ty tz qx qy qz qw'"),
        ("groundtruth.txt", "9 0 0 0 0 0 0 1\n1 0 0 0 0 0 0 1\n", r"poses go back in time"),
    ],
)
def test_a_wrong_list_is_named(sequence, tmp_path: Path, file: str, text: str, message: str):
    path = Path(shutil.copytree(sequence[0], tmp_path / "freiburg3"))
    (path / file).write_text(text)
    with pytest.raises(DatasetError, match=message):
        read_tum(path)


def test_a_missing_list_is_named(tmp_path: Path):
    with pytest.raises(DatasetError, match=r"rgb.txt: it cannot be read: No such file"):
        read_tum(tmp_path)
