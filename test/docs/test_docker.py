# SPDX-License-Identifier: Apache-2.0
"""docker/Dockerfile fits the checkout that it is built from; nothing is built here."""

from __future__ import annotations

import re
import subprocess

import pytest
import yaml
from pages import ROOT
from requirements import EXTRAS, REQUIREMENTS, versions

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


def test_the_build_finds_every_installed_file():
    (folders,) = re.findall(r"\*shared\((.*)\)", (ROOT / "setup.py").read_text())
    assert {*re.findall(r'"(\w+)"', folders), "vlm3_ros", "resource"} <= set(KEPT)


def test_pip_installs_the_tested_versions():
    over_apt = versions((ROOT / "tools" / "requirements_over_apt.txt").read_text().splitlines())
    tested = versions([*REQUIREMENTS, *EXTRAS["lab"]])
    looser = {"numpy": "<2", "torch": ""}  # apt's NumPy, and a torch for the machine's GPU
    assert over_apt == {name: looser.get(name, tested.get(name)) for name in over_apt}


@pytest.mark.parametrize("chosen", [{}, {"MODEL": "facebook/VLM3-depth", "IMAGE": "/front/image"}])
def test_compose_launches_the_chosen_model_and_topics(chosen):
    compose = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())
    command = compose["services"]["depth"]["command"]
    # A shell understands every substitution that the file uses.
    words = subprocess.check_output(["bash", "-uc", f"echo {command}"], env=chosen, text=True)
    launched, arguments = words.split()[:4], words.split()[4:]
    assert launched == ["ros2", "launch", "vlm3_ros", "depth.launch.py"]
    given = dict(argument.split(":=") for argument in arguments)
    assert all(given.values())
    assert given.get("model") == chosen.get("MODEL")
    assert given["image"] == chosen.get("IMAGE", "image")
