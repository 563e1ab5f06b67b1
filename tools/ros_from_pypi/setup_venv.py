# SPDX-License-Identifier: Apache-2.0
"""Make a virtual environment in which this package runs, with ROS 2 from PyPI.

Needs only Python's standard library. A second run finds its stamps and does nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import message_package
import preflight
from preflight import SetupError

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TF2_MSGS = HERE / "tf2_msgs"
TF_MESSAGE_HASH = "RIHS01_e369d0f05a23ae52508854b66f6aa0437f3449d652e8cbf22d5abe85d020f087"
EXTRAS = "lab,lora,test"
MODULES = "rclpy, sensor_msgs.msg, tf2_msgs.msg, torch, transformers, cv2, rosbags"

DISTROS = tuple(sorted(file.stem for file in HERE.glob("*.txt")))
"""ROS 2 distributions whose wheels are on PyPI."""

ENVIRONMENT_FILES = (*sorted(HERE.glob("*.py")), *sorted(TF2_MSGS.rglob("*.*")))
PACKAGE_FILES = tuple(ROOT / name for name in ("package.xml", "setup.py", "setup.cfg"))

# Causes of a failure other than the requirements: (text in the output of pip, message).
_PIP_CAUSES = (
    ("No space left on device", "the disk is full: free some, or choose another with VENV=/folder"),
    ("NewConnectionError", "there is no network: pip cannot reach the package index"),
    ("ConnectTimeout", "there is no network: pip cannot reach the package index"),
    ("ProxyError", "pip cannot reach the package index through the proxy"),
)


@dataclass(frozen=True)
class Setup:
    """Where the environment goes, and which ROS 2 and torch go into it."""

    venv: Path
    ros_distro: str
    torch: str
    torch_index: str
    started: float = field(default_factory=time.monotonic)

    @property
    def python(self) -> Path:
        """The environment's interpreter."""
        return self.venv / "bin" / "python"

    @property
    def requirements(self) -> Path:
        """The packages of ROS 2."""
        return HERE / f"{self.ros_distro}.txt"

    @property
    def log(self) -> Path:
        """Output of the commands."""
        return self.venv / "setup.log"

    def say(self, text: str) -> None:
        """Print the next step and the seconds since the start."""
        print(f"[set-up {time.monotonic() - self.started:4.0f} s] {text}", flush=True)

    def run(self, command: Sequence[str | Path], environment: dict[str, str] | None = None) -> None:
        """Run a command and log its output. Raise SetupError with the cause of a failure."""
        with self.log.open("a+b") as log:
            log.write(f"\n$ {' '.join(map(str, command))}\n".encode())
            log.flush()
            start = log.tell()
            status = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
            ).returncode
            if status == 0:
                return
            log.seek(start)
            output = log.read().decode(errors="replace")
        for text, cause in _PIP_CAUSES:
            if text in output:
                raise SetupError(f"{cause} (details: {self.log})")
        last = (output.strip().splitlines() or [f"exit status {status}"])[-1]
        raise SetupError(f"`{Path(command[0]).name}` failed: {last} (details: {self.log})")

    def evaluate(self, imports: str, expression: str) -> str:
        """Evaluate an expression in the environment's Python; return its value as text."""
        command: list[str | Path] = [self.python, "-c", f"import {imports}; print({expression})"]
        return subprocess.check_output(command, text=True).strip()

    def pip(self, *arguments: str | Path) -> None:
        """Run the environment's own pip."""
        self.run([self.python, "-m", "pip", "--disable-pip-version-check", *arguments])


def cuda_torch() -> tuple[str, Path] | None:
    """Version and site-packages folder of this Python's torch if it reaches a GPU, else None."""
    probe = """\
import pathlib, torch
if torch.cuda.is_available():
    print(torch.__version__, pathlib.Path(torch.__file__).parents[1], sep="\\n")
"""
    answer = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    if answer.returncode != 0 or not answer.stdout:
        return None
    version, folder = answer.stdout.splitlines()
    return version, Path(folder)


