# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from vlm3_ros.bags.reading import open_bag
from vlm3_ros.bags.topics import find_camera_topics
from vlm3_ros.cli import main


def test_a_sample_bag_is_rendered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["sample-bag", str(tmp_path / "bag"), "--kind", "room", "--seed", "7"]
    assert main([*command, "--duration", "2", "--frame-rate", "5"]) == 0
    assert "wrote 10 frames" in capsys.readouterr().out
    with open_bag(tmp_path / "bag") as bag:
        assert bag.topics[find_camera_topics(bag).image].count == 10


def test_an_unknown_kind_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample-bag", str(tmp_path / "bag"), "--kind", "moon"]) == 2
    assert "'moon': use room, corridor, yard, street" in capsys.readouterr().err


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample-bag", str(tmp_path)]) == 2
    assert "exists already" in capsys.readouterr().err
