# SPDX-License-Identifier: Apache-2.0
"""The models of a node: loaded while the node is configured."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from diagnostic_msgs.msg import DiagnosticStatus

from vlm3_ros.engines.base import Engine, EngineError
from vlm3_ros.engines.load import check_names
from vlm3_ros.engines.settings import EngineSettings

EngineLoader = Callable[[EngineSettings, Callable[[str], None]], Engine]
"""Loads an engine; reports progress in words. `EnginePool.load` shares one between nodes."""


class ModelHandle:
    """Loads the engines of a node, releases them, and knows their status.

    Attributes:
        engines: by the name of their task; tasks may share one. Empty while the node is
            unconfigured.
    """

    def __init__(self, loader: EngineLoader, log: Callable[[str], None]) -> None:
        """Create a handle without engines.

        Args:
            loader: of an engine.
            log: is called with the progress of loading, in words.
        """
        self.engines: Mapping[str, Engine] = {}
        self._loader = loader
        self._log = log

    def load(self, settings: Mapping[str, EngineSettings]) -> None:
        """Load an engine for each task; tasks with equal settings share one.

        Raises:
            EngineError: if one cannot be loaded; the others are closed again.
        """
        loaded: dict[EngineSettings, Engine] = {}
        try:
            for chosen in settings.values():  # before the first one loads, which takes minutes
                check_names(chosen)
            for chosen in dict.fromkeys(settings.values()):
                loaded[chosen] = self._loader(chosen, self._log)
        except Exception as error:
            for engine in loaded.values():
                engine.close()
            if not isinstance(error, EngineError) or len(set(settings.values())) == 1:
                raise
            tasks = " and ".join(task for task, needed in settings.items() if needed == chosen)
            raise EngineError(f"the model for {tasks}: {error}") from error
        self.engines = {task: loaded[chosen] for task, chosen in settings.items()}

    def release(self) -> None:
        """Close the engines that are loaded."""
        engines, self.engines = self.engines, {}
        for engine in _distinct(engines):
            engine.close()

    def status(
        self, is_configured: bool, fault: str | None, shortcoming: str = ""
    ) -> tuple[bytes, str, dict[str, str]]:
        """Return level, text and values of the diagnostic status.

        Args:
            is_configured: whether the node is being configured or is configured.
            fault: why the last configuration failed.
            shortcoming: what the node lacks because of its models; empty if nothing.
        """
        engines = self.engines
        if not engines:
            if is_configured:
                return DiagnosticStatus.WARN, "loading", {}
            if fault:
                return DiagnosticStatus.ERROR, fault, {}
            return DiagnosticStatus.OK, "not loaded: the node is unconfigured", {}
        distinct = _distinct(engines)
        if len(distinct) == 1:
            values = {"model": distinct[0].name}
        else:
            values = {f"model for {task}": engine.name for task, engine in engines.items()}
        # Each engine reports what all models of this process use.
        used = [engine.memory_bytes() for engine in distinct]
        if known := [memory for memory in used if memory is not None]:
            values["device memory (MB)"] = f"{max(known) / 1e6:.0f}"
        warnings = [engine.warning for engine in distinct if engine.warning]
        if shortcoming:
            warnings.append(shortcoming)
        if warnings:
            return DiagnosticStatus.WARN, "; ".join(warnings), values
        names = " and ".join(engine.name for engine in distinct)
        verb = "is" if len(distinct) == 1 else "are"
        return DiagnosticStatus.OK, f"{names} {verb} loaded", values


def _distinct(engines: Mapping[str, Engine]) -> list[Engine]:
    """Return each engine once."""
    return list({id(engine): engine for engine in engines.values()}.values())
