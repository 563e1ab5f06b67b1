from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

from vlm3_ros.paths import default_model

# Before the first rclpy.init: nobody outside of this run is heard or disturbed. Linux leaves the
# ports of domains 1 to 101 free.
os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 101)
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"


# How long an example takes says more about the machine than about the code.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


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
    """A real server with the embedded model, in float32, in a process of its own."""

    log: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def model(self) -> str:
        """As requests name it."""
        return str(default_model())

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.address}/v1"

    @property
    def answered(self) -> int:
        """Chats that have been answered since the first start."""
        return self.log.read_text(errors="replace").count("POST /v1/chat/completions HTTP/1.1")

    def start(self) -> None:
        """Returns when it answers, at once if it runs already."""
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
        """As if somebody had pulled the plug."""
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
    """A running `transformers serve`, or vLLM where VLLM names it. Tests may kill and start it."""
    _the_model_server.start()
    return _the_model_server
