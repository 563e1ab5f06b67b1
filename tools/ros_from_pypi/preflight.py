# SPDX-License-Identifier: Apache-2.0
"""Check that this machine can run ROS 2 from PyPI. Each missing thing gets one line."""

from __future__ import annotations

import functools
import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

PYTHON_VERSIONS = ((3, 10), (3, 11), (3, 12))
GLIBC_AT_LEAST = (2, 28)
DISK_BYTES = 4_000_000_000  # half for the environment, half for pip's temporary files


class SetupError(Exception):
    """The environment cannot be made. The text has one line per cause, with the remedy."""


def check_all(venv: Path) -> None:
    """Run all checks.

    Raises:
        SetupError: with one line per failed check.
    """
    machine = (check_machine, check_python, check_venv_module, check_build_tools)
    problems = []
    for check in (*machine, functools.partial(check_folder, venv)):
        try:
            check()
        except SetupError as error:
            problems.append(str(error))
    if problems:
        raise SetupError("\n".join(problems))


def check_machine() -> None:
    """Check for x86_64 Linux with glibc 2.28 or newer, for which the ROS 2 wheels are built."""
    system, machine = platform.system(), platform.machine()
    libc, version = platform.libc_ver()
    glibc = tuple(int(part) for part in version.split(".")[:2]) if libc == "glibc" else (0, 0)
    if (system, machine) != ("Linux", "x86_64") or glibc < GLIBC_AT_LEAST:
        raise SetupError(
            "ROS 2 from PyPI exists for x86_64 Linux with glibc 2.28 or newer, "
            f"this is {machine} {system} ({libc or 'no glibc'} {version}): "
            "install ROS 2 from its own packages and build with colcon (README)"
        )


def check_python() -> None:
    """Check for CPython 3.10 to 3.12, which this package supports."""
    if sys.version_info[:2] not in PYTHON_VERSIONS:
        raise SetupError(
            f"Python {platform.python_version()} is not supported, 3.10 to 3.12 are: "
            "install one of them and name it, as in `make PYTHON=python3.12 demo`"
        )


def check_venv_module() -> None:
    """Check for the venv module, which Debian and Ubuntu package separately."""
    if not all(map(importlib.util.find_spec, ("venv", "ensurepip"))):
        raise SetupError(
            f"Python's venv module is missing: sudo apt install {_python_package()}-venv"
        )


def check_build_tools() -> None:
    """Check for C, C++, make and Python's headers: a message package is compiled."""
    compilers = {
        "c": shlex.split(os.environ.get("CC", "cc")),
        "c++": shlex.split(os.environ.get("CXX", "c++")),
    }
    for program in ("make", compilers["c"][0], compilers["c++"][0]):
        if shutil.which(program) is None:
            raise SetupError(f"`{program}` is missing: sudo apt install build-essential")
    include = sysconfig.get_path("include")
    if not (Path(include) / "Python.h").is_file():
        raise SetupError(
            f"the headers of Python are missing from {include}: "
            f"sudo apt install {_python_package()}-dev"
        )
    for language, source in (("c", "#include <Python.h>"), ("c++", "#include <vector>")):
        command = [*compilers[language], "-fsyntax-only", "-x", language, "-I", include, "-"]
        check = subprocess.run(command, input=source, capture_output=True, text=True)
        if check.returncode != 0:
            complaint = (check.stderr.strip().splitlines() or ["it fails without a word"])[0]
            raise SetupError(
                f"`{compilers[language][0]}` compiles nothing ({complaint}): "
                "sudo apt install build-essential"
            )


def check_folder(venv: Path) -> None:
    """Check that only an earlier environment is overwritten, and that the disk has room."""
    if venv.is_dir() and any(venv.iterdir()) and not (venv / "pyvenv.cfg").is_file():
        raise SetupError(f"{venv} is not empty and no virtual environment: name another VENV")
    parent = next(folder for folder in venv.parents if folder.is_dir())
    free = shutil.disk_usage(parent).free
    if free < DISK_BYTES:
        raise SetupError(
            f"{parent} has {free / 1e9:.1f} GB free, the set-up needs {DISK_BYTES / 1e9:.0f} GB: "
            "free some, or put the environment elsewhere with `make VENV=/folder ...`"
        )


def _python_package() -> str:
    return f"python{sys.version_info.major}.{sys.version_info.minor}"
