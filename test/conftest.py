# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import pytest
from hypothesis import settings

from vlm3_ros.cli import main
from vlm3_ros.paths import default_model

if TYPE_CHECKING:
    from stand_ins.processors import Seen
    from transformers import Qwen2Tokenizer


def _free_ros_domain() -> tuple[int, IO[str]]:
    """A ROS domain that no other test run on this machine uses, and the lock that says so.

    Linux leaves the ports of domains 1 to 101 free.
    """
    start = os.getpid()
    for domain in (1 + number % 101 for number in range(start, start + 101)):
        lock = (Path(tempfile.gettempdir()) / f"vlm3_ros_test_domain_{domain}.lock").open("a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            continue
        return domain, lock
    raise RuntimeError("all ROS domains are in use by other test runs")


# Before the first rclpy.init: this run must not hear or disturb other ROS nodes.
_domain, _domain_lock = _free_ros_domain()
os.environ["ROS_DOMAIN_ID"] = str(_domain)
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"


# The duration of an example depends more on the machine than on the code.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


SHARED = {"model_server", "stand_ins"}
"""Fixtures whose tests run on one worker."""


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Share the tests out to the workers of pytest-xdist (`--dist loadgroup`).

    A file is a group, so that its fixtures are made once. Tests of the model server are one group:
    there is one server. So are those of the stand-ins, or workers would wait for each other while
    the first one trains them. Slow tests go first, so that no worker ends with a long one alone.
    Tests that need the server, a training run or the stand-ins are slow.
    """
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        if fixtures & {*SHARED, "training_run"}:
            item.add_marker(pytest.mark.slow)
        if item.get_closest_marker("xdist_group") is None:
            shared = fixtures & SHARED
            group = shared.pop() if shared else str(item.path)
            item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Hold a lock between processes."""
    with file.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _folder_of_all_workers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The temporary folder of this test run, which all workers of pytest-xdist share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def ros() -> Iterator[None]:
    """An initialised rclpy."""
    rclpy = pytest.importorskip("rclpy")
    rclpy.init()
    yield
    rclpy.try_shutdown()


VLLM = os.environ.get("VLLM")
"""The program that is the server of the tests, if one is named; see `make test-vllm`."""


@dataclass
class ModelServer:
    """A real server with the embedded model, in float32, in its own process."""

    log: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def model(self) -> str:
        """The name of the model in requests."""
        return str(default_model())

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.address}/v1"

    @property
    def answered(self) -> int:
        """Number of chats answered since the first start."""
        return self.log.read_text(errors="replace").count("POST /v1/chat/completions HTTP/1.1")

    def start(self) -> None:
        """Start it unless it runs; return when it answers."""
        if self.process and self.process.poll() is None:
            return
        if VLLM:
            program = [VLLM, "serve", "--max-model-len", "4096", "--enforce-eager"]
            program += ["--limit-mm-per-prompt", '{"image": 2, "video": 0}']
        else:
            program = [sys.executable, str(Path(__file__).with_name("serve_checkpoint.py"))]
            program += ["--device", "cpu"]
        options = ["--dtype", "float32", "--host", "127.0.0.1", "--port", str(self.port)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*program, *options, self.model],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1"},
                start_new_session=True,
            )
        end = time.monotonic() + 600
        while not self.is_up():
            assert self.process.poll() is None, self.log.read_text(errors="replace")[-3000:]
            assert time.monotonic() < end, self.log.read_text(errors="replace")[-3000:]
            time.sleep(0.2)

    def is_up(self) -> bool:
        import httpx  # most tests need none

        try:
            return httpx.get(f"{self.address}/health", timeout=5).is_success
        except httpx.TransportError:
            return False

    def kill(self) -> None:
        """Kill it without warning."""
        if self.process:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.fixture(scope="session")
def _the_model_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = ModelServer(tmp_path_factory.mktemp("server") / "server.log", port)
    yield server
    server.kill()


@pytest.fixture
def model_server(_the_model_server: ModelServer) -> ModelServer:
    """A running `transformers serve`, or vLLM if VLLM names it. Tests may kill and start it."""
    _the_model_server.start()
    return _the_model_server


SHORT_RUN = """
shape: {vision_hidden: 32, vision_depth: 2, vision_heads: 2, hidden: 64, layers: 2, heads: 4}
profile: {focal: 60.0}
data: {questions: 16, workers: 0}
optimiser: {learning_rate: 4.0e-3, batch_size: 4, steps: 60}
dtype: float32
evaluate_every: 60
evaluation_views: 4
"""


@pytest.fixture(scope="session")
def training_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of `vlm3 train`, long enough for a model to learn the form of answers.

    The first worker that needs it trains, the others wait and share its result.
    """
    folder = _folder_of_all_workers(tmp_path_factory) / "training"
    folder.mkdir(exist_ok=True)
    done = folder / "done"
    with _locked(folder / "lock"):
        if not done.exists():
            (folder / "short.yaml").write_text(SHORT_RUN)
            assert main(["train", str(folder / "short.yaml"), "--out", str(folder / "run")]) == 0
            done.touch()
    return folder / "run"


@pytest.fixture(scope="session")
def checkpoint(training_run: Path) -> Path:
    return training_run / "final"


@pytest.fixture(scope="session")
def training_log(training_run: Path) -> list[dict[str, float]]:
    log: list[dict[str, float]] = json.loads((training_run / "log.json").read_text())
    return log


@pytest.fixture(scope="session")
def qwen3_tokenizer(pytestconfig: pytest.Config) -> Qwen2Tokenizer:
    """The tokenizer of Qwen3, downloaded once and kept in pytest's cache."""
    from stand_ins.tokenizer import RegistryError, download_ranks, qwen3_tokenizer
    from transformers import Qwen2Tokenizer

    cache = pytestconfig.cache.mkdir("qwen3_tokenizer")
    with _locked(cache / "lock"):
        if not (cache / "done").exists():
            try:
                ranks = download_ranks()
            except RegistryError as error:
                pytest.skip(f"offline: {error}")
            qwen3_tokenizer(ranks).save_pretrained(cache)
            (cache / "done").touch()
    return Qwen2Tokenizer.from_pretrained(cache)


@pytest.fixture(scope="session")
def stand_ins(qwen3_tokenizer: Qwen2Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of VLM3-depth, VLM3-pose, VLM3-corr and VLM3-object, which answer `lessons()`."""
    from stand_ins.checkpoint import write_stand_ins
    from stand_ins.overfit import overfit
    from stand_ins.words import lessons

    folder = _folder_of_all_workers(tmp_path_factory) / "stand_ins"
    folder.mkdir(exist_ok=True)
    with _locked(folder / "lock"):
        if not (folder / "done").exists():
            write_stand_ins(folder, overfit(qwen3_tokenizer, lessons()), qwen3_tokenizer)
            (folder / "done").touch()
    return folder


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """Images and questions that enter models in this process."""
    from stand_ins.processors import watch

    return watch(monkeypatch)
