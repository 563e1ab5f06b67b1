# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from drives import write_drive
from PIL import Image

from vlm3_lab.studies.tasks.depth import evaluation_view
from vlm3_ros.bags.writing import write_bag
from vlm3_ros.cli import main
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.messages.cameras import camera_info_message
from vlm3_ros.messages.classes import ROSBAGS
from vlm3_ros.messages.images import jpeg_image_message

pytestmark = pytest.mark.slow


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def test_all_tasks_of_procedural_views_are_drawn(tmp_path, capsys):
    out = tmp_path / "new" / "figure.png"
    assert main(["figure", "--rows", "1", "--seed", "5", "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"wrote {out}\n"
    width, height = size(out)
    assert width > 1000
    assert height > 1000


def test_a_bag_has_no_objects(tmp_path, capsys):
    drive, out = tmp_path / "drive", tmp_path / "figure.png"
    write_drive(drive)
    assert main(["figure", str(drive), "--rows", "1", "--out", str(out)]) == 0
    assert "without objects" in capsys.readouterr().out
    assert size(out)[1] > 500


def test_a_bag_without_a_usable_image_is_refused(tmp_path, capsys):
    bag, camera = tmp_path / "bag", PinholeCamera.from_hfov(64, 48, 60.0)
    image = jpeg_image_message(ROSBAGS.header(0, "optical"), np.zeros((48, 64, 3), np.uint8))
    image.data = image.data[:100]
    with write_bag(bag) as writer:
        writer.write("/camera_info", camera_info_message(ROSBAGS.header(0, "optical"), camera), 0)
        writer.write("/image/compressed", image, 0)
    assert main(["figure", str(bag), "--out", str(tmp_path / "figure.png")]) == 2
    errors = capsys.readouterr().err
    assert "none of its images can be used: /image/compressed: " in errors


def test_photos_become_pairs_and_boxes_become_objects(tmp_path, capsys):
    out, photos = tmp_path / "figure.png", [tmp_path / "one.jpg", tmp_path / "two.png"]
    for index, photo in enumerate(photos):
        Image.fromarray(evaluation_view(1, 4 * index)[0].image).save(photo)
    boxes = ["--box", "10", "10", "60", "80", "--box", "70", "20", "110", "90"]
    command = ["figure", *map(str, photos), "--hfov", "70", *boxes, "--out", str(out)]
    assert main(command) == 0
    assert capsys.readouterr().out == f"wrote {out}\n"
    assert size(out)[1] > 1000


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--out", "figure.jpg"], "name a .png"),
        (["a.jpg", "--out", "figure.png"], "a.jpg: there is no such file"),
        (["drive", "--hfov", "60", "--out", "figure.png"], "are for photos"),
        (["drive", "other", "--out", "figure.png"], "figure takes photos, or one bag"),
        (["--box", "1", "2", "3", "4", "--out", "figure.png"], "--box is for photos"),
        (["a.jpg", "--hfov", "60", "--out", "figure.png"], "a.jpg: there is no such file"),
    ],
)
def test_invalid_options_are_refused(arguments, text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["figure", *arguments]) == 2
    assert text in capsys.readouterr().err
