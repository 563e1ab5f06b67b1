# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import threading
from collections.abc import Sequence
from itertools import count
from typing import Any

import numpy as np
import pytest

from vlm3_ros.engines.base import Answer, Engine, EngineError, ForwardingEngine, UnavailableError
from vlm3_ros.errors import NoAnswersError
from vlm3_ros.evaluation import tolerance
from vlm3_ros.evaluation.tolerance import MAX_SECONDS, PersistentEngine, TolerantEngine, wrapped

IMAGE = np.zeros((256, 256, 3), np.uint8)


class Server(ForwardingEngine):
    """Fails while `fault` is set, each time after `seconds`."""

    name = "the model"

    def __init__(self) -> None:
        self.fault = ""
        self.error: type[EngineError] = EngineError
        self.seconds = 0.0
        self.asked = 0
        self.time = 0.0

    def ask(
        self, images: Sequence[Any], questions: Sequence[str], answer_template: str | None = None
    ) -> list[Answer]:
        self.asked += 1
        if self.fault:
            self.time += self.seconds
            raise self.error(self.fault)
        return [Answer(question) for question in questions]


@pytest.fixture
def server() -> Server:
    return Server()


def test_a_server_that_never_answered_ends_the_run(server: Server) -> None:
    server.fault = "http://a/v1 cannot be reached"
    engine = TolerantEngine(server)
    for _ in range(2):
        with pytest.raises(NoAnswersError, match=r"^nothing was answered: http://a/v1 cannot be"):
            engine.ask([IMAGE], ["a"])
    assert server.asked == 1


def test_failures_in_between_are_faults(server: Server) -> None:
    engine = TolerantEngine(server)
    assert engine.ask([IMAGE], ["a"]) == [Answer("a")]
    server.fault = "too busy"
    assert engine.ask([IMAGE], ["a", "b"]) == [Answer("", fault="too busy")] * 2
    server.fault = ""
    assert engine.ask([IMAGE], ["a"]) == [Answer("a")]


def test_a_server_that_hangs_is_given_up(server: Server) -> None:
    engine = PersistentEngine(server, lambda: server.time)
    engine.ask([IMAGE], ["a"])
    server.fault, server.seconds = "it hangs", MAX_SECONDS / 3 + 1
    for _ in range(10):
        with pytest.raises(EngineError, match="it hangs"):
            engine.ask([IMAGE], ["a"])
    assert server.asked == 1 + 3


def test_a_server_that_restarts_is_waited_for(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 30:
            server.fault = ""

    engine = TolerantEngine(server, lambda: server.time, sleep)
    engine.ask([IMAGE], ["a"])
    server.fault, server.error = "it restarts", UnavailableError
    assert engine.ask([IMAGE], ["a"]) == [Answer("a")]
    assert slept == [tolerance.PAUSE] * 30
    assert caplog.messages == ["waiting up to 600 s for the server: it restarts"]
    server.fault = "it is gone"
    for _ in range(3):
        assert engine.ask([IMAGE], ["a"]) == [Answer("", fault="it is gone")]
    assert len(slept) == 30 + MAX_SECONDS / tolerance.PAUSE


def test_a_silent_server_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tolerance, "NOTICE_SECONDS", 0.0)
    lines: list[str] = []
    is_logged = threading.Event()

    def log(line: str) -> None:
        lines.append(line)
        is_logged.set()

    monkeypatch.setattr(tolerance.logger, "warning", log)

    class Slow(Server):
        def ask(self, *asked: Any) -> list[Answer]:
            is_logged.wait(600)
            return super().ask(*asked)

    engine = PersistentEngine(Slow())
    for _ in range(2):
        engine.ask([IMAGE], ["a"])
    assert lines == ["the model: no answer for 0 s, still waiting for the first one"]


def test_failures_that_take_no_time_are_tried_again(server: Server) -> None:
    ticks = count()
    engine = TolerantEngine(server, lambda: next(ticks) * 1e-3)
    engine.ask([IMAGE], ["a"])
    server.fault = "cannot be reached"
    for _ in range(1000):
        engine.ask([IMAGE], ["a"])
    server.fault = ""
    assert engine.ask([IMAGE], ["a"]) == [Answer("a")]


def test_tasks_that_share_an_engine_still_do(server: Server) -> None:
    other: Engine = Server()
    engines = wrapped({"depth": server, "pose": other, "correspondence": other}, TolerantEngine)
    assert engines["pose"] is engines["correspondence"] is not engines["depth"]
