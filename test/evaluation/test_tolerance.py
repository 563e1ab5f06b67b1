# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any

import numpy as np
import pytest

from vlm3_ros.engines.base import Answer, Engine, EngineError, ForwardingEngine
from vlm3_ros.errors import NoAnswersError
from vlm3_ros.evaluation.tolerance import MAX_SECONDS, PersistentEngine, TolerantEngine, wrapped

IMAGE = np.zeros((256, 256, 3), np.uint8)


class Server(ForwardingEngine):
    """Fails while `fault` is set, each time after `seconds`."""

    def __init__(self) -> None:
        self.fault = ""
        self.seconds = 0.0
        self.asked = 0
        self.time = 0.0

    def ask(
        self, images: Sequence[Any], questions: Sequence[str], answer_template: str | None = None
    ) -> list[Answer]:
        self.asked += 1
        if self.fault:
            self.time += self.seconds
            raise EngineError(self.fault)
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
