# SPDX-License-Identifier: Apache-2.0
"""Engines that fail for a while without ending an evaluation."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from vlm3_ros.engines.base import Answer, Engine, EngineError, ForwardingEngine, UnavailableError
from vlm3_ros.engines.recorded import RecordedEngine
from vlm3_ros.errors import NoAnswersError

logger = logging.getLogger(__name__)

MAX_SECONDS = 600.0
"""Seconds that failures in a row may take: a server that hangs would take its whole time limit for
each of the images that are left."""

PAUSE = 2.0
"""Seconds between attempts to ask a server that is down."""

NOTICE_SECONDS = 30.0
"""Seconds without the first answer until a line in the log says what is waited for."""


class PersistentEngine(ForwardingEngine):
    """Waits for a server that is down, and stops asking an engine that does not come back.

    A recording that lacks an image may have the next one, and does not take long: it is always
    asked.
    """

    def __init__(
        self,
        engine: Engine,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Start without failures; `clock` returns and `sleep` takes seconds."""
        super().__init__(engine)
        self._clock = clock
        self._sleep = sleep
        self._may_be_dead = not isinstance(engine, RecordedEngine)
        self._has_answered = False
        self._failing_seconds = 0.0
        self._error: EngineError | NoAnswersError | None = None

    @override
    def ask(
        self,
        images: Sequence[NDArray[np.uint8]],
        questions: Sequence[str],
        answer_template: str | None = None,
    ) -> list[Answer]:
        """Ask the engine.

        Raises:
            EngineError: if it fails, or is not asked any more.
            NoAnswersError: if it fails before it has answered anything.
        """
        if self._error is not None and self._is_given_up:
            raise self._error
        is_waiting = False
        while True:
            start = self._clock()
            try:
                with self._notice():
                    answers = self._engine.ask(images, questions, answer_template)
            except EngineError as error:
                if not self._may_be_dead:
                    raise
                if not self._has_answered:
                    self._error = NoAnswersError(f"nothing was answered: {error}")
                    raise self._error from error
                self._error = error
                self._failing_seconds += self._clock() - start
                if self._is_given_up or not isinstance(error, UnavailableError):
                    raise
                if not is_waiting:
                    logger.warning("waiting up to %g s for the server: %s", MAX_SECONDS, error)
                is_waiting = True
            else:
                self._has_answered = self._has_answered or bool(answers)
                self._failing_seconds = 0.0
                return answers
            self._sleep(PAUSE)
            self._failing_seconds += PAUSE

    @contextmanager
    def _notice(self) -> Iterator[None]:
        """Log a line if the first answer takes long: a silent server looks like a slow one."""
        if self._has_answered:
            yield
            return
        line = f"{self.name}: no answer for {NOTICE_SECONDS:g} s, still waiting for the first one"
        timer = threading.Timer(NOTICE_SECONDS, logger.warning, [line])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    @property
    def _is_given_up(self) -> bool:
        return not self._has_answered or self._failing_seconds >= MAX_SECONDS


class TolerantEngine(PersistentEngine):
    """Returns faults where the other engine raises EngineError."""

    @override
    def ask(
        self,
        images: Sequence[NDArray[np.uint8]],
        questions: Sequence[str],
        answer_template: str | None = None,
    ) -> list[Answer]:
        try:
            return super().ask(images, questions, answer_template)
        except EngineError as error:
            return [Answer("", fault=str(error)) for _ in questions]


def wrapped(
    engines: Mapping[str, Engine], wrapper: Callable[[Engine], Engine]
) -> dict[str, Engine]:
    """Wrap engines by task; tasks that share an engine still do."""
    made = {id(engine): wrapper(engine) for engine in engines.values()}
    return {task: made[id(engine)] for task, engine in engines.items()}
