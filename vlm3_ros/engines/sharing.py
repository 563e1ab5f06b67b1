# SPDX-License-Identifier: Apache-2.0
"""One model in memory for all its users in a process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from vlm3_ros.engines.base import Answer, Engine, EngineError, ForwardingEngine
from vlm3_ros.engines.load import Progress, load_engine
from vlm3_ros.engines.settings import EngineSettings


class EnginePool:
    """Loads one engine per settings and closes it when its last user closes it."""

    def __init__(self, load: Callable[[EngineSettings, Progress], Engine] = load_engine) -> None:
        self._load = load
        self._lock = threading.Lock()
        self._engines: dict[EngineSettings, tuple[Engine, int]] = {}
        """Loaded engines, with the number of their users."""

    def load(self, settings: EngineSettings, progress: Progress = lambda message: None) -> Engine:
        """Load an engine, or share the one that is loaded; see `load_engine`.

        Blocks while another thread is loading an engine.

        Raises:
            EngineError: as `load_engine` does; the next call tries again.
        """
        with self._lock:
            engine, users = self._engines.get(settings, (None, 0))
            if engine is None:
                engine = self._load(settings, progress)
            else:
                progress(f"sharing {engine.name}, which is loaded already")
            self._engines[settings] = engine, users + 1
        return _SharedEngine(engine, lambda: self._give_back(settings))

    def _give_back(self, settings: EngineSettings) -> None:
        with self._lock:
            engine, users = self._engines[settings]
            if users > 1:
                self._engines[settings] = engine, users - 1
            else:
                del self._engines[settings]
                engine.close()


class _SharedEngine(ForwardingEngine):
    """One user's handle on an engine of an `EnginePool`."""

    def __init__(self, engine: Engine, give_back: Callable[[], None]) -> None:
        super().__init__(engine)
        self._give_back = give_back
        self._is_closed = False

    @override
    def ask(
        self,
        images: Sequence[NDArray[np.uint8]],
        questions: Sequence[str],
        answer_template: str | None = None,
    ) -> list[Answer]:
        if self._is_closed:
            raise EngineError(f"{self.name} is closed")
        return super().ask(images, questions, answer_template)

    @override
    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._give_back()
