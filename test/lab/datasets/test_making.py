# SPDX-License-Identifier: Apache-2.0
"""Bags become training sets; unusable ones are refused with a reason."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from drives import PERIOD_NS, START_NS
from recordings import (
    ALL,
    DEPTH_TOPIC,
    EVERYTHING,
    cloud_message,
    drive_of,
    float_depth,
    views_of,
    write_recording,
)
from rosbags.convert.converter import convert
from scipy.spatial.transform import Rotation

from vlm3_lab.datasets.making import LABELS, make_dataset
from vlm3_lab.datasets.recordings import TopicOptions, open_recording
from vlm3_lab.scenes.view_pairs import covisibility
from vlm3_ros.bags.writing import write_bag
from vlm3_ros.datasets.covisibility import MIN_COVISIBILITY
from vlm3_ros.datasets.depthlm import read_depthlm
from vlm3_ros.datasets.own import load_dataset
from vlm3_ros.datasets.views import View
from vlm3_ros.errors import BagError, DatasetError
from vlm3_ros.geometry.motion import inverse, transform
from vlm3_ros.messages.classes import ROSBAGS
from vlm3_ros.messages.depth_images import depth_message
from vlm3_ros.messages.motions import tf_message
from vlm3_ros.paths import sample_bag

FRAMES = 10


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def drive():
    return drive_of(FRAMES)


@pytest.fixture(scope="module")
def bag(drive, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bag") / "yard"
    write_recording(path, drive)
    return path


@pytest.fixture(scope="module")
def views(drive) -> list[View]:
    return views_of(drive)


@pytest.fixture(scope="module")
def made(bag: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    make_dataset(folder, [bag], EVERYTHING)
    return folder


def times(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*.*g")}


def test_frames_are_those_of_the_bag(made: Path, views: list[View]) -> None:
    dataset = load_dataset(made)
    assert [frame.stamp_ns for frame in dataset.frames] == [
        START_NS + i * PERIOD_NS for i in range(FRAMES)
    ]
    for index, (frame, truth) in enumerate(zip(dataset.frames, views, strict=True)):
        view = dataset.read(index)
        assert view.camera == truth.camera
        np.testing.assert_allclose(view.T_world_camera, truth.T_world_camera, atol=1e-9)
        known = np.isfinite(view.depth)
        np.testing.assert_array_equal(known, np.isfinite(truth.depth) & (truth.depth < 65.5355))
        assert np.abs(view.depth - truth.depth)[known].max() < 0.00051
        assert np.abs(view.image.astype(int) - truth.image).mean() < 4
        u, v = frame.pixels.astype(int).T
        np.testing.assert_allclose(frame.depths, view.depth[v, u], atol=1e-6)
        assert len(np.unique(frame.pixels, axis=0)) == LABELS


def test_the_end_is_held_out_and_no_pair_spans_both(made: Path) -> None:
    dataset = load_dataset(made)
    assert [frame.split for frame in dataset.frames] == ["train"] * 8 + ["held_out"] * 2
    splits = {
        (dataset.frames[p.first].split, dataset.frames[p.second].split, p.split)
        for p in dataset.listed
    }
    assert splits == {("train",) * 3, ("held_out",) * 3}
    assert len(read_depthlm(made / "frames.jsonl").contents) == FRAMES
    held_out = read_depthlm(made / "held_out.jsonl")
    assert len(held_out.contents) == 2
    np.testing.assert_array_equal(held_out.line(0).depth, dataset.frames[8].depths)


def test_covisibility_equals_that_of_the_scene(made: Path, views: list[View]) -> None:
    dataset = load_dataset(made)
    assert len(dataset.listed) > FRAMES
    for pair in dataset.listed:
        first, second = views[pair.first], views[pair.second]
        assert pair.covisibility >= MIN_COVISIBILITY
        assert pair.covisibility == pytest.approx(covisibility(first, second), abs=0.12)
        motion = inverse(first.T_world_camera) @ second.T_world_camera
        assert pair.baseline_m == pytest.approx(np.linalg.norm(motion[:3, 3]))


def test_an_interrupted_run_continues(bag: Path, made: Path, tmp_path: Path) -> None:
    class Interruption(Exception):
        pass

    def interrupt(done: int, total: int) -> None:
        if done == 4:
            raise Interruption

    with pytest.raises(Interruption):
        make_dataset(tmp_path, [bag], EVERYTHING, interrupt)
    with pytest.raises(DatasetError, match="also finishes"):
        load_dataset(tmp_path)
    before = times(tmp_path)
    assert len(before) == 8
    with (tmp_path / "bags" / "yard.jsonl").open("a") as journal:
        journal.write('{"image": "images/ya')  # as after a power cut
    make_dataset(tmp_path, [bag], EVERYTHING)
    assert before.items() <= times(tmp_path).items()
    for name in ("frames.jsonl", "pairs.jsonl", "held_out.jsonl", "dataset.json"):
        assert (tmp_path / name).read_text() == (made / name).read_text()
    assert not list(tmp_path.rglob("*.part"))


def test_finished_bags_stay_and_others_are_added(bag: Path, tmp_path: Path) -> None:
    make_dataset(tmp_path, [bag], EVERYTHING)
    before = times(tmp_path)
    other = tmp_path / "other_bag"
    write_recording(other, drive_of(4, seed=3))
    make_dataset(tmp_path, [bag, other], EVERYTHING)
    assert before.items() <= times(tmp_path).items()
    dataset = load_dataset(tmp_path)
    assert [frame.bag for frame in dataset.frames] == ["other_bag"] * 4 + ["yard"] * FRAMES
    assert all(dataset.frames[p.first].bag == dataset.frames[p.second].bag for p in dataset.listed)
    with pytest.raises(DatasetError, match="jpeg_quality was 90, is 50"):
        make_dataset(tmp_path, [bag], replace(EVERYTHING, jpeg_quality=50))
    with pytest.raises(DatasetError, match=r"\(selection.min_gap was 0.0, is 0.5\)"):
        make_dataset(tmp_path, [bag], replace(EVERYTHING, selection=replace(ALL, min_gap=0.5)))
    with pytest.raises(DatasetError, match="two bags have the name 'yard'"):
        make_dataset(tmp_path, [bag, bag], EVERYTHING)


@pytest.mark.parametrize("name", ["frames.jsonl", "dataset.json", "bags/yard_2.json"])
def test_other_files_are_not_overwritten(bag: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text('{"image": "mine.jpg"}')
    with pytest.raises(
        DatasetError, match=rf"{name}: it (is not a bag|does not belong).*choose another folder"
    ):
        make_dataset(tmp_path, [bag], EVERYTHING)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / name]


@pytest.mark.parametrize("form", ["yard.bag", "yard"])
def test_other_kinds_of_bags(bag: Path, made: Path, tmp_path: Path, form: str) -> None:
    convert(
        srcs=[bag],
        dst=tmp_path / form,
        dst_storage="sqlite3",
        dst_version=8,
        compress=None,
        compress_mode="file",
        default_typestore=None,
        typestore=None,
        exclude_topics=[],
        include_topics=[],
        exclude_msgtypes=[],
        include_msgtypes=[],
    )
    make_dataset(tmp_path / "made", [tmp_path / form], EVERYTHING)
    assert (tmp_path / "made" / "pairs.jsonl").read_text() == (made / "pairs.jsonl").read_text()


def test_without_poses_only_depth_is_made_and_a_fact_says_so(drive, tmp_path: Path) -> None:
    write_recording(tmp_path / "bag", drive, with_poses=False)
    description = make_dataset(tmp_path / "made", [tmp_path / "bag"], EVERYTHING)
    dataset = load_dataset(tmp_path / "made")
    assert len(dataset.frames) == FRAMES
    assert not dataset.listed
    assert np.isnan(dataset.read(0).T_world_camera).all()
    assert "nothing moves in TF" in description["bags"][0]["no_poses"]
    assert str(tmp_path) not in (tmp_path / "made" / "dataset.json").read_text()


def test_depth_in_another_frame_is_noted(drive, tmp_path: Path) -> None:
    def elsewhere(view: View, stamp: int) -> list:
        return [
            (
                DEPTH_TOPIC,
                depth_message(ROSBAGS.header(stamp, "depth_optical"), view.depth, "32FC1"),
            )
        ]

    write_recording(tmp_path / "bag", drive, elsewhere)
    part = make_dataset(tmp_path / "made", [tmp_path / "bag"], EVERYTHING)["bags"][0]
    (note,) = part["notes"]
    assert "depth is in frame 'depth_optical', images in 'optical'" in note


def test_depth_from_another_place_is_refused_until_it_is_named(drive, tmp_path: Path) -> None:
    def next_to_camera(view: View, stamp: int) -> list:
        T_optical_depth = transform(Rotation.identity(), (0.015, 0.0, 0.0))
        return [
            (
                "/tf_static",
                tf_message(ROSBAGS.header(stamp, "optical"), "depth_optical", T_optical_depth),
            ),
            (
                DEPTH_TOPIC,
                depth_message(ROSBAGS.header(stamp, "depth_optical"), view.depth, "32FC1"),
            ),
        ]

    write_recording(tmp_path / "bag", drive, next_to_camera)
    with pytest.raises(BagError, match=r"'depth_optical', 15 mm from 'optical'.*--depth-topic"):
        make_dataset(tmp_path / "made", [tmp_path / "bag"], EVERYTHING)
    with open_recording(tmp_path / "bag", TopicOptions(depth=DEPTH_TOPIC)) as recording:
        (note,) = recording.notes
    assert "depth was taken as registered" in note


def test_missing_topics_are_named(drive, tmp_path: Path) -> None:
    write_recording(tmp_path / "blind", drive, with_images=False)
    with pytest.raises(
        BagError, match=r"no image topic, only depth \(/camera/depth\); the bag has"
    ):
        make_dataset(tmp_path / "made", [tmp_path / "blind"], EVERYTHING)
    write_recording(tmp_path / "flat", drive, lambda view, stamp: [])
    with pytest.raises(BagError, match=r"neither depth images nor .*LiDAR.*image_raw"):
        make_dataset(tmp_path / "made", [tmp_path / "flat"], EVERYTHING)


def test_depth_too_far_in_time_is_reported_with_its_distance(drive, tmp_path: Path) -> None:
    def late(view: View, stamp: int) -> list:
        return float_depth(view, stamp + 50_000_000)

    strict = replace(EVERYTHING, topics=TopicOptions(max_offset=0.01))

    def sometimes_late(view: View, stamp: int) -> list:
        return late(view, stamp) if stamp % (2 * PERIOD_NS) else float_depth(view, stamp)

    write_recording(tmp_path / "late", drive, late)
    with pytest.raises(
        BagError,
        match=rf"none of the {FRAMES} images has depth within 0.01 s.*"
        r"'/camera/depth' is 0.050 s away",
    ):
        make_dataset(tmp_path / "made", [tmp_path / "late"], strict)
    write_recording(tmp_path / "half", drive, sometimes_late)
    part = make_dataset(tmp_path / "made", [tmp_path / "half"], strict)["bags"][0]
    (reason,) = part["left_out"]
    assert "0.050 s away" in reason
    assert part["left_out"][reason] == FRAMES - part["frames"] > 0


@pytest.mark.parametrize(("factor", "advice"), [(1000.0, "0.001"), (0.001, "1000")])
def test_depth_of_another_unit_is_refused_until_the_scale_is_given(
    bag: Path, made: Path, drive, tmp_path: Path, factor: float, advice: str
) -> None:
    def scaled(view: View, stamp: int) -> list:
        depth = view.depth * np.float32(factor)
        return [(DEPTH_TOPIC, depth_message(ROSBAGS.header(stamp, "optical"), depth, "32FC1"))]

    write_recording(tmp_path / "yard", drive, scaled)
    with pytest.raises(
        DatasetError, match=rf"median depth on '/camera/depth' .*--depth-scale {advice} "
    ):
        make_dataset(tmp_path / "made", [tmp_path / "yard"], EVERYTHING)
    make_dataset(
        tmp_path / "made", [tmp_path / "yard"], replace(EVERYTHING, depth_scale=float(advice))
    )
    wrong, right = load_dataset(tmp_path / "made"), load_dataset(made)
    for index in range(FRAMES):
        np.testing.assert_allclose(wrong.read(index).depth, right.read(index).depth, atol=0.0011)


def test_depth_of_another_size_is_refused(drive, tmp_path: Path) -> None:
    def cropped(view: View, stamp: int) -> list:
        return [
            (DEPTH_TOPIC, depth_message(ROSBAGS.header(stamp, "optical"), view.depth[::2], "32FC1"))
        ]

    write_recording(tmp_path / "bag", drive, cropped)
    with pytest.raises(BagError, match="192x72, the image 192x144: it is not registered"):
        make_dataset(tmp_path / "made", [tmp_path / "bag"], EVERYTHING)


def test_depth_without_a_known_pixel_is_refused(drive, tmp_path: Path) -> None:
    def empty(view: View, stamp: int) -> list:
        return float_depth(replace(view, depth=np.full_like(view.depth, np.nan)), stamp)

    write_recording(tmp_path / "bag", drive, empty)
    with pytest.raises(DatasetError, match=r"no frame can be used: 10 times: fewer than 10 pixels"):
        make_dataset(tmp_path / "made", [tmp_path / "bag"], EVERYTHING)
    assert not list((tmp_path / "made" / "bags").iterdir())  # other options may be tried


def test_the_intact_part_of_a_truncated_bag_is_used(tmp_path: Path) -> None:
    whole = (sample_bag() / "sample.mcap").read_bytes()
    (tmp_path / "cut.mcap").write_bytes(whole[: len(whole) // 4])
    part = make_dataset(tmp_path / "made", [tmp_path / "cut.mcap"], EVERYTHING)["bags"][0]
    assert 2 <= part["frames"] < 30
    assert part["pairs"] > 0
    assert any("cut.mcap: the recording is truncated" in note for note in part["notes"])


def test_a_full_disk_is_reported_and_the_run_continues_later(
    bag: Path, made: Path, tmp_path: Path
) -> None:
    """/dev/full is the kernel's simulation of a full disk."""
    place = tmp_path / "depth" / "yard" / f"{START_NS + 3 * PERIOD_NS}.png.part"
    place.parent.mkdir(parents=True)
    place.symlink_to("/dev/full")
    with pytest.raises(DatasetError, match=r"the disk is full .*png\); make room") as caught:
        make_dataset(tmp_path, [bag], EVERYTHING)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENOSPC
    make_dataset(tmp_path, [bag], EVERYTHING)
    assert (tmp_path / "frames.jsonl").read_text() == (made / "frames.jsonl").read_text()


