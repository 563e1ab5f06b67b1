# SPDX-License-Identifier: Apache-2.0
"""Faults of a model server, under engine openai."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from soak.fault import Fault, Provocation
from soak.process import Process
from soak.server import PROMPTS
from soak.stage import Stage
from soak.waiting import Loss, wait_for
from vlm3_ros.engines.base import Profile
from vlm3_ros.engines.profiles import write_profile
from vlm3_ros.language.prompts import load_prompt_set


class ModelServer:
    """A server with faults on demand, in its own process."""

    def __init__(self, folder: Path) -> None:
        """Start it.

        Args:
            folder: for its log, and the profile of its model.
        """
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self._address = f"http://127.0.0.1:{self._port}"
        self._log = folder / "server.log"
        self._profile = folder / "profile"
        self._profile.mkdir(exist_ok=True)
        write_profile(self._profile, Profile(200.0, "scale", load_prompt_set(PROMPTS)))
        self.start()

    def parameters(self) -> dict[str, object]:
        """Parameters of a node that uses the server."""
        return {
            "engine": "openai",
            "base_url": f"{self._address}/v1",
            "profile": str(self._profile),
            "concurrency": 4,
            "request_timeout": 1.0,
            "frame_timeout": 3.0,
        }

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        # By its file: other processes may not find this package.
        command = [sys.executable, str(Path(__file__).with_name("server.py")), str(self._port)]
        self._process = Process("server", command, self._log)
        wait_for(self._is_up, "the server to answer")

    def kill(self) -> None:
        """Kill the server (SIGKILL)."""
        self._process.kill()

    def set_mode(self, mode: str) -> None:
        """Set a fault, or "well"."""
        httpx.post(f"{self._address}/mode", content=mode).raise_for_status()

    def _is_up(self) -> bool:
        if not self._process.is_running:
            raise Loss(f"the server has ended: {' '.join(self._process.lines[-3:])}")
        try:
            return httpx.get(f"{self._address}/v1/models").is_success
        except httpx.TransportError:
            return False


def server_faults(server: ModelServer) -> list[Fault]:
    """Return all faults of a server, its end included."""

    def faulty(mode: str) -> Provocation:
        @contextmanager
        def provoke(stage: Stage) -> Iterator[None]:
            server.set_mode(mode)
            try:
                yield
            finally:
                server.set_mode("well")

        return provoke

    @contextmanager
    def killed(stage: Stage) -> Iterator[None]:
        server.kill()
        try:
            yield
        finally:
            server.start()

    unread, nonsense = "answers about the last frame cannot be read", "does not answer as OpenAI"
    return [
        Fault("server: kill -9 and restart", killed, "cannot be reached"),
        Fault("server: takes 30 s", faulty("slow"), "did not answer within request_timeout"),
        Fault("server: status 500", faulty("status 500"), "answers 500"),
        Fault("server: status 429", faulty("status 429"), "answers 429"),
        Fault("server: status 401", faulty("status 401"), "VLM3_API_KEY"),
        Fault("server: status 404", faulty("status 404"), "answers 404"),
        Fault("server: HTML", faulty("no JSON"), nonsense),
        Fault("server: bytes", faulty("bytes"), nonsense),
        Fault("server: other JSON", faulty("other JSON"), nonsense),
        Fault("server: 100,000 brackets", faulty("JSON in JSON"), nonsense),
        Fault("server: no body", faulty("no body"), nonsense),
        Fault("server: answers without text", faulty("no text"), unread, answers=True),
        Fault("server: idle talk", faulty("idle talk"), unread, answers=True),
        Fault("server: closes connections", faulty("closed connections"), "cannot be reached"),
        Fault("server: breaks answers off", faulty("broken off"), "cannot be reached"),
        Fault("server: answers without end", faulty("no end"), "did not answer within"),
    ]
