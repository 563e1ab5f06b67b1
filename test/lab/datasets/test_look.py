# SPDX-License-Identifier: Apache-2.0
"""A look at a data set shows what is in it, and counts what cannot be read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rgbd_folders import drive_views, write_folder
from spatialrgpt_files import open_spatial_entries, views_of_objects, write_open_spatial

from vlm3_lab.datasets.look import BASELINE, COVISIBILITY, DEPTH, look_at, look_facts
from vlm3_ros.cli import main
from vlm3_ros.datasets.folder import read_folder
from vlm3_ros.datasets.views import View
from vlm3_ros.geometry.camera import PinholeCamera


@pytest.fixture
def views() -> list[View]:
    return drive_views(5, PinholeCamera(96, 72, 80.0, 82.0, 47.0, 36.5))


@pytest.fixture
def folder(views: list[View], tmp_path: Path) -> Path:
    write_folder(tmp_path / "room", views)
    return tmp_path / "room"


def test_distributions_are_those_of_the_views(views: list[View], folder: Path):
    look = look_at(read_folder(folder), 100)
    assert (look.frames, look.pairs) == (5, 5)
    true = np.concatenate([view.depth.ravel() for view in views])
    assert np.median(look.values[DEPTH]) == pytest.approx(np.median(true), rel=0.2)
    assert min(look.values[COVISIBILITY]) >= 0.25
    positions = np.stack([view.T_world_camera[:3, 3] for view in views])
    possible = np.linalg.norm(positions[:, None] - positions, axis=-1)
    assert all(np.abs(possible - metres).min() < 1e-5 for metres in look.values[BASELINE])


def test_the_command_draws_and_names_what_cannot_be_read(folder: Path, tmp_path: Path, capsys):
    (folder / "rgb/00003.png").write_bytes(b"torn")
    out = tmp_path / "out"
    assert main(["dataset", "--look", f"folder:{folder}", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "unreadable: 1 frames, such as" in printed
    assert "00003.png: the image cannot be read" in printed
    assert "Looked at 4 frames" in printed
    for name in ("frames.png", "pairs.png", "distributions.png", "report.html"):
        assert (out / name).stat().st_size > 10_000


def test_frames_without_poses_have_no_pairs(folder: Path):
    (folder / "poses.txt").unlink()
    look = look_at(read_folder(folder), 100)
    assert (look.frames, look.pairs) == (5, 0)
    assert look.values[COVISIBILITY] == []
    assert look_facts(look) == {"data set": str(folder)}


def test_conversations_are_shown_with_their_boxes(tmp_path: Path, capsys):
    views = views_of_objects(1)
    write_open_spatial(tmp_path / "open.json", views, open_spatial_entries(views))
    out = tmp_path / "out"
    source = f"spatialrgpt:{tmp_path / 'open.json'}"
    assert main(["dataset", "--look", source, "--hfov", "60", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "lengths in answers in m" in printed
    assert "conversations: 10 questions" in printed
    assert "frame 0: " in printed and "Region [" not in printed
    assert (out / "frames.png").stat().st_size > 10_000


@pytest.mark.parametrize("arguments", [[], ["drive.mcap", "--look", "folder:x"]])
def test_bags_and_a_look_exclude_each_other(arguments: list[str], tmp_path: Path, capsys):
    assert main(["dataset", *arguments, "--out", str(tmp_path)]) == 2
    assert "bags to make a training set from, or --look FORMAT:PATH" in capsys.readouterr().err