def test_stored_bytes_are_bounded(bag: Path, made: Path, tmp_path: Path) -> None:
    few = replace(EVERYTHING, selection=replace(ALL, max_images=4))
    part = make_dataset(tmp_path / "few", [bag], few)["bags"][0]
    assert part["frames"] == 4
    assert part["left_out"] == {"more than 4 of a bag": FRAMES - 4}
    frames = load_dataset(tmp_path / "few").frames
    assert {frame.split for frame in frames} == {"train", "held_out"}
    total = json.loads((made / "dataset.json").read_text())["stored_bytes"]
    small = replace(EVERYTHING, max_bytes=total // 2)
    description = make_dataset(tmp_path / "small", [bag], small)
    stored = sum(path.stat().st_size for path in (tmp_path / "small").rglob("*.*g"))
    assert 0.3 * total < stored == description["stored_bytes"] < 0.6 * total
    assert load_dataset(tmp_path / "small").frames[-1].split == "held_out"
    with pytest.raises(DatasetError, match="--max-bytes leaves 100 for this bag"):
        make_dataset(tmp_path / "tiny", [bag], replace(EVERYTHING, max_bytes=100))


T_BASE_LIDAR = transform(Rotation.from_euler("z", 40, degrees=True), (0.05, 0.0, 1.0))


def test_the_scans_of_a_lidar_give_depth(drive, tmp_path: Path) -> None:
    T_lidar_camera = inverse(T_BASE_LIDAR) @ drive.T_base_camera

    def scan(view: View, stamp: int) -> list:
        pixels = view.camera.pixel_grid()[1::5, 1::3].reshape(-1, 2)
        u, v = pixels.astype(int).T
        points = view.camera.unproject(pixels, view.depth[v, u])
        points = points[np.isfinite(points).all(axis=1)]
        seen = points @ T_lidar_camera[:3, :3].T + T_lidar_camera[:3, 3]
        static = tf_message(ROSBAGS.header(stamp, "base"), "lidar", T_BASE_LIDAR)
        return [("/tf_static", static), ("/points", cloud_message(seen, stamp, "lidar"))]

    views = write_recording(tmp_path / "bag", drive, scan)
    part = make_dataset(tmp_path / "made", [tmp_path / "bag"], EVERYTHING)["bags"][0]
    assert part["topics"]["depth"] == "/points"
    dataset = load_dataset(tmp_path / "made")
    assert len(dataset.frames) == FRAMES
    for index, view in enumerate(views):
        depth = dataset.read(index).depth
        known = np.isfinite(depth)
        assert 0.03 < known.mean() < 1 / 15
        np.testing.assert_allclose(depth[known], view.depth[known], atol=0.002)
    assert len(dataset.listed) > FRAMES / 2
    for pair in dataset.listed:
        truth = covisibility(views[pair.first], views[pair.second])
        assert pair.covisibility == pytest.approx(truth, abs=0.2)


def test_a_lidar_unknown_to_tf_is_reported(drive, tmp_path: Path) -> None:
    def scan(view: View, stamp: int) -> list:
        return [("/points", cloud_message(np.ones((5, 3)), stamp, "lidar"))]

    write_recording(tmp_path / "bag", drive, scan)
    with pytest.raises(BagError, match="TF does not connect 'lidar' to 'optical'"):
        make_dataset(tmp_path / "made", [tmp_path / "bag"], EVERYTHING)


def test_named_topics_are_used_and_checked(bag: Path, tmp_path: Path) -> None:
    options = replace(EVERYTHING, topics=TopicOptions(lidar="/points"))
    with pytest.raises(BagError, match="no topic '/points'; the bag has"):
        make_dataset(tmp_path, [bag], options)
    options = replace(EVERYTHING, topics=TopicOptions(depth=DEPTH_TOPIC, ground_truth="/odom"))
    assert make_dataset(tmp_path, [bag], options)["counts"]["train"]["frames"] == 8


def test_an_empty_bag_is_reported(tmp_path: Path) -> None:
    with write_bag(tmp_path / "empty"):
        pass
    with pytest.raises(BagError, match="the bag has no topics"):
        make_dataset(tmp_path / "made", [tmp_path / "empty"], EVERYTHING)
