# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from gpu_check import __main__ as command
from gpu_check import running
from gpu_check.extent import FULL, TINY
from gpu_check.page import gpu_page
from gpu_check.parts import TOTAL_S, check_parts
from gpu_check.running import Outcome, Part, run_parts

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"

WITHOUT_ROS = ("rclpy", "sensor_msgs", "std_msgs", "geometry_msgs", "nav_msgs")


@pytest.mark.slow
def test_the_tiny_check_runs_every_part_without_ros_and_without_a_gpu(tmp_path):
    absent = tmp_path / "absent"
    absent.mkdir()
    for name in WITHOUT_ROS:
        (absent / f"{name}.py").write_text(f"raise ImportError('{name} is absent')\n")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, (absent, ROOT, ROOT / "tools"))),
        "CUDA_VISIBLE_DEVICES": "",
    }
    out = tmp_path / "out"
    arguments = [sys.executable, "-m", "gpu_check", "--tiny", "--out", out]
    answer = subprocess.run(
        arguments, env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    result = json.loads((out / "gpu.json").read_text())
    parts = {part["name"]: part for part in result["parts"]}
    assert list(parts) == [part.name for part in check_parts(TINY)]
    assert [part["failure"] for part in parts.values()] == [None] * len(parts)
    assert [row["equal"] for row in parts["float32"]["rows"]] == [TINY.compared] * 4
    assert [(row["grid"], row["method"]) for row in parts["bench-vlm3"]["rows"]] == [
        ("4x3", "engine-forced"),
        ("4x3", "engine"),
        ("4x3", "packed"),
        ("4x3", "naive"),
        ("6x4", "engine-forced"),
        ("6x4", "engine"),
    ]
    for name in ("training-tiny", "training-lora"):
        assert parts[name]["rows"][0]["samples_per_s"] > 0
    page = (out / "gpu.md").read_text()
    assert "This is a trial on a CPU" in page
    assert "no GPU could be had" not in page


@pytest.fixture
def light(monkeypatch):
    """Parts that need no torch: their processes start at once."""
    monkeypatch.setattr(running, "PRELOADED", [])


def run(parts: list[Part], folder: Path, total_s: int = 60) -> dict[str, Outcome]:
    return {outcome.name: outcome for outcome in run_parts(parts, folder, total_s)}


def test_a_part_that_ends_early_keeps_its_rows_and_does_not_stop_the_others(light, tmp_path):
    late = tmp_path / "late"
    outcomes = run(
        [
            Part("fails", 30, "gpu_parts:failing"),
            Part("killed", 30, "gpu_parts:killed"),
            Part("absent", 30, "no_such_module:measure"),
            Part("hangs", 15, "gpu_parts:hanging", (17, str(late))),
            Part("whole", 30, "gpu_parts:rows", (2,)),
        ],
        tmp_path,
    )
    first = [{"number": 0}]
    assert outcomes["fails"].rows == outcomes["killed"].rows == outcomes["hangs"].rows == first
    assert outcomes["fails"].failure == "ValueError: no such model"
    assert "Traceback" in (tmp_path / "fails.log").read_text()
    assert outcomes["killed"].failure == (
        "was killed (exit status -9), probably because memory ran out"
    )
    assert outcomes["absent"].failure == "ModuleNotFoundError: No module named 'no_such_module'"
    assert outcomes["hangs"].failure == "took longer than 15 s"
    assert outcomes["whole"].rows == [{"number": 0}, {"number": 1}]
    assert outcomes["whole"].failure is None
    time.sleep(4)
    assert not late.exists(), "its own processes are ended with it"


def test_the_whole_check_keeps_its_time(light, tmp_path):
    parts = [
        Part("hangs", 30, "gpu_parts:hanging", (60, "/dev/null")),
        Part("late", 30, "gpu_parts:rows", (1,)),
    ]
    start = time.monotonic()
    outcomes = run(parts, tmp_path, total_s=2)
    assert time.monotonic() - start < 45
    assert outcomes["hangs"].failure == "took longer than 2 s"
    assert outcomes["late"].failure == "no time was left"


def test_the_parts_share_less_than_eight_minutes():
    assert sum(part.limit_s for part in check_parts(FULL)) <= TOTAL_S < 8 * 60


def test_without_a_gpu_the_check_says_how_to_try_it(monkeypatch, tmp_path, capsys):
    machine = Outcome("machine", [{"device": "cpu"}], None, 1.0)
    monkeypatch.setattr(command, "run_parts", lambda *_: iter([machine]))
    monkeypatch.setattr(command, "gpu_page", lambda result: "")
    monkeypatch.setattr(sys, "argv", ["gpu_check", "--out", str(tmp_path)])
    assert command.main() == 1
    assert "torch reaches no GPU here: --tiny runs the check on the CPU" in capsys.readouterr().err


def answers(dtype: str, equal: int) -> Outcome:
    row = {"model": "4b, random", "dtype": dtype, "answers": "free", "compared": 16, "equal": equal}
    return Outcome(dtype, [row], None, 1.0)


@pytest.mark.parametrize(("dtype", "status"), [("float32", 1), ("bfloat16", 0)])
def test_only_float32_must_be_exact(monkeypatch, tmp_path, capsys, dtype, status):
    monkeypatch.setattr(command, "run_parts", lambda *_: iter([answers(dtype, equal=15)]))
    monkeypatch.setattr(sys, "argv", ["gpu_check", "--out", str(tmp_path)])
    assert command.main() == status
    assert ("float32 differ" in capsys.readouterr().err) == bool(status)
    assert f"| 4b, random | {dtype} | free | 15/16 |" in (tmp_path / "gpu.md").read_text()


def test_the_page_of_a_gpu_names_it_and_what_failed():
    about = {
        "device": "cuda",
        "hardware": "NVIDIA H200",
        "memory_gb": 150.8,
        "cuda": "13.0",
        "cores": 16,
        "python": "3.12.3",
        "torch": "2.13.0",
        "transformers": "5.24.0",
        "numpy": "2.4.6",
    }
    speed = {"dtype": "bfloat16", "gb_per_s": 4000.0, "tflop_per_s": 700.0}
    parts = [
        {"name": "machine", "rows": [about, speed], "failure": None, "seconds": 20.0},
        {"name": "training-lora", "rows": [], "failure": "took longer than 70 s", "seconds": 70.0},
    ]
    page = gpu_page({"is_tiny": False, "seconds": 90.0, "parts": parts})
    assert "NVIDIA H200 with 150.8 GB, 16 CPU cores" in page
    assert "| training-lora | took longer than 70 s |" in page
    assert "trial on a CPU with" not in page


def test_docs_gpu_is_the_page_of_the_committed_results():
    file = DOCS / "gpu.json"
    result = json.loads(file.read_text()) if file.exists() else None
    assert (DOCS / "gpu.md").read_text() == gpu_page(result)
