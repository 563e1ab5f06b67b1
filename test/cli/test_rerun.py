# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from drives import CAMERA, PERIOD_NS, START_NS, record_bag_truth, write_drive

from vlm3_ros.bags.reading import open_bag
from vlm3_ros.bags.writing import write_bag
from vlm3_ros.cli import main
from vlm3_ros.evaluation.bag.answers import GRID, BagAnswers
from vlm3_ros.evaluation.bag.evaluate import bag_source, evaluate_answers
from vlm3_ros.evaluation.rerun_log import log_bag
from vlm3_ros.geometry.motion import inverse
from vlm3_ros.messages.cameras import camera_info_message
from vlm3_ros.messages.classes import ROSBAGS
from vlm3_ros.messages.depth_images import depth_message
from vlm3_ros.messages.images import jpeg_image_message
from vlm3_ros.tasks.depth import uniform_grid

FRAMES = 6
PIXELS = GRID[0] * GRID[1]


def read_recording(path: Path) -> dict[str, dict[int, dict[str, list]]]:
    """The newest components of each entity, by nanoseconds; 0 for static ones."""
    found: dict[str, dict[int, dict[str, list]]] = {}
    for chunk in pytest.importorskip("rerun.chunk").RrdReader(path).stream():
        batch = chunk.to_record_batch()
        names = [name for name in batch.schema.names if ":" in name]
        stamps = [0] * chunk.num_rows
        if "stamp" in batch.schema.names:
            stamps = np.array(batch["stamp"]).astype("datetime64[ns]").astype(int).tolist()
        for row, stamp in enumerate(stamps):
            components = found.setdefault(chunk.entity_path, {}).setdefault(stamp, {})
            for name in names:
                if (value := batch[name][row].as_py()) is not None:
                    components[name.partition(":")[2]] = value
    return found


def transform(components: dict[str, list]) -> np.ndarray:
    """Rerun stores matrices by columns."""
    T = np.eye(4)
    T[:3, :3] = np.reshape(components["mat3x3"][0], (3, 3)).T
    T[:3, 3] = components["translation"][0]
    return T


def test_a_drive_is_written_with_cameras_clouds_and_trajectories(tmp_path):
    pytest.importorskip("rerun")
    drive, answers, file = tmp_path / "drive", tmp_path / "truth.jsonl", tmp_path / "drive.rrd"
    write_drive(drive)
    record_bag_truth(drive, answers)
    command = ["evaluate", str(drive), "--engine", "recorded", "--recording", str(answers)]
    assert main([*command, "--out", str(tmp_path / "out"), "--rerun", str(file)]) == 0

    found = read_recording(file)
    stamps = [START_NS + i * PERIOD_NS for i in range(FRAMES)]
    for entity in ("camera", "camera/view", "camera/view/truth", "camera/points", "odom/base"):
        assert sorted(found[f"/world/{entity}"]) == stamps, entity
    (way,) = found["/world/truth"][0]["strips"]
    (origin,) = found["/world/odom"].values()
    with open_bag(drive) as bag:
        odometry = [m.content.pose.pose.position for m in bag.messages(["/odom"])]
    true = np.array([(p.x, p.y, p.z) for p in odometry])
    np.testing.assert_allclose(way, true, atol=1e-5)
    pixels = uniform_grid(CAMERA, *GRID)
    u, v = np.rint(pixels).astype(int).T
    for index, stamp in enumerate(stamps):
        placed = transform(origin) @ transform(found["/world/odom/base"][stamp])
        np.testing.assert_allclose(placed[:3, 3], true[index], atol=1e-4)
        points = np.array(found["/world/camera/points"][stamp]["positions"])
        depth = np.frombuffer(
            np.array(found["/world/camera/view/truth"][stamp]["buffer"][0], np.uint8), np.float32
        ).reshape(CAMERA.height, CAMERA.width)
        known = depth[v, u] > 0
        np.testing.assert_allclose(CAMERA.project(points), pixels[known], atol=1e-3)
        np.testing.assert_allclose(points[:, 2], depth[v, u][known], rtol=1e-3)
        assert found["/errors/abs_rel"][stamp]["scalars"][0] < 1e-3


