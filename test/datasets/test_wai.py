# SPDX-License-Identifier: Apache-2.0
"""Scenes in map-anything's WAI format are read as they were rendered."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rgbd_folders import drive_views, write_image
from scipy.spatial.transform import Rotation
from wai_folder import (
    add_masks,
    covisibility_matrix,
    write_exr,
    write_matrix,
    write_meta,
    write_scene,
)

from vlm3_lab.scenes.view_pairs import true_matches
from vlm3_ros.datasets.covisibility import MIN_COVISIBILITY
from vlm3_ros.datasets.views import View, ViewPair
from vlm3_ros.datasets.wai.scene_meta import poses_of, read_scene
from vlm3_ros.datasets.wai.source import WaiSource, read_wai
from vlm3_ros.errors import DatasetError
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.geometry.lens import lens_from_calibration

CAMERA = PinholeCamera(96, 72, 66.0, 67.0, 48.5, 34.0)
HALF = 2.0**-11
"""Largest relative rounding error of depth in half precision."""


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture(scope="module")
def views() -> list[View]:
    return drive_views(6, CAMERA, seed=1)


@pytest.fixture(scope="module")
def whole(views: list[View], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of two scenes: metric with a matrix, and of structure from motion."""
    folder = tmp_path_factory.mktemp("whole")
    write_scene(folder / "flat", views, matrix="v0")
    write_scene(folder / "tower", views[:3], scale_type="colmap")
    return folder


@pytest.fixture
def made(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "made"))


def meta_of(scene: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((scene / "scene_meta.json").read_text())
    return content


def change(scene: Path, frame: int | None = None, **changes: Any) -> None:
    """Set keys of the metadata or of one frame; None removes them."""
    meta = meta_of(scene)
    target = meta if frame is None else meta["frames"][frame]
    target.update(changes)
    for key in [key for key, value in changes.items() if value is None]:
        del target[key]
    write_meta(scene, meta)


def rounded(view: View) -> np.ndarray:
    known = np.where(np.isfinite(view.depth), view.depth, np.nan)
    return known.astype(np.float16).astype(np.float32)


# What is read


def test_frames_are_what_was_rendered(whole: Path, views: list[View]) -> None:
    source = read_wai(whole)
    assert len(source.contents) == 9
    for index, view in enumerate(views):
        read = source.read(index)
        assert np.array_equal(read.image, view.image)
        assert np.array_equal(read.depth, rounded(view), equal_nan=True)
        assert read.depth.dtype == np.float32
        assert read.camera == view.camera
        assert read.T_world_camera == pytest.approx(view.T_world_camera, abs=1e-12)
        assert (read.kind, read.is_metric) == ("flat", True)
        assert source.frame_name(index) == f"flat/{index:08d}"
    assert source.contents.has_pose.all()
    assert not source.contents.has_objects.any() and not source.contents.is_held_out.any()


def test_one_scene_can_be_opened(whole: Path) -> None:
    assert len(read_wai(whole / "flat").contents) == 6
    assert read_wai(whole / "flat").read(0).kind == "flat"


def test_without_metric_scale_no_depth_is_metric(whole: Path) -> None:
    source = read_wai(whole)
    assert source.contents.has_depth.tolist() == [True] * 6 + [False] * 3
    assert not source.read(7).is_metric
    assert np.isfinite(source.read(7).depth).any()
    (note,) = source.notes
    assert "scenes without metric scale" in note and note.endswith(" (1 of 2: tower)")


def test_a_scene_that_says_nothing_about_its_scale_is_not_metric(made: Path) -> None:
    change(made / "flat", scale_type=None)
    assert not read_wai(made / "flat").contents.has_depth.any()


def test_matches_are_those_of_the_scene(whole: Path, views: list[View]) -> None:
    source = read_wai(whole)
    pair = ViewPair(source.read(1), source.read(3))
    grid = np.mgrid[4:68:4, 4:92:4].reshape(2, -1).T[:, ::-1].astype(float)
    read, true = pair.matches(grid), true_matches(views[1], views[3], grid)
    both = np.isfinite(read[:, 0]) & np.isfinite(true[:, 0])
    assert both.sum() > 100
    # Rounding of depth moves a match by HALF of its distance from the point at infinity.
    assert np.abs(read[both] - true[both]).max() < 2 * HALF * 96


@pytest.mark.parametrize("matrix", [(4, 4), (16,)])
def test_poses_may_be_flat_lists(made: Path, views: list[View], matrix: tuple[int, ...]) -> None:
    pose = np.reshape(views[2].T_world_camera, matrix).tolist()
    change(made / "flat", 2, transform_matrix=pose)
    read = read_wai(made).read(2)
    assert read.T_world_camera == pytest.approx(views[2].T_world_camera, abs=1e-12)


def test_absolute_paths_are_those_of_another_machine(made: Path, views: list[View]) -> None:
    """The converter of ParallelDomain4D writes them."""
    change(made / "flat", 1, depth="/fsx/data/flat/depth/00000001.exr")
    assert np.array_equal(read_wai(made).read(1).depth, rounded(views[1]), equal_nan=True)


def test_frames_may_share_intrinsics(made: Path, views: list[View]) -> None:
    meta = meta_of(made / "flat")
    shared = {key: meta["frames"][0].pop(key) for key in ("fl_x", "fl_y", "cx", "cy", "w", "h")}
    write_meta(made / "flat", {**meta, **shared, "shared_intrinsics": True})
    assert read_wai(made).read(0).camera == views[0].camera


def test_a_size_that_is_not_said_is_the_images(made: Path, views: list[View]) -> None:
    change(made / "flat", 0, w=None, h=None)
    assert read_wai(made).read(0).camera == views[0].camera


# Depth


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 0.0, -1.0])
def test_depth_that_is_no_distance_is_unknown(made: Path, views: list[View], value: float) -> None:
    depth = rounded(views[0])
    depth[10:20, 30:50] = value
    write_exr(made / "flat/depth/00000000.exr", depth, np.float32)
    read = read_wai(made).read(0).depth
    depth[10:20, 30:50] = np.nan
    assert np.array_equal(read, depth, equal_nan=True)


