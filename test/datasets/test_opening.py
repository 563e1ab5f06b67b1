# SPDX-License-Identifier: Apache-2.0
"""`FORMAT:PATH` opens a data set."""

from __future__ import annotations

from pathlib import Path

import pytest
from rgbd_folders import drive_views, write_folder

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


def test_an_option_that_a_format_does_not_take_is_refused():
    options = SourceOptions(camera=GivenCamera(hfov=60.0))
    with pytest.raises(DatasetError, match=r"folder takes no camera, which is for .*tum"):
        open_source("folder:x", options)