def test_each_node_may_answer_different_frames(tmp_path):
    pytest.importorskip("rerun")
    drive, file = tmp_path / "drive", tmp_path / "drive.rrd"
    write_drive(drive)
    stamps = [START_NS + i * PERIOD_NS for i in range(FRAMES)]
    with bag_source(drive) as source:
        poses = source.poses.base.at(stamps)
        answers = BagAnswers(
            frames=FRAMES,
            depths={stamps[i]: np.full(PIXELS, 2.0) for i in (2, 4)},
            odom={stamps[i]: inverse(poses[1]) @ poses[i] for i in (1, 2, 3)},
            starts={stamps[1]},
        )
        log_bag(evaluate_answers(source, "by hand", "online", answers), file)
    found = read_recording(file)
    (origin,) = found["/world/odom"].values()
    for i in (1, 2, 3):
        placed = transform(origin) @ transform(found["/world/odom/base"][stamps[i]])
        np.testing.assert_allclose(placed, poses[i], atol=1e-4)
    shown = {s: len(c["positions"]) for s, c in found["/world/camera/points"].items()}
    assert shown == {stamps[1]: 0, stamps[2]: PIXELS, stamps[3]: 0, stamps[4]: PIXELS}


def test_the_truth_of_one_image_is_not_shown_with_the_next(tmp_path):
    pytest.importorskip("rerun")
    bag, file, size = tmp_path / "bag", tmp_path / "bag.rrd", (CAMERA.height, CAMERA.width)
    stamps = (START_NS, START_NS + PERIOD_NS)
    with write_bag(bag) as writer:
        for stamp in stamps:
            info = camera_info_message(ROSBAGS.header(stamp, "optical"), CAMERA)
            image = jpeg_image_message(
                ROSBAGS.header(stamp, "optical"), np.zeros((*size, 3), np.uint8)
            )
            writer.write("/camera_info", info, stamp)
            writer.write("/image/compressed", image, stamp)
        depth = depth_message(
            ROSBAGS.header(stamps[0], "optical"), np.full(size, 3, np.float32), "32FC1"
        )
        writer.write("/depth", depth, stamps[1])
    with bag_source(bag) as source:
        answers = BagAnswers(
            frames=2,
            depths={stamp: np.full(PIXELS, 2.0) for stamp in stamps},
            odom=dict.fromkeys(stamps, np.eye(4)),
            starts={stamps[0]},
        )
        log_bag(evaluate_answers(source, "by hand", "online", answers), file)
    truth = read_recording(file)["/world/camera/view/truth"]
    assert "buffer" in truth[stamps[0]]
    assert list(truth[stamps[1]]) == ["is_recursive"]


def test_procedural_views_are_written_by_rank(tmp_path):
    chunk = pytest.importorskip("rerun.chunk")
    file = tmp_path / "views.rrd"
    command = ["evaluate", "--synthetic", "2", "--pixels", "4", "--matches", "1"]
    assert main([*command, "--out", str(tmp_path), "--rerun", str(file)]) == 0
    ranks = {
        rank
        for piece in chunk.RrdReader(file).stream()
        if piece.entity_path == "/world/camera/points"
        for rank in piece.to_record_batch()["rank"].to_pylist()
    }
    assert ranks == {0, 1}


@pytest.mark.parametrize("command", [["evaluate", "--synthetic", "1"], ["demo"]])
def test_without_rerun_the_command_refuses_at_once(command, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "rerun", None)
    out = tmp_path / "out"
    assert main([*command, "--out", str(out), "--rerun", str(tmp_path / "a.rrd")]) == 2
    assert "pip install rerun-sdk" in capsys.readouterr().err
    assert not out.exists()


def test_rerun_is_refused_if_there_is_nothing_to_show(tmp_path, capsys):
    data = tmp_path / "data.jsonl"
    data.touch()
    command = ["evaluate", str(data), "--out", str(tmp_path), "--rerun", str(tmp_path / "a.rrd")]
    assert main(command) == 2
    assert "--rerun is for procedural scenes" in capsys.readouterr().err
