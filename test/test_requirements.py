# SPDX-License-Identifier: Apache-2.0
"""Every package that is imported is declared: in setup.py for pip, in package.xml for rosdep."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from requirements import EXTRAS, REQUIREMENTS, versions

ROOT = Path(__file__).resolve().parents[1]
OWN = {"vlm3_ros", "vlm3_lab"}
MANIFEST = ElementTree.parse(ROOT / "package.xml").getroot()
OVER_APT = versions((ROOT / "tools" / "requirements_over_apt.txt").read_text().splitlines())

DISTRIBUTIONS = {
    "cv2": "opencv-python-headless",
    "PIL": "Pillow",
    "yaml": "PyYAML",
    "rerun": "rerun-sdk",
}
"""Packages whose name differs from that of their module."""

NOT_ON_PYPI = {"anycalib", "launch", "launch_ros", "ament_index_python"}
"""anycalib is installed from its repository, the others come with ROS."""

ROSDEP_KEYS = {
    "httpx": "python3-httpx",
    "matplotlib": "python3-matplotlib",
    "numpy": "python3-numpy",
    "opencv-python-headless": "python3-opencv",
    "packaging": "python3-packaging",
    "Pillow": "python3-pil",
    "PyYAML": "python3-yaml",
    "rich": "python3-rich",
    "rosbags": "python3-rosbags-pip",
    "scipy": "python3-scipy",
    "torch": "python3-pytorch-pip",
    "transformers": "python3-transformers-pip",
    "typing_extensions": "python3-typing-extensions",
}
"""Keys in rosdistro's rosdep/python.yaml that have a rule for Ubuntu 24.04."""

WITHOUT_KEY = {"huggingface_hub", "plotly", "rosbags-image", "safetensors"}


def imported(package: str) -> set[str]:
    """Distributions that the package's modules import from, without Python's own and ROS."""
    names = set()
    for file in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.split(".")[0])
            elif isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
    ros = {item.text for item in MANIFEST.iter("exec_depend")} | {"tf2_ros"}
    names -= set(sys.stdlib_module_names) | OWN | NOT_ON_PYPI | ros
    return {DISTRIBUTIONS.get(name, name) for name in names}


def test_pip_installs_what_the_robot_imports():
    optional = {*versions(EXTRAS["rerun"]), "OpenEXR"}
    assert imported("vlm3_ros") <= set(versions(REQUIREMENTS)) | optional


def test_pip_installs_what_the_laboratory_imports():
    declared = {*versions(REQUIREMENTS), *versions(EXTRAS["lab"]), *versions(EXTRAS["lora"])}
    assert imported("vlm3_lab") <= declared


def test_rosdep_or_pip_installs_each_requirement():
    assert set(versions(REQUIREMENTS)) == {*ROSDEP_KEYS, *WITHOUT_KEY}
    named = {item.text for item in MANIFEST.iter("exec_depend")}
    assert set(ROSDEP_KEYS.values()) <= named
    text = (ROOT / "package.xml").read_text()
    assert [name for name in WITHOUT_KEY if name not in text] == []
    # What transformers brings by itself needs no line for pip.
    with_pip = {name for name, key in ROSDEP_KEYS.items() if key.endswith("-pip")}
    assert with_pip | {"plotly", "rosbags-image"} <= set(OVER_APT)


def test_every_list_allows_the_same_transformers():
    assert OVER_APT["transformers"] == versions(REQUIREMENTS)["transformers"]


@pytest.mark.parametrize("page", ["README.md", "docs/install.md", "docker/Dockerfile"])
def test_rosdep_skips_what_pip_installs(page):
    skipped = " ".join(key for key in sorted(ROSDEP_KEYS.values()) if key.endswith("-pip"))
    assert skipped in (ROOT / page).read_text()


@pytest.mark.parametrize("distro", ["jazzy", "kilted"])
def test_one_source_of_versions(distro):
    """ROS's own wheels and their tools are the only other lists."""
    wheels = versions((ROOT / f"tools/ros_from_pypi/{distro}.txt").read_text().splitlines())
    declared = {*versions(REQUIREMENTS), *(n for extra in EXTRAS.values() for n in versions(extra))}
    assert not set(wheels) & declared


def test_every_source_file_names_its_licence():
    files = [
        file
        for folder in ("vlm3_ros", "vlm3_lab", "test", "tools", "launch", "benchmarks")
        for file in (ROOT / folder).rglob("*.py")
    ]
    files += [ROOT / "setup.py", ROOT / "Makefile", ROOT / ".ci" / "run"]
    missing = [
        str(file.relative_to(ROOT))
        for file in files
        if "# SPDX-License-Identifier: Apache-2.0\n"
        not in "".join(file.read_text().splitlines(keepends=True)[:2])
    ]
    assert len(files) > 300
    assert missing == []
