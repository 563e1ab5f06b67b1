# SPDX-License-Identifier: Apache-2.0
"""Run the tests of engines and training with the oldest and the newest transformers.

The oldest is the lowest version that setup.py allows, the newest is PyPI's of the same major
version. Each gets an environment on top of the one that runs this program: pip installs into it
only what that transformers needs in another version.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
TESTS = (
    "test/engines",
    "test/lab/training",
    "test/lab/studies/test_architectures.py",
    "test/lab/cli/test_bench.py",
    "test/stand_ins/test_answers.py",
)
EXTRAS = ("lab", "lora")
SERVER = ("requests",)
"""What `transformers serve`, the tests' server, imports in some versions without declaring it."""


def package_requirements() -> dict[str, Requirement]:
    """Return what this package needs to run and to train, by name, as it is installed."""
    lines = importlib.metadata.requires("vlm3_ros") or []
    requirements = [Requirement(line) for line in lines]
    return {
        requirement.name: requirement
        for requirement in requirements
        if requirement.marker is None
        or any(requirement.marker.evaluate({"extra": extra}) for extra in EXTRAS)
    }


def wanted_versions(allowed: Requirement) -> dict[str, str]:
    """Return what pip installs for the oldest and for the newest version.

    Args:
        allowed: of transformers, with a lower bound.
    """
    (lowest,) = (bound.version for bound in allowed.specifier if bound.operator == ">=")
    major = int(lowest.split(".")[0])
    return {
        "oldest": f"{allowed.name}=={lowest}",
        "newest": f"{allowed.name}>={lowest},<{major + 1}",
    }


def make_environment(folder: Path, transformers: str, others: list[str]) -> Path:
    """Make or update an environment; return its Python.

    Args:
        folder: of the environment.
        transformers: the wanted version.
        others: the package's other requirements, which must still hold.

    Raises:
        subprocess.CalledProcessError: if pip fails.
    """
    python = folder / "bin" / "python"
    if not python.is_file():
        venv.create(folder, clear=True, symlinks=True)
        paths = {"base": str(folder), "platbase": str(folder)}
        packages = Path(sysconfig.get_path("purelib", "venv", vars=paths))
        # The folder of this program's packages comes after the environment's own.
        below = sysconfig.get_path("purelib")
        (packages / "below.pth").write_text(f"import site; site.addsitedir({below!r})\n")
    # As constraints: named as requirements, pip would upgrade each of them, torch too.
    constraints = folder / "constraints.txt"
    constraints.write_text("\n".join(others))
    pip: list[str | Path] = [python, "-m", "pip", "--disable-pip-version-check", "install"]
    wanted: list[str | Path] = ["--upgrade", transformers, *SERVER, "--constraint", constraints]
    subprocess.run([*pip, "--quiet", *wanted], check=True)
    return python


def installed_version(python: Path) -> str:
    """Return the version of transformers that an environment's Python imports."""
    code = "import transformers; print(transformers.__version__)"
    return subprocess.check_output([python, "-c", code], text=True, cwd=ROOT).strip()


def run_tests(python: Path, workers: int, tests: list[str]) -> bool:
    """Return whether the tests passed."""
    scheduling = ["--numprocesses", str(workers), "--dist", "loadgroup", "--no-loadscope-reorder"]
    command: list[str | Path] = [python, "-m", "pytest", "-q", *scheduling, *tests]
    return subprocess.run(command, cwd=ROOT).returncode == 0


def main() -> int:
    """Run the tests with each version; return 1 if one fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path, required=True, help="folder of the environments")
    parser.add_argument("--only", choices=("oldest", "newest"), help="only one of the versions")
    parser.add_argument("--workers", type=int, default=2, help="processes that share the tests")
    parser.add_argument("tests", nargs="*", help="instead of all of these tests")
    arguments = parser.parse_args()
    requirements = package_requirements()
    allowed = requirements.pop("transformers")
    others = [f"{each.name}{each.specifier}" for each in requirements.values()]
    results = {}
    for name, wanted in wanted_versions(allowed).items():
        if arguments.only not in (None, name):
            continue
        try:
            python = make_environment(arguments.folder.absolute() / name, wanted, others)
        except subprocess.CalledProcessError:
            print(f"pip could not install {wanted}, see above", file=sys.stderr)
            return 1
        version = installed_version(python)
        print(f"transformers {version} ({name})", flush=True)
        results[version] = run_tests(python, arguments.workers, arguments.tests or list(TESTS))
    for version, passed in results.items():
        words = "passed" if passed else "FAILED"
        if not allowed.specifier.contains(version):
            words += f", but setup.py allows {allowed.specifier}"
        print(f"transformers {version}: {words}")
    return 0 if all(results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
