# SPDX-License-Identifier: Apache-2.0
"""`vlm3 evaluate spatialrgpt:FILE`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from spatialrgpt_files import bench_entries, views_of_objects, write_bench

from vlm3_ros.cli import main
from vlm3_ros.engines import anycalib
from vlm3_ros.geometry.camera import PinholeCamera


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six questions about one image, whose intrinsics are unknown."""
    views = views_of_objects(1)
    path = tmp_path_factory.mktemp("bench") / "bench.json"
    entries = bench_entries(views, 6, K=None)
    entries[0]["qa_info"]["category"] = "red_predicate"
    write_bench(path, views, entries)
    return path


def evaluate(bench: Path, out: Path, *options: str) -> int:
    command = ["evaluate", f"spatialrgpt:{bench}", "--images", str(bench.parent)]
    return main([*command, "--out", str(out), *options])


def test_answers_about_objects_are_scored(
    bench: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(bench, tmp_path / "out", "--hfov", "60") == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["source"].items() >= {"kind": "spatialrgpt", "name": "bench.json"}.items()
    assert metrics["objects"]["questions"] == metrics["answers"]["objects"]["asked"] == 5
    assert metrics["frames"]["used"] == 5
    assert metrics["left_out"] == {}
    notes = metrics["notes"]
    assert notes["wording"].startswith("the checkpoint's own")
    assert "the category 'red_predicate' is unknown" in notes["questions without a score"]
    printed = capsys.readouterr().out
    assert "vlm3-tiny on bench.json" in printed
    assert "objects: lengths within 25 %" in printed or "objects: relations" in printed
    assert (tmp_path / "out" / "objects.png").stat().st_size > 10_000


def test_a_task_that_the_data_set_does_not_serve_is_refused(
    bench: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(bench, tmp_path / "out", "--hfov", "60", "--task", "depth") == 2
    assert "no frame has depth in metres" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ((), "entry 1: its camera is unknown: give a field of view (--hfov"),
        (("--hfov", "60", "--focal", "500"), "--focal is for depth only"),
        (("--hfov", "60", "--rate", "5"), "--rate is for bags, not for data sets"),
        (("--hfov", "60", "--hfov", "50"), "give --hfov or --camera-info once"),
        (("--hfov", "60", "--rerun", "a.rrd"), "--rerun is for"),
        (("--camera-info", "none.jsonl"), "none.jsonl: cannot be read"),
    ],
)
def test_one_line_says_what_is_wrong_before_a_model_is_loaded(
    options: tuple[str, ...],
    complaint: str,
    bench: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(anycalib, "is_installed", lambda: False)
    assert evaluate(bench, tmp_path / "out", "--model", "/no/model", *options) == 2
    error = capsys.readouterr().err
    assert complaint in error and len(error.splitlines()) == 1


def test_anycalib_serves_where_it_is_installed_and_nothing_is_given(
    bench: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, ...]] = []

    def camera(image: NDArray[np.uint8]) -> PinholeCamera:
        seen.append(image.shape)
        return PinholeCamera.from_hfov(image.shape[1], image.shape[0], 60.0)

    monkeypatch.setattr(anycalib, "is_installed", lambda: True)
    monkeypatch.setattr(anycalib, "load_anycalib", lambda: camera)
    assert evaluate(bench, tmp_path / "out") == 0
    assert len(seen) == 1, "six questions about one image"
    seen.clear()
    assert evaluate(bench, tmp_path / "out", "--hfov", "60") == 0
    assert not seen
