"""From settings to an engine that answers."""

from __future__ import annotations

from collections.abc import Callable

from vlm3_ros.engines.base import Engine
from vlm3_ros.engines.settings import EngineSettings


def load_engine(
    settings: EngineSettings, progress: Callable[[str], None] = lambda message: None
) -> Engine:
    """Check a model (see `preflight`), and load it.

    Args:
        settings: which model, where and how.
        progress: is told, in words, what is being done.

    Raises:
        EngineError: with one message that says what is wrong and what to do.
    """
    # torch takes seconds to import: only who loads a model waits for it.
    from vlm3_ros.engines.checkpoint import preflight
    from vlm3_ros.engines.transformers import load_transformers_engine

    progress(f"checking {settings.model}")
    checked = preflight(settings, progress)
    progress(f"loading {checked}")
    return load_transformers_engine(settings, checked)
