# SPDX-License-Identifier: Apache-2.0
"""One model in memory for all who ask it in a process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from vlm3_ros.engines.base import Answer, Engine, EngineError, Profile
from vlm3_ros.engines.load import Progress, load_engine
from vlm3_ros.engines.settings import EngineSettings
from vlm3_ros.geometry.camera import ImageLimits


class EnginePool:
    """Loads each engine once, however many ask for it, and closes it when the last one has.

    Engines are the same when all their settings are.
    """

    def __init__(self, load: Callable[[EngineSettings, Progress], Engine] = load_engine) -> None:
        self._load = load
        self._lock = threading.Lock()
        self._engines: dict[EngineSettings, tuple[Engine, int]] = {}
        """With the number of their users."""

    def load(
        self, settings: EngineSettings, progress: Progress = lambda message: None
    ) -> SharedEngine:
        """An engine, loaded unless somebody uses it already; see `load_engine`.

        Who asks for one while another is being loaded waits for it.

        Raises:
            EngineError: as `load_engine` does; the next who asks tries again.
        """
        with self._lock:
            engine, users = self._engines.get(settings, (None, 0))
            if engine is None:
                engine = self._load(settings, progress)
            else:
                progress(f"sharing {engine.name}, which is loaded already")
            self._engines[settings] = engine, users + 1
        return SharedEngine(engine, lambda: self._give_back(settings))

    def _give_back(self, settings: EngineSettings) -> None:
        with self._lock:
            engine, users = self._engines[settings]
            if users > 1:
                self._engines[settings] = engine, users - 1
            else:
                del self._engines[settings]
                engine.close()


class SharedEngine:
    """See `vlm3_ros.engines.base.Engine`: one user's hold on an engine of an `EnginePool`."""

    def __init__(self, engine: Engine, give_back: Callable[[], None]) -> None:
        self._engine = engine
        self._give_back = give_back
        self._is_closed = False

    @property
    def name(self) -> str:
        """See `Engine.name`."""
        return self._engine.name

    @property
    def profile(self) -> Profile:
        """See `Engine.profile`."""
        return self._engine.profile

    @property
    def limits(self) -> ImageLimits:
        """See `Engine.limits`."""
        return self._engine.limits

    @property
    def warning(self) -> str | None:
        """See `Engine.warning`."""
        return self._engine.warning

    def ask(
        self,
        images: Sequence[NDArray[np.uint8]],
        questions: Sequence[str],
        answer_template: str | None = None,
    ) -> list[Answer]:
        """See `Engine.ask`."""
        if self._is_closed:
            raise EngineError(f"{self.name} is closed")
        return self._engine.ask(images, questions, answer_template)

    def memory_bytes(self) -> int | None:
        """See `Engine.memory_bytes`."""
        return self._engine.memory_bytes()

    def close(self) -> None:
        """See `Engine.close`; others go on."""
        if not self._is_closed:
            self._is_closed = True
            self._give_back()
