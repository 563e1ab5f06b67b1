# SPDX-License-Identifier: Apache-2.0
"""Build and install the package with colcon."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parents[1]

pytest.importorskip("colcon_ros")


pytestmark = pytest.mark.slow


def colcon(*arguments: str | Path, cwd: Path) -> str:
    """Run colcon and return its standard output; its log folder is in `cwd`."""
    command = [sys.executable, "-m", "colcon", *arguments]
    answer = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


@pytest.fixture(scope="module", params=[(), ("--symlink-install",)], ids=["copied", "linked"])
def prefix(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the package by `colcon build`, with and without links; return the folder."""
    workspace = tmp_path_factory.mktemp("workspace")
    (workspace / "src").symlink_to(ROOT)
    colcon("build", *request.param, cwd=workspace)
    return workspace / "install" / "vlm3_ros"


def run_installed(prefix: Path, *command: str | Path) -> str:
    """The output of a command that runs as in a sourced workspace."""
    (packages,) = prefix.glob("lib/python*/site-packages")
    answer = subprocess.run(
        command,
        cwd="/",
        env={**os.environ, "PYTHONPATH": f"{packages}{os.pathsep}{linked_packages(prefix)}"},
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def linked_packages(prefix: Path) -> Path:
    return prefix.parents[1] / "build" / "vlm3_ros"


def test_colcon_recognises_an_ament_python_package(tmp_path):
    listed = colcon("list", "--base-paths", ROOT, cwd=tmp_path)
    assert listed.split("\t")[0] == "vlm3_ros"
    assert listed.split("\t")[2].strip() == "(ros.ament_python)"


def test_programs_and_data_are_installed_where_ros_looks(prefix):
    share = prefix / "share" / "vlm3_ros"
    for file in ("package.xml", "launch/depth.launch.py", "config/depth.yaml"):
        assert (share / file).read_text() == (ROOT / file).read_text()
    assert (prefix / "share/ament_index/resource_index/packages/vlm3_ros").is_file()
    for program in (
        "bag_player",
        "depth_node",
        "perception_node",
        "pose_node",
        "query_node",
        "vlm3",
    ):
        assert os.access(prefix / "lib" / "vlm3_ros" / program, os.X_OK)
    assert not list(share.rglob("__pycache__"))


def test_the_installation_finds_its_own_data(prefix):
    code = (
        "from vlm3_ros.paths import share_folder; print(share_folder());"
        "from vlm3_ros.language.prompts import load_prompt_set; load_prompt_set('vlm3')"
    )
    share = Path(run_installed(prefix, sys.executable, "-c", code).strip())
    assert share in (prefix / "share" / "vlm3_ros", ROOT)
    for folder in ("bags", "config", "models"):
        expected = {file.relative_to(ROOT) for file in (ROOT / folder).rglob("*") if file.is_file()}
        assert {
            f.relative_to(share) for f in (share / folder).rglob("*") if f.is_file()
        } == expected


def test_the_installed_command_runs(prefix):
    usage = run_installed(prefix, prefix / "lib" / "vlm3_ros" / "vlm3", "--help")
    for command in ("ask", "demo", "evaluate"):
        assert command in usage


def test_package_xml_names_every_ros_package_that_is_imported():
    imported = set()
    for file in (ROOT / "vlm3_ros").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imported.add(node.module.split(".")[0])
            elif isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
    of_ros = {name for name in imported if re.search(r"_(msgs|interfaces|py|ros)$|^rclpy$", name)}
    assert {"rclpy", "sensor_msgs"} <= of_ros
    manifest = ElementTree.parse(ROOT / "package.xml").getroot()
    named = {item.text for item in manifest.iter("exec_depend")}
    # The package tf2_ros is C++; its Python module is in another one.
    assert {"tf2_ros_py" if name == "tf2_ros" else name for name in of_ros - {"vlm3_ros"}} <= named


def test_package_xml_and_setup_py_agree():
    manifest = ElementTree.parse(ROOT / "package.xml").getroot()
    keys = ("--name", "--version", "--license")
    answer = subprocess.check_output([sys.executable, "setup.py", *keys], cwd=ROOT, text=True)
    described = [manifest.findtext(tag) for tag in ("name", "version", "license")]
    assert answer.split()[-3:] == described
