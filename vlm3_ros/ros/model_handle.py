# SPDX-License-Identifier: Apache-2.0
"""The model of a node: loaded while the node is configured."""

from __future__ import annotations

from collections.abc import Callable

from diagnostic_msgs.msg import DiagnosticStatus

from vlm3_ros.engines.base import Engine
from vlm3_ros.engines.settings import EngineSettings

EngineLoader = Callable[[EngineSettings, Callable[[str], None]], Engine]
"""Loads an engine; reports progress in words. `EnginePool.load` shares one between nodes."""


class ModelHandle:
    """Loads the engine, releases it, and knows its status.

    Attributes:
        engine: None while the node is unconfigured.
    """

    def __init__(self, loader: EngineLoader, log: Callable[[str], None]) -> None:
        """Create a handle without an engine.

        Args:
            loader: of the engine.
            log: is called with the progress of loading, in words.
        """
        self.engine: Engine | None = None
        self._loader = loader
        self._log = log

    def load(self, settings: EngineSettings) -> None:
        """Load the engine.

        Raises:
            EngineError: if it cannot be loaded.
        """
        self.engine = self._loader(settings, self._log)

    def release(self) -> None:
        """Close the engine, if it is loaded."""
        if self.engine:
            self.engine.close()
            self.engine = None

    def status(self, is_configured: bool, fault: str | None) -> tuple[bytes, str, dict[str, str]]:
        """Return level, text and values of the diagnostic status.

        Args:
            is_configured: whether the node is being configured or is configured.
            fault: why the last configuration failed.
        """
        engine = self.engine
        if engine is None:
            if is_configured:
                return DiagnosticStatus.WARN, "loading", {}
            if fault:
                return DiagnosticStatus.ERROR, fault, {}
            return DiagnosticStatus.OK, "not loaded: the node is unconfigured", {}
        values = {"model": engine.name}
        memory = engine.memory_bytes()
        if memory is not None:
            values["device memory (MB)"] = f"{memory / 1e6:.0f}"
        if engine.warning:
            return DiagnosticStatus.WARN, engine.warning, values
        return DiagnosticStatus.OK, f"{engine.name} is loaded", values
