# SPDX-License-Identifier: Apache-2.0
"""`FORMAT:PATH` opens a data set."""

from __future__ import annotations

from pathlib import Path

import pytest
from rgbd_folders import drive_views, write_folder, write_tum

from vlm3_ros.cli import main
from vlm3_ros.datasets.opening import SourceOptions, open_source
from vlm3_ros.errors import DatasetError
from vlm3_ros.geometry.calibration_files import GivenCamera
from vlm3_ros.geometry.camera import PinholeCamera


def test_a_format_and_a_path_open_a_data_set(tmp_path: Path):
    write_folder(tmp_path / "a:b", drive_views(2, PinholeCamera(96, 72, 80.0, 82.0, 47.0, 36.5)))
    source = open_source(f"folder:{tmp_path / 'a:b'}", SourceOptions())
    assert len(source.contents) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("drive.mcap", r"drive.mcap: expected FORMAT:PATH, where FORMAT is one of dataset, "),
        ("fodler:x", r"one of .*; did you mean folder:x\?"),
        ("/data/a:b", r"expected FORMAT:PATH"),
    ],
)
def test_another_text_is_refused(text: str, message: str):
    with pytest.raises(DatasetError, match=message):
        open_source(text, SourceOptions())


def test_a_folder_without_its_format_is_refused_with_the_format(tmp_path: Path):
    views = drive_views(1, PinholeCamera(32, 24, 30.0, 30.0, 15.5, 11.5))
    write_folder(tmp_path / "rooms/one", views)
    write_tum(tmp_path / "walk", views)
    for text, meant in (("rooms", "folder"), ("rooms/one", "folder"), ("walk", "tum")):
        path = str(tmp_path / text)
        with pytest.raises(DatasetError, match=rf"did you mean {meant}:{path}\?"):
            open_source(path, SourceOptions())
    assert main(["evaluate", path, "--out", str(tmp_path / "out")]) == 2


def test_a_path_may_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_folder(tmp_path / "room", drive_views(1, PinholeCamera(32, 24, 30.0, 30.0, 15.5, 11.5)))
    assert len(open_source("folder:~/room", SourceOptions()).contents) == 1


def test_a_format_without_a_path_is_refused():
    with pytest.raises(DatasetError, match="wai:: give the file or folder of the data set"):
        open_source("wai:", SourceOptions())


def test_an_option_that_a_format_does_not_take_is_refused():
    options = SourceOptions(camera=GivenCamera(hfov=60.0))
    with pytest.raises(DatasetError, match=r"folder takes no calibration or field .*are for .*tum"):
        open_source("folder:x", options)
