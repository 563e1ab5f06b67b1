# SPDX-License-Identifier: Apache-2.0
"""Run the fuzz tests of this folder guided by coverage: `make fuzz` (atheris, CPython 3.11).

Each test runs in its own process. Inputs that reach new code are kept in the corpus, from which
the next run starts. The exit status is 1 if a test finds something.
"""

from __future__ import annotations

import argparse
import importlib
import random
import re
import subprocess
import sys
import warnings
from pathlib import Path

MODULES = ("test_answers", "test_messages", "test_queries")
SEEDS = 56
"""Number of inputs in a new corpus."""

FOLDER = Path(__file__).resolve().parent


def main() -> int:
    """Fuzz all tests, each in its own process, or one test in this process."""
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=120, help="per test")
    parser.add_argument("--out", type=Path, required=True, help="folder of corpus and findings")
    parser.add_argument("--only", default="", help="only tests whose name contains this text")
    parser.add_argument("--one", metavar="TEST", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        _fuzz(options.one, options.out, options.seconds)
    print("| test | inputs tried | inputs kept | finding |\n|---|---|---|---|")
    names = [name for name in _tests() if options.only in name]
    return max([_report(name, options.out, options.seconds) for name in names], default=0)


def _tests() -> list[str]:
    pattern = re.compile(r"^def (test_\w+)", re.MULTILINE)
    return [
        f"{module}.{test}"
        for module in MODULES
        for test in pattern.findall((FOLDER / f"{module}.py").read_text())
    ]


def _report(name: str, out: Path, seconds: int) -> int:
    """Fuzz one test in its own process, print its row and return the status of the process."""
    corpus = out / "corpus" / name
    corpus.mkdir(parents=True, exist_ok=True)
    if not any(corpus.iterdir()):  # atheris drops inputs that are too short for a test
        for seed in range(SEEDS):
            (corpus / f"seed{seed}").write_bytes(random.Random(seed).randbytes(32 << seed % 7))
    command = [sys.executable, __file__, "--one", name, "--out", out, "--seconds", str(seconds)]
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    (out / f"{name}.log").write_text(run.stdout)
    tried = re.search(r"stat::number_of_executed_units: (\d+)", run.stdout)
    count = int(tried[1]) if tried else 0
    finding = "none" if run.returncode == 0 else f"see {out / name}.log"
    print(f"| {name} | {count:,} | {len(list(corpus.iterdir()))} | {finding} |", flush=True)
    return min(run.returncode, 1) if run.returncode >= 0 else 1


def _fuzz(name: str, out: Path, seconds: int) -> None:
    """Fuzz one test; atheris ends the process."""
    import atheris

    module_name, test = name.split(".")
    sys.path.insert(0, str(FOLDER))
    with atheris.instrument_imports(include=["vlm3_ros"], enable_loader_override=False):
        module = importlib.import_module(module_name)
    warnings.simplefilter("ignore")
    target = getattr(module, test).hypothesis.fuzz_one_input

    def try_input(data: bytes) -> None:
        target(data)

    arguments = [
        sys.argv[0],
        str(out / "corpus" / name),
        f"-max_total_time={seconds}",
        "-max_len=4096",
        "-len_control=0",
        "-rss_limit_mb=4096",
        "-timeout=30",
        "-print_final_stats=1",
        f"-artifact_prefix={out}/{name}.",
    ]
    atheris.Setup(arguments, try_input)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
