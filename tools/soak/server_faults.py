# SPDX-License-Identifier: Apache-2.0
"""What a model server can do wrong, under engine openai."""

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
from vlm3_ros.engines.base import Profile, write_profile
from vlm3_ros.language.prompts import load_prompt_set


class ModelServer:
    """A server that can be told to be ill, in a process of its own."""

    def __init__(self, folder: Path) -> None:
        """Start it.

        Args:
            folder: of its log, and of the profile of its model.
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
        """Of a node that asks it."""
        return {
            "engine": "openai",
            "base_url": f"{self._address}/v1",
            "profile": str(self._profile),
            "concurrency": 4,
            "request_timeout": 1.0,
            "frame_timeout": 3.0,
        }

    def start(self) -> None:
        """Returns when it answers."""
        # By its file: other processes need not find this package.
        command = [sys.executable, str(Path(__file__).with_name("server.py")), str(self._port)]
        self._process = Process("server", command, self._log)
        wait_for(self._is_up, "the server to answer")

    def kill(self) -> None:
        """As if somebody had pulled the plug."""
        self._process.kill()

    def be(self, mode: str) -> None:
        """Make it well or ill."""
        httpx.post(f"{self._address}/mode", content=mode).raise_for_status()

    def _is_up(self) -> bool:
        if not self._process.is_running:
            raise Loss(f"the server has ended: {' '.join(self._process.lines[-3:])}")
        try:
            return httpx.get(f"{self._address}/v1/models").is_success
        except httpx.TransportError:
            return False


def server_faults(server: ModelServer) -> list[Fault]:
    """All illnesses of a server, and its death."""

    def ill(mode: str) -> Provocation:
        @contextmanager
        def provoke(stage: Stage) -> Iterator[None]:
            server.be(mode)
            try:
                yield
            finally:
                server.be("well")

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
        Fault("server: takes 30 s", ill("slow"), "did not answer within request_timeout"),
        Fault("server: status 500", ill("status 500"), "answers 500"),
        Fault("server: status 429", ill("status 429"), "answers 429"),
        Fault("server: status 401", ill("status 401"), "VLM3_API_KEY"),
        Fault("server: status 404", ill("status 404"), "answers 404"),
        Fault("server: HTML", ill("no JSON"), nonsense),
        Fault("server: bytes", ill("bytes"), nonsense),
        Fault("server: other JSON", ill("other JSON"), nonsense),
        Fault("server: 100,000 brackets", ill("JSON in JSON"), nonsense),
        Fault("server: no body", ill("no body"), nonsense),
        Fault("server: answers without text", ill("no text"), unread, answers=True),
        Fault("server: idle talk", ill("idle talk"), unread, answers=True),
        Fault("server: closes connections", ill("closed connections"), "cannot be reached"),
        Fault("server: breaks answers off", ill("broken off"), "cannot be reached"),
        Fault("server: answers without end", ill("no end"), "did not answer within"),
    ]