def make_environment(setup: Setup) -> None:
    """Make the virtual environment with torch, ROS 2 and the generated tf2_msgs."""
    preflight.check_all(setup.venv)
    subprocess.run([sys.executable, "-m", "venv", "--clear", setup.venv], check=True)
    with tempfile.TemporaryDirectory() as scratch:
        # A small download first: without a network, pip's retries of all packages take minutes.
        setup.pip("download", "--retries=1", "--no-deps", "-d", scratch, "ros-wheels-bootstrapper")

        torch = setup.torch
        if own_torch := cuda_torch():
            version, folder = own_torch
            setup.say(f"torch {version} in {folder} reaches a GPU and stays in use")
            site_packages = setup.evaluate("sysconfig", "sysconfig.get_path('purelib')")
            Path(site_packages, "own_torch.pth").write_text(f"{folder}\n")
            torch = f"torch=={version}"
        else:
            setup.say(f"{torch} (a CPU build takes 0.8 GB, a CUDA build several)")
        index = ["--extra-index-url", setup.torch_index] if setup.torch_index else []
        setup.pip("install", *index, torch)
        setup.say(f"ROS 2 {setup.ros_distro.capitalize()}")
        setup.pip("install", "-r", setup.requirements)

        setup.say("tf2_msgs, generated and compiled")
        numpy_include = setup.evaluate("numpy", "numpy.get_include()")
        message_package.point_wheels_here(setup.venv, sysconfig.get_path("include"), numpy_include)
        message_package.build(TF2_MSGS, Path(scratch) / "tf2_msgs", setup.venv, setup.run)
    message_package.check_type_hash(setup.venv, "tf2_msgs/msg/TFMessage", TF_MESSAGE_HASH)


def install_package(setup: Setup) -> None:
    """Install this package and its requirements: commands in bin, links where ROS looks."""
    setup.say("vlm3_ros, transformers and the checks (0.6 GB, about a minute)")
    setup.pip("install", "--no-build-isolation", "--editable", f"{ROOT}[{EXTRAS}]")
    setup.run([setup.python, "-c", f"import {MODULES}"])
    # An editable installation leaves out setup.py's data_files.
    share = setup.venv / "share"
    link(share / "ament_index/resource_index/packages/vlm3_ros", ROOT / "resource/vlm3_ros")
    for pattern in (
        "package.xml",
        "config/**/*.*",
        "launch/*.py",
        "models/*",
        "bags/*",
        "rviz/*",
        "foxglove/*",
    ):
        for file in ROOT.glob(pattern):
            link(share / "vlm3_ros" / file.relative_to(ROOT), file)
    for node in ("bag_player", "depth_node", "perception_node", "pose_node", "query_node"):
        link(setup.venv / "lib/vlm3_ros" / node, setup.venv / "bin" / node)


def link(place: Path, target: Path) -> None:
    """Make `place` a symbolic link to `target`; make missing folders."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    place.symlink_to(target)


def fingerprint(files: Sequence[Path], *settings: str) -> str:
    """Hash of files and settings."""
    digest = hashlib.sha256("\n".join(settings).encode())
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def unless_stamped(stamp: Path, state: str, work: Callable[[], None]) -> bool:
    """Do the work if the stamp holds another state. Return whether it was done."""
    if stamp.is_file() and stamp.read_text() == state:
        return False
    stamp.unlink(missing_ok=True)
    work()
    stamp.write_text(state)
    return True


def main() -> int:
    """Make or complete the environment. On failure print the causes and return 1."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="where to make it")
    parser.add_argument(
        "--ros-distro", choices=DISTROS, default="kilted", help="the ROS 2 to install"
    )
    parser.add_argument("--torch", default="torch", help="the torch to install, as pip names it")
    parser.add_argument("--torch-index", default="", help="one more package index for torch")
    arguments = parser.parse_args()
    setup = Setup(
        arguments.venv.absolute(), arguments.ros_distro, arguments.torch, arguments.torch_index
    )

    python = f"{sys.executable} {sys.version}"
    files = (*ENVIRONMENT_FILES, setup.requirements)
    environment = fingerprint(files, python, setup.torch, setup.torch_index)
    package = fingerprint(PACKAGE_FILES, environment, str(ROOT))
    try:
        made = unless_stamped(setup.venv / ".made", environment, lambda: make_environment(setup))
        installed = unless_stamped(
            setup.venv / ".installed", package, lambda: install_package(setup)
        )
    except SetupError as error:
        for line in str(error).splitlines():
            print(f"set-up: {line}", file=sys.stderr)
        return 1
    if made or installed:
        setup.say(f"done: {setup.venv}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
