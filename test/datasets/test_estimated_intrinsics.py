# SPDX-License-Identifier: Apache-2.0
"""Intrinsics are estimated once per image, also across interruptions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from vlm3_ros.cli import main
from vlm3_ros.datasets.estimated_intrinsics import estimate_intrinsics
from vlm3_ros.datasets.photo_cameras import read_intrinsics
from vlm3_ros.engines import anycalib
from vlm3_ros.errors import DatasetError
from vlm3_ros.geometry.camera import PinholeCamera


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    (folder / "below").mkdir(parents=True)
    for number, name in enumerate(["a.jpg", "below/b.png", "c.JPG"]):
        image = np.full((20 + number, 30, 3), 90, np.uint8)
        Image.fromarray(image).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    return folder


class Calibrator:
    def __init__(self, most: int = 99) -> None:
        self.asked, self.most = 0, most

    def __call__(self, image: NDArray[np.uint8]) -> PinholeCamera:
        if self.asked == self.most:
            raise KeyboardInterrupt
        self.asked += 1
        height, width = image.shape[:2]
        return PinholeCamera(width, height, 40.0 + height, 40.0 + height, 14.5, 10.0)


def test_an_interrupted_run_goes_on(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "intrinsics.jsonl"
    steps: list[tuple[int, int]] = []
    with pytest.raises(KeyboardInterrupt):
        estimate_intrinsics(images, out, Calibrator(1), lambda *step: steps.append(step))
    with out.open("a") as lines:
        lines.write('{"image": "below/b.p')  # killed while it wrote
    calibrate = Calibrator()
    assert estimate_intrinsics(images, out, calibrate, lambda *step: steps.append(step)) == (3, [])
    assert calibrate.asked == 2
    assert steps == [(1, 3), (1, 3), (2, 3), (3, 3)]
    table = read_intrinsics(out)
    assert table.camera("below/b.png") == PinholeCamera(30, 21, 61.0, 61.0, 14.5, 10.0)
    assert table.camera("c.JPG") == PinholeCamera(30, 22, 62.0, 62.0, 14.5, 10.0)


def test_the_command(
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(anycalib, "load_anycalib", lambda device: Calibrator())
    (images / "a.jpg").write_bytes(b"half")
    out = tmp_path / "new" / "intrinsics.jsonl"
    assert main(["intrinsics", str(images), "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{out} has the intrinsics of 2 images\n"
    assert "left out: a.jpg: " in printed.err and "cannot be read" in printed.err
    assert main(["intrinsics", str(images), "--out", str(tmp_path / "out.json")]) == 2
    assert "name a .jsonl file" in capsys.readouterr().err


def test_folders_without_images_and_other_files_are_refused(images: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="there are no images"):
        estimate_intrinsics(tmp_path / "empty", tmp_path / "a.jsonl", Calibrator(), print)
    out = tmp_path / "other.jsonl"
    out.write_text('{"frames": 3}\n')
    with pytest.raises(DatasetError, match="it holds other lines than intrinsics"):
        estimate_intrinsics(images, out, Calibrator(), print)


def test_anycalib_is_asked_for_where_it_is_missing(
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(anycalib, "is_installed", lambda: False)
    assert main(["intrinsics", str(images), "--out", str(tmp_path / "a.jsonl")]) == 2
    assert f"anycalib is not installed: {anycalib.INSTALL}" in capsys.readouterr().err
