"""docker/Dockerfile fits the checkout that it is built from; nothing is built here."""

from __future__ import annotations

import re

from pages import ROOT

DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text()
KEPT = [
    line[1:]
    for line in (ROOT / "docker" / "Dockerfile.dockerignore").read_text().splitlines()
    if line.startswith("!")
]


def test_what_is_copied_exists_and_is_not_ignored():
    copied = re.findall(r"^COPY (?!--from)(?:--\S+ )*(\S+) ", DOCKERFILE, re.MULTILINE)
    assert "package.xml" in copied
    assert [path for path in [*copied, *KEPT] if not (ROOT / path).exists()] == []
    assert [path for path in copied if path not in (".", *KEPT)] == []


def test_the_build_finds_all_that_is_installed():
    (folders,) = re.findall(r"\*shared\((.*)\)", (ROOT / "setup.py").read_text())
    assert {*re.findall(r'"(\w+)"', folders), "vlm3_ros", "resource"} <= set(KEPT)


def test_pip_gets_the_versions_that_are_tested():
    over_apt = requirements("tools/requirements_over_apt.txt")
    tested = requirements("tools/ros_from_pypi/requirements.txt")
    looser = {"numpy": "<2", "torch": ""}  # apt's NumPy, and a torch for the machine's GPU
    assert over_apt == {name: looser.get(name, tested.get(name)) for name in over_apt}


def requirements(path: str) -> dict[str, str]:
    """Versions by name."""
    lines = (ROOT / path).read_text().splitlines()
    found = (re.match(r"([\w-]+)(.*)", line) for line in lines)
    return {match[1]: match[2] for match in found if match}
