"""README.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_the_parameter_tables_are_the_nodes_own(monkeypatch):
    pytest.importorskip("rclpy")
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    from parameter_table import parameter_table

    from vlm3_ros.nodes.depth_node import DepthParameters
    from vlm3_ros.nodes.pose_parameters import PoseParameters

    tables = (
        parameter_table(DepthParameters),
        parameter_table(PoseParameters, beyond=DepthParameters),
    )
    assert all(f"{table}\n\n" in README for table in tables), (
        "run `python tools/parameter_table.py` and put its tables into README.md"
    )


def test_links_and_pictures_exist():
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", README)
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"`?make ([a-z][a-z-]*)`?", README)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"make {target}"
