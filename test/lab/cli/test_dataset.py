# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from recordings import DEPTH_TOPIC, drive_of, write_recording

from vlm3_ros.cli import main
from vlm3_ros.datasets.own import load_dataset
from vlm3_ros.messages.classes import ROSBAGS
from vlm3_ros.messages.depth_images import depth_message

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bag") / "yard"
    write_recording(path, drive_of(12))
    return path


def test_a_bag_becomes_a_training_set_that_can_be_evaluated(
    bag: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["dataset", str(bag), "--out", str(tmp_path / "set")]
    command += ["--held-out", "0.25", "--held-out-gap", "0.5", "--min-motion", "0"]
    assert main(command) == 0
    output = capsys.readouterr().out
    assert "yard: poses: /odom (Odometry, 'base' in 'odom')" in output
    assert "10 of 12 images were kept; skipped: 2 times: less than 0.5 s before" in output
    assert re.search(r"train +7 +70 +\d+ +0", output)
    dataset = load_dataset(tmp_path / "set")
    assert [frame.split for frame in dataset.frames] == ["train"] * 7 + ["held_out"] * 3
    for name in ("frames", "pairs", "distributions"):
        picture = cv2.imread(str(tmp_path / "set" / "pictures" / f"{name}.png"))
        assert picture.shape[1] > 600
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 200
    page = (tmp_path / "set" / "report.html").read_text()
    assert len(re.findall('src="data:image', page)) == 3
    assert base64.b64encode((tmp_path / "set/pictures/pairs.png").read_bytes()).decode() in page
    assert main(command) == 0  # nothing is made again, everything is printed again
    assert capsys.readouterr().out == output

    scored = ["evaluate", str(tmp_path / "set" / "held_out.jsonl"), "--model", str(checkpoint)]
    assert main([*scored, "--out", str(tmp_path / "scores")]) == 0
    metrics = json.loads((tmp_path / "scores" / "metrics.json").read_text())
    assert (metrics["depth"]["images"], metrics["depth"]["pixels"]) == (3, 30)


def test_errors_that_a_user_can_fix_are_one_line(
    bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def millimetres(view, stamp: int) -> list:
        return [
            (
                DEPTH_TOPIC,
                depth_message(ROSBAGS.header(stamp, "optical"), view.depth * 1000, "32FC1"),
            )
        ]

    write_recording(tmp_path / "mm", drive_of(2), millimetres)
    assert main(["dataset", str(tmp_path / "mm"), "--out", str(tmp_path / "set")]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("vlm3: ") and errors.count("\n") == 1
    assert "--depth-scale 0.001" in errors
    assert main(["dataset", str(tmp_path / "none"), "--out", str(tmp_path / "set")]) == 2
    assert "there is no such bag" in capsys.readouterr().err
    assert main(["dataset", str(bag), "--out", str(tmp_path), "--jpeg-quality", "101"]) == 2
    assert "use 1 to 100" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--held-out", "1", "is not a share: use 0 or more, below 1"),
        ("--max-bytes", "lots", "not a number of bytes such as 500M or 4G"),
        ("--min-motion", "-1", "is not a number of at least 0"),
    ],
)
def test_invalid_options_are_refused(
    bag: Path, capsys: pytest.CaptureFixture[str], option: str, value: str, message: str
) -> None:
    with pytest.raises(SystemExit):
        main(["dataset", str(bag), "--out", "never", f"{option}={value}"])
    assert message in capsys.readouterr().err
