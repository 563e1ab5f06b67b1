# SPDX-License-Identifier: Apache-2.0
"""Build a package of messages in a virtual environment with ROS 2 wheels."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from preflight import SetupError

# Folders of the machine that built the wheels. Their CMake targets still point there.
_BUILDER = r"/opt/python/cp\d+-cp\d+"
_PYTHON_INCLUDE = re.compile(_BUILDER + r"/include/python\d\.\d+")
_NUMPY_INCLUDE = re.compile(_BUILDER + r"/lib/python\d\.\d+/site-packages/numpy/\w+/include")

Run = Callable[[Sequence[str | Path], dict[str, str]], None]


def point_wheels_here(venv: Path, python_include: str, numpy_include: str) -> None:
    """Write this machine's include folders into the CMake files of the ROS 2 wheels."""
    for file in venv.glob("share/*/cmake/*.cmake"):
        text = file.read_text()
        here = _NUMPY_INCLUDE.sub(numpy_include, _PYTHON_INCLUDE.sub(python_include, text))
        if here != text:
            file.write_text(here)


def build(source: Path, build_folder: Path, venv: Path, run: Run) -> None:
    """Build the package in `source` and install it into `venv`."""
    environment = {**os.environ, "AMENT_PREFIX_PATH": str(venv), "CMAKE_PREFIX_PATH": str(venv)}
    environment["PATH"] = f"{venv / 'bin'}{os.pathsep}{environment['PATH']}"
    cmake = venv / "bin" / "cmake"
    settings = [
        f"-DCMAKE_INSTALL_PREFIX={venv}",
        f"-DPython3_EXECUTABLE={venv / 'bin' / 'python'}",
        "-DCMAKE_BUILD_TYPE=Release",
        "-DBUILD_TESTING=OFF",
    ]
    run([cmake, "-S", source, "-B", build_folder, "-G", "Unix Makefiles", *settings], environment)
    run([cmake, "--build", build_folder, "--parallel"], environment)
    run([cmake, "--install", build_folder], environment)


def check_type_hash(venv: Path, message: str, expected: str) -> None:
    """Raise SetupError if a built message, such as "tf2_msgs/msg/TFMessage", has another hash.

    Nodes exchange messages only if the hashes of their types agree.
    """
    description = json.loads((venv / "share" / f"{message}.json").read_text())
    hashes = {item["type_name"]: item["hash_string"] for item in description["type_hashes"]}
    if hashes[message] != expected:
        raise SetupError(f"{message} came out with the type hash {hashes[message]}, not {expected}")