@pytest.mark.parametrize("channel", ["Y", "Z", "R", "V"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_one_channel_of_any_name_is_depth(
    made: Path, views: list[View], channel: str, dtype: type
) -> None:
    write_exr(made / "flat/depth/00000000.exr", rounded(views[0]), dtype, channel)
    assert np.array_equal(read_wai(made).read(0).depth, rounded(views[0]), equal_nan=True)


def test_rendered_depth_serves_where_there_is_no_other(views: list[View], tmp_path: Path) -> None:
    write_scene(tmp_path / "scan", views[:1], depth_key="rendered_depth")
    assert np.array_equal(read_wai(tmp_path).read(0).depth, rounded(views[0]), equal_nan=True)


def test_depth_of_another_size_takes_the_nearest_pixel(made: Path, views: list[View]) -> None:
    small = np.arange(1, 1 + 24 * 18, dtype=np.float32).reshape(18, 24)
    write_exr(made / "flat/depth/00000000.exr", small, np.float32)
    read = read_wai(made).read(0).depth
    assert np.array_equal(read, small.repeat(4, axis=0).repeat(4, axis=1))


def test_depth_of_another_aspect_is_refused(made: Path) -> None:
    write_exr(made / "flat/depth/00000000.exr", np.ones((72, 72)))
    with pytest.raises(DatasetError, match=r"00000000.exr: it has 72x72 px; 96x72 px, or the same"):
        read_wai(made).read(0)


def half_mask() -> np.ndarray:
    """The left half."""
    return np.arange(CAMERA.width) < CAMERA.width // 2 + np.zeros((CAMERA.height, 1))


@pytest.mark.parametrize(
    ("modality", "model", "dataset", "keeps"),
    [
        ("mask", "", "asev2", "left"),
        ("skymask", "", "spring", "right"),
        ("pred_mask", "moge2", "blendedmvs", "left"),
        ("pred_mask", "moge2", "eth3d", "all"),
        ("anon_mask", "", "scannetppv2", "all"),
    ],
)
@pytest.mark.parametrize("step", [1, 2])
def test_masks_are_applied_as_map_anything_does(
    views: list[View],
    tmp_path: Path,
    modality: str,
    model: str,
    dataset: str,
    keeps: str,
    step: int,
) -> None:
    meta = write_scene(tmp_path / "a", views[:1], dataset=dataset)
    add_masks(tmp_path / "a", meta, modality, [half_mask()[::step, ::step]], model)
    expected = rounded(views[0])
    if keeps != "all":
        expected[half_mask() == (keeps == "right")] = np.nan
    assert np.array_equal(read_wai(tmp_path).read(0).depth, expected, equal_nan=True)


def test_a_mask_of_another_aspect_is_refused(views: list[View], tmp_path: Path) -> None:
    meta = write_scene(tmp_path / "a", views[:1])
    add_masks(tmp_path / "a", meta, "mask", [np.ones((50, 96))])
    with pytest.raises(DatasetError, match=r"masks/00000000.png: it has 96x50 px; 96x72 px, or"):
        read_wai(tmp_path).read(0)


def test_a_missing_mask_is_named(views: list[View], tmp_path: Path) -> None:
    meta = write_scene(tmp_path / "a", views[:1])
    add_masks(tmp_path / "a", meta, "mask", [np.ones((72, 96))])
    (tmp_path / "a/masks/00000000.png").unlink()
    with pytest.raises(DatasetError, match=r"masks/00000000.png: there is no such mask"):
        read_wai(tmp_path).read(0)


def test_the_horizon_of_synthetic_data_is_dropped(views: list[View], tmp_path: Path) -> None:
    write_scene(tmp_path / "a", views[:1], dataset="tav2_wb")
    read, whole = read_wai(tmp_path).read(0).depth, rounded(views[0])
    assert np.isnan(read[whole > np.nanpercentile(whole, 96)]).all()
    assert np.isfinite(read[whole < np.nanpercentile(whole, 90)]).all()


def predicted(folder: Path, views: list[View], has_confidence: bool) -> None:
    meta = write_scene(folder, views, depth_key="", scale_type="colmap", dataset="dl3dv")
    for frame, view in zip(meta["frames"], views, strict=True):
        name = frame["frame_name"]
        frame["mvsanywhere_depth"] = f"mvsanywhere/v0/depth/{name}.exr"
        frame["mvsanywhere_depth_confidence"] = f"mvsanywhere/v0/depth_confidence/{name}.exr"
        write_exr(folder / frame["mvsanywhere_depth"], rounded(view)[::2, ::3])
        write_exr(folder / frame["mvsanywhere_depth_confidence"], half_mask()[::2, ::3] * 0.5)
    meta["frame_modalities"]["pred_depth"] = {
        "moge2": {"frame_key": "moge2_depth", "format": "depth"},
        "mvsanywhere": {"frame_key": "mvsanywhere_depth", "format": "depth"},
    }
    if has_confidence:
        meta["frame_modalities"]["depth_confidence"] = {
            "mvsanywhere": {"frame_key": "mvsanywhere_depth_confidence", "format": "scalar"}
        }
    write_meta(folder, meta)


def test_predicted_depth_counts_where_views_agree(views: list[View], tmp_path: Path) -> None:
    predicted(tmp_path / "a", views[:2], has_confidence=True)
    source = read_wai(tmp_path)
    depth = source.read(0).depth
    assert np.isnan(depth[:, 49:]).all() and np.isfinite(depth[:, :47]).any()
    assert np.array_equal(depth[1::2, 1:47:3], rounded(views[0])[::2, :46:3], equal_nan=True)
    assert any("that MVSAnywhere predicted, which" in note for note in source.notes)
    assert len(source.pairs()) == 2
    change(tmp_path / "a", scale_type="metric")
    assert not read_wai(tmp_path).contents.has_depth.any()


def test_predicted_depth_without_confidence_is_a_guess(views: list[View], tmp_path: Path) -> None:
    predicted(tmp_path / "a", views[:2], has_confidence=False)
    source = read_wai(tmp_path)
    assert np.isnan(source.read(0).depth).all()
    assert any("without depth" in note and "(1 of 1: a)" in note for note in source.notes)
    assert len(source.pairs()) == 0


@pytest.mark.parametrize("is_folder_gone", [False, True])
def test_a_scene_without_depth_keeps_its_poses(
    made: Path, views: list[View], is_folder_gone: bool
) -> None:
    if is_folder_gone:
        shutil.rmtree(made / "flat/depth")
    else:
        change(made / "flat", frame_modalities={"image": {"frame_key": "image"}})
    source = read_wai(made)
    assert not source.contents.has_depth.any()
    assert source.contents.has_pose.all()
    assert np.isnan(source.read(0).depth).all()
    assert np.array_equal(source.read(0).image, views[0].image)
    assert any("without depth" in note and "(1 of 2: flat)" in note for note in source.notes)
    assert set(source.pairs().first) == {6, 7, 8}


# Lenses

PLANE = np.array([0.1, -0.15, 0.3])
"""Points P with PLANE @ P = 1, metres."""


def shown(camera_rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colours and depth of the plane along rays with Z = 1, shape (..., 3)."""
    depth = 1 / (camera_rays @ PLANE)
    points = camera_rays * depth[..., None]
    return (128 + 60 * np.sin(1.5 * points)).astype(np.uint8), depth.astype(np.float32)


@pytest.mark.parametrize(
    ("model", "coefficients"),
    [
        ("OPENCV", {"k1": -0.2, "k2": 0.05, "p1": 0.002, "p2": -0.003}),
        ("OPENCV", {}),
        ("FULL_OPENCV", {"k1": 0.1, "k2": -0.05, "k4": 0.12}),
        ("OPENCV_FISHEYE", {"k1": 0.03, "k2": -0.01, "k3": 0.002, "k4": 0.0}),
    ],
)
def test_distorted_images_are_rectified(
    tmp_path: Path, model: str, coefficients: dict[str, float]
) -> None:
    fx, fy, cx, cy = 66.0, 67.0, 48.5, 34.0
    order = ["k1", "k2", "k3", "k4"] if "FISH" in model else ["k1", "k2", "p1", "p2", "k3", "k4"]
    lens = lens_from_calibration(
        96,
        72,
        K=[fx, 0, cx, 0, fy, cy, 0, 0, 1],
        D=[coefficients.get(key, 0.0) for key in [*order, *(["k5", "k6"] * (len(order) == 6))]],
        model="equidistant" if "FISH" in model else "rational_polynomial",
        R=np.eye(3),
        P=np.zeros((3, 4)),
    )
    raw_pixels = CAMERA.pixel_grid()
    rays = lens.rectified.rays(lens.rectify_pixels(raw_pixels))
    image, depth = shown(np.nan_to_num(rays))
    view = View(image, depth, CAMERA, np.eye(4), "")
    write_scene(tmp_path / "a", [view], frame_keys={"camera_model": model, **coefficients})
    read = read_wai(tmp_path).read(0)
    expected_image, expected_depth = shown(read.camera.rays(read.camera.pixel_grid()))
    known = np.isfinite(read.depth)
    assert known.mean() > 0.6
    # The nearest raw pixel is at most a pixel away.
    slope = np.abs(np.gradient(expected_depth)).sum(axis=0)
    assert (np.abs(read.depth - expected_depth)[known] < 1.5 * slope[known] + 0.01).all()
    inside = known & (read.image > 0).any(axis=-1)
    error = np.abs(read.image[inside].astype(int) - expected_image[inside])
    assert np.median(error) <= 3


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"camera_model": "EQUIRECTANGULAR"}, "camera_model is 'EQUIRECTANGULAR'; this program"),
        ({"camera_model": "THIN_PRISM_FISHEYE"}, "this program reads PINHOLE, OPENCV, OPENCV_FISH"),
        ({"k1": 0.1}, "camera_model is 'PINHOLE', but there are distortion coefficients"),
        ({"fl_x": None}, "no fl_x"),
        ({"cy": "wide"}, "cy is no number, or not finite"),
        ({"fl_y": 0.0}, "a focal length is not positive"),
        ({"cx": float("nan")}, "cx is no number, or not finite"),
        ({"image": "../../secret.png"}, "a file is not a path within the scene's folder"),
        ({"image": None, "file_path": None}, "no image"),
    ],
)
def test_a_wrong_frame_is_left_out_counted_and_named(
    made: Path, views: list[View], changes: dict[str, Any], fault: str
) -> None:
    change(made / "flat", 1, **changes)
    source = read_wai(made)
    assert len(source.contents) == 8
    assert np.array_equal(source.read(1).image, views[2].image)
    assert source.notes[0].startswith("frames left out: ") and fault in source.notes[0]
    assert source.notes[0].endswith(" (1: flat/00000001)")


def test_pairs_by_matrix_know_the_frames_that_are_left_out(made: Path) -> None:
    whole = possible_pairs(read_wai(made / "flat"))
    change(made / "flat", 2, fl_x=None)
    named = {0: 0, 1: 1, 3: 2, 4: 3, 5: 4}
    expected = {(named[i], named[j]) for i, j in whole if 2 not in (i, j)}
    assert possible_pairs(read_wai(made / "flat")) == expected


def not_rigid() -> list[Any]:
    squeezed, mirrored, infinite, no_row = (np.eye(4) for _ in range(4))
    squeezed[0, 0] = 1.1
    mirrored[0, 0] = -1
    infinite[0, 3] = np.inf
    no_row[3, 3] = 2
    return [m.tolist() for m in (squeezed, mirrored, infinite, no_row)] + [[[1, 2]], "none"]


@pytest.mark.parametrize("matrix", not_rigid())
def test_a_wrong_pose_is_unknown_and_named(made: Path, matrix: Any) -> None:
    change(made / "flat", 1, transform_matrix=matrix)
    source = read_wai(made)
    assert source.contents.has_pose.tolist() == [True, False] + [True] * 7
    assert np.isnan(source.read(1).T_world_camera).all()
    assert "frames used without their pose" in source.notes[0]
    assert source.notes[0].endswith(" (1: flat/00000001)")
    assert 1 not in source.pairs().first


def test_a_missing_pose_is_unknown(made: Path) -> None:
    """The test frames of Spring have none."""
    change(made / "flat", 1, transform_matrix=None)
    source = read_wai(made)
    assert not source.contents.has_pose[1]
    assert len(source.notes) == 1


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 3e-4), st.floats(4e-3, 0.5))
def test_rigid_motions_are_told_from_others(seed: int, small: float, large: float) -> None:
    rng = np.random.default_rng(seed)
    pose = np.eye(4)
    pose[:3, :3] = Rotation.random(random_state=seed).as_matrix()
    pose[:3, 3] = rng.normal(0, 100, 3)
    rounded_pose, scaled, mirrored = (pose.copy() for _ in range(3))
    rounded_pose[tuple(rng.integers(3, size=2))] += small
    scaled[:3, :3] *= 1 + large
    mirrored[:3, 0] *= -1
    read, is_wrong = poses_of([pose.tolist(), rounded_pose.ravel(), scaled, mirrored, None])
    assert is_wrong.tolist() == [False, False, True, True, False]
    assert read[:2] == pytest.approx(np.stack([pose, rounded_pose])[:, :3])
    assert np.isnan(read[2:]).all()


# Pairs


def possible_pairs(source: WaiSource, draws: int = 60) -> set[tuple[int, int]]:
    """All pairs that are drawn in many draws."""
    pairs, rng = source.pairs(), np.random.default_rng(0)
    drawn = set()
    for number in range(len(pairs)):
        for _ in range(draws):
            second = pairs.second(number, rng, source.read)
            if second is not None:
                drawn.add((int(pairs.first[number]), second))
    return drawn


def test_pairs_are_those_that_the_matrix_says_in_both_directions(
    made: Path, views: list[View]
) -> None:
    matrix = covisibility_matrix(views)
    shares = matrix / matrix.diagonal()[:, None]
    both = np.minimum(shares, shares.T) >= MIN_COVISIBILITY
    expected = {(i, j) for i, j in zip(*np.nonzero(both), strict=True) if i != j}
    assert 6 < len(expected) < 30
    assert possible_pairs(read_wai(made / "flat")) == expected


def test_a_matrix_need_not_be_named(made: Path) -> None:
    """Matrices that were downloaded apart are not."""
    named = possible_pairs(read_wai(made / "flat"))
    change(made / "flat", scene_modalities={})
    assert possible_pairs(read_wai(made / "flat")) == named


def test_a_matrix_of_other_frames_is_not_used(made: Path) -> None:
    shutil.rmtree(made / "flat/covisibility")
    write_matrix(made / "flat/covisibility/v0", np.ones((5, 5)))
    change(made / "flat", scene_modalities={})
    source = read_wai(made / "flat")
    (note,) = source.notes
    assert "scenes with a matrix of covisibility that is not of their frames" in note
    assert set(source.pairs().first) == set(range(6))
    assert {0, 1, 2, 3, 4, 5} == {first for first, _ in possible_pairs(source, draws=2)}


def test_a_frame_without_depth_has_no_pair_by_matrix(made: Path) -> None:
    (path,) = (made / "flat/covisibility/v0").iterdir()
    matrix = np.load(path)
    matrix[2], matrix[:, 2] = 0, 0
    np.save(path, matrix)
    assert not any(2 in pair for pair in possible_pairs(read_wai(made / "flat")))


def test_a_matrix_that_vanishes_gives_no_pair(made: Path, caplog) -> None:
    source = read_wai(made / "flat")
    (path,) = (made / "flat/covisibility/v0").iterdir()
    path.unlink()
    assert source.pairs().second(0, np.random.default_rng(0), source.read) is None
    assert "the matrix of covisibility cannot be read" in caplog.text


def test_pairs_without_matrix_are_found_by_depth_and_poses(whole: Path) -> None:
    source = read_wai(whole)
    pairs = source.pairs()
    assert set(pairs.first[6:]) == {6, 7, 8}
    drawn = {pair for pair in possible_pairs(source, draws=3) if pair[0] >= 6}
    assert drawn and all(second >= 6 for _, second in drawn)


# Files that cannot be read


@pytest.mark.parametrize("is_gone", [True, False])
@pytest.mark.parametrize("file", ["images/00000000.png", "depth/00000000.exr"])
def test_a_missing_or_broken_file_is_named(made: Path, file: str, is_gone: bool) -> None:
    path = made / "flat" / file
    data = path.read_bytes()
    path.unlink()
    if not is_gone:
        path.write_bytes(data[: len(data) // 2])
    source = read_wai(made)
    with pytest.raises(DatasetError, match=path.name):
        source.read(0)
    source.read(1)


def test_an_image_of_another_size_is_named(made: Path) -> None:
    write_image(made / "flat/images/00000000.png", np.zeros((36, 48, 3), np.uint8))
    with pytest.raises(DatasetError, match=r"00000000.png: 48x36 px, scene_meta.json says 96x72"):
        read_wai(made).read(0)


def test_depth_of_several_channels_is_refused(made: Path) -> None:
    import OpenEXR

    rgb = {"RGB": np.ones((72, 96, 3), np.float16)}
    with OpenEXR.File({"compression": OpenEXR.ZIP_COMPRESSION}, rgb) as file:
        file.write(str(made / "flat/depth/00000000.exr"))
    with pytest.raises(DatasetError, match="must have one channel, it has B, G, R"):
        read_wai(made).read(0)


def test_depth_of_a_part_of_the_image_is_refused(made: Path) -> None:
    import OpenEXR

    header = {
        "dataWindow": (np.array([0, 0], np.int32), np.array([47, 35], np.int32)),
        "displayWindow": (np.array([0, 0], np.int32), np.array([95, 71], np.int32)),
    }
    with OpenEXR.File(header, {"Y": np.ones((36, 48), np.float16)}) as file:
        file.write(str(made / "flat/depth/00000000.exr"))
    with pytest.raises(DatasetError, match=r"00000000.exr: the EXR file holds a part of its image"):
        read_wai(made).read(0)


def test_without_the_exr_package_the_error_says_how_to_get_it(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "OpenEXR", None)
    with pytest.raises(DatasetError, match=r"needs the OpenEXR package: python3 -m pip install"):
        read_wai(made).read(0)


# Metadata that cannot be read


def only_distorted(scene: Path) -> None:
    (scene / "scene_meta.json").rename(scene / "scene_meta_distorted.json")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: (s / "scene_meta.json").write_text("{"), "scene_meta.json: it is not JSON"),
        (lambda s: (s / "scene_meta.json").write_text("[]"), "it has no list 'frames'"),
        (lambda s: change(s, frames={}), "it has no list 'frames'"),
        (lambda s: change(s, version=0.3), "its version is 0.3; this program reads 0.1 and 0.2"),
        (lambda s: change(s, version=None), "its version is None; this program reads"),
        (lambda s: change(s, camera_convention="opengl"), "'opengl'; it must be 'opencv'"),
        (lambda s: change(s, frame_modalities=[1]), "frame_modalities is not a mapping"),
        (lambda s: change(s, frames=[]), "no frame of it can be used"),
        (only_distorted, "it has only scene_meta_distorted.json: make scene_meta.json with map-"),
    ],
)
def test_a_scene_that_cannot_be_read_is_named(made: Path, spoil: Any, message: str) -> None:
    spoil(made / "flat")
    source = read_wai(made)
    assert len(source.contents) == 3
    assert source.notes[0].startswith(f"scenes left out (1): {made / 'flat'}")
    assert message in source.notes[0]
    with pytest.raises(DatasetError, match=message.replace("(", r"\(")) as caught:
        read_wai(made / "flat")
    assert str(made / "flat") in str(caught.value) and "\n" not in str(caught.value)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=4,
)


def replaced(content: Any, data: st.DataObject, depth: int = 0) -> Any:
    """The content with something in it replaced."""
    if depth and data.draw(st.booleans()):
        return data.draw(JSON_VALUES)
    if isinstance(content, dict) and content:
        key = data.draw(st.sampled_from(sorted(content)))
        return {**content, key: replaced(content[key], data, depth + 1)}
    if isinstance(content, list) and content:
        place = data.draw(st.integers(0, len(content) - 1))
        changed = replaced(content[place], data, depth + 1)
        return [*content[:place], changed, *content[place + 1 :]]
    return data.draw(JSON_VALUES)


@pytest.fixture(scope="module")
def altered(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(whole / "flat", tmp_path_factory.mktemp("altered") / "flat"))


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_any_metadata_are_read_or_refused(whole: Path, altered: Path, data: st.DataObject) -> None:
    meta = meta_of(whole / "flat")
    meta["frames"] = meta["frames"][:2]
    write_meta(altered, replaced(meta, data))
    with contextlib.suppress(DatasetError):
        source = read_wai(altered)
        for index in range(len(source.contents)):
            source.read(index)


@pytest.mark.parametrize("version", [0.2, "0.1"])
def test_known_versions_may_be_texts(made: Path, version: Any) -> None:
    change(made / "flat", version=version)
    assert len(read_wai(made).contents) == 9


def test_a_folder_without_scenes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(DatasetError, match=r"neither it nor a folder in it holds scene_meta.json"):
        read_wai(tmp_path)
    with pytest.raises(DatasetError, match="nothing: it cannot be read: No such file"):
        read_wai(tmp_path / "nothing")


# The index


def test_the_second_opening_reads_no_metadata(
    made: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    change(made / "flat", 1, fl_x=None)
    first = read_wai(made)
    assert len(list((cache / "vlm3_ros").iterdir())) == 1
    monkeypatch.setattr("vlm3_ros.datasets.wai.index.read_scene", None)
    second = read_wai(made)
    assert second.notes == first.notes
    for index in range(len(first.contents)):
        assert second.frame_name(index) == first.frame_name(index)
        assert np.array_equal(second.read(index).depth, first.read(index).depth, equal_nan=True)


def test_changed_metadata_are_read_again(made: Path) -> None:
    assert len(read_wai(made).contents) == 9
    change(made / "flat", 1, fl_x=None)
    assert len(read_wai(made).contents) == 8
    write_scene(made / "third", drive_views(2, CAMERA))
    assert len(read_wai(made).contents) == 10
    shutil.rmtree(made / "flat")
    assert len(read_wai(made).contents) == 5
    meta = (made / "third/scene_meta.json").read_text()
    os.utime(made / "third/scene_meta.json", ns=(0, 0))
    (made / "third/scene_meta.json").write_text(meta.replace("fl_x", "fl_X", 1))
    assert len(read_wai(made).contents) == 4


@pytest.mark.parametrize("spoiled", [b"", b"PK\x03\x04 something", None])
def test_a_damaged_cache_is_built_anew(made: Path, cache: Path, spoiled: bytes | None) -> None:
    read_wai(made)
    (file,) = (cache / "vlm3_ros").iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if spoiled is None else spoiled)
    assert len(read_wai(made).contents) == 9
    assert len(file.read_bytes()) == len(whole)


def test_a_cache_that_cannot_be_written_is_harmless(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    caplog.set_level(logging.INFO)
    assert len(read_wai(made).contents) == 9
    assert "is not kept: Not a directory" in caplog.text


def test_frames_of_a_scene_keep_their_order_and_place(made: Path) -> None:
    change(made / "flat", 0, fl_x=None)
    read = read_scene(made, "flat")
    assert read.frames["place"].tolist() == [1, 2, 3, 4, 5]
    assert [file.name for file in read.files] == [f"{place:08d}" for place in range(1, 6)]


# Lists of scenes


def write_list(path: Path, names: list[str]) -> Path:
    if path.suffix == ".npy":
        np.save(path, np.array(names, dtype=object))
    else:
        path.write_text("".join(f"{name}\n" for name in names))
    return path


@pytest.mark.parametrize("name", ["split.txt", "made_scene_list_test.npy"])
def test_a_list_chooses_scenes(made: Path, tmp_path: Path, name: str) -> None:
    path = write_list(tmp_path / name, ["tower"])
    source = read_wai(made, path)
    assert len(source.contents) == 3 and source.read(0).kind == "tower"
    assert len(read_wai(made).contents) == 9
    write_list(path, ["flat", "tower"])
    assert len(read_wai(made, path).contents) == 9


class Evil:
    def __reduce__(self) -> Any:
        return os.mkdir, ("evil",)


def test_a_list_runs_no_program(made: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save(tmp_path / "evil.npy", np.array([Evil()], dtype=object))
    assert b"mkdir" in pickle.dumps(Evil())
    with pytest.raises(DatasetError, match=r"evil.npy: it is no list of scenes: it holds posix"):
        read_wai(made, tmp_path / "evil.npy")
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "the list of scenes is empty"),
        ("a.npy", b"nonsense", "it is no list of scenes"),
        ("a.txt", b"flat\nhouse\n", "has no scene house"),
        ("a.txt", None, "it cannot be read: No such file"),
    ],
)
def test_a_wrong_list_is_refused(
    made: Path, tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        read_wai(made, tmp_path / name)
