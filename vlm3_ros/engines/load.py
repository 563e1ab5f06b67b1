"""From settings to an engine that answers."""

from __future__ import annotations

from collections.abc import Callable

from vlm3_ros.engines.base import Engine, EngineError
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
    try:
        from vlm3_ros.engines.checkpoint import preflight
        from vlm3_ros.engines.transformers import load_transformers_engine
    except (ImportError, RuntimeError) as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise EngineError(
            f"torch and transformers cannot be imported: {' '.join(str(cause).split())} (install "
            "builds of torch, transformers and, if you need it, torchvision that fit together)"
        ) from error
    progress(f"checking {settings.model}")
    checked = preflight(settings, progress)
    progress(f"loading {checked}")
    return load_transformers_engine(settings, checked)
