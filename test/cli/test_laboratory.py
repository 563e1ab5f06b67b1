# SPDX-License-Identifier: Apache-2.0
"""`vlm3` without vlm3_lab installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlm3_ros.paths import default_model

# With None in sys.modules, Python refuses to import a module.
WITHOUT_LAB = """
import sys
sys.modules["vlm3_lab"] = None
from vlm3_ros.cli import main
sys.exit(main())
"""
LAB_COMMANDS = ("ablate", "bench", "dataset", "figure", "sample-bag", "train")


def vlm3(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT_LAB, *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_help_names_the_missing_commands():
    answer = vlm3("--help")
    assert answer.returncode == 0
    lines = " ".join(answer.stdout.split())
    assert lines.count("(not installed: needs vlm3_lab)") == len(LAB_COMMANDS)
    for name in (*LAB_COMMANDS, "ask", "demo", "evaluate", "bag-from-rgbd"):
        assert f" {name} " in lines


@pytest.mark.parametrize(
    ("arguments", "feature"),
    [
        (["train", "x.yaml", "--out", "run"], "`vlm3 train`"),
        (["sample-bag"], "`vlm3 sample-bag`"),
        (["evaluate", "--synthetic", "5", "--out", "x"], "--synthetic"),
    ],
)
def test_a_missing_command_says_in_one_line_what_to_install(arguments, feature):
    answer = vlm3(*arguments)
    assert answer.returncode == 2
    assert answer.stderr == (
        f"vlm3: {feature} needs the package vlm3_lab, which is not installed: "
        "run `pip install .` in a checkout of vlm3_ros\n"
    )


def test_a_photo_is_answered_without_it(tmp_path: Path):
    photo = tmp_path / "photo.png"
    Image.fromarray(np.full((240, 320, 3), 128, np.uint8)).save(photo)
    model = ["--model", str(default_model()), "--device", "cpu"]
    answer = vlm3("ask", str(photo), "--hfov", "60", "--pixel", "160", "120", *model)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.startswith("pixel (160, 120): ")


def test_help_imports_neither_torch_nor_ros():
    code = "import sys; from vlm3_ros.cli import build_parser; build_parser(); print(*sys.modules)"
    modules = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert "vlm3_lab.cli.train" in modules
    assert not {"accelerate", "cv2", "matplotlib", "rclpy", "torch", "transformers"} & set(modules)
