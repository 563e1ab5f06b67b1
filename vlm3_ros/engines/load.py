# SPDX-License-Identifier: Apache-2.0
"""Make an engine from settings."""

from __future__ import annotations

from collections.abc import Callable

from vlm3_ros.engines.base import Engine, EngineError
from vlm3_ros.engines.profiles import check_model_name, named_profile
from vlm3_ros.engines.settings import EngineSettings

Progress = Callable[[str], None]
"""Receives a line of text about what is being done."""


def load_engine(settings: EngineSettings, progress: Progress = lambda message: None) -> Engine:
    """Make an engine, ready to answer.

    A model that runs in this process is checked (see `preflight`) and loaded. A server need not
    run yet: if it does not, `ask` raises.

    Args:
        settings: which model, where and how.
        progress: receives a line of text about what is being done.

    Raises:
        EngineError: if the engine cannot be made; says what is wrong and what to do.
    """
    if settings.engine not in _LOADERS:
        raise EngineError(f"engine is {settings.engine!r}, it must be one of {', '.join(_LOADERS)}")
    engine = _LOADERS[settings.engine](settings, progress)
    if not settings.record_to:
        return engine
    from vlm3_ros.engines.recorded import RecordingEngine

    try:
        return RecordingEngine(engine, settings.record_to)
    except EngineError:
        engine.close()
        raise


def check_names(settings: EngineSettings) -> None:
    """Check the names of a profile and a model before anything is downloaded or loaded.

    Raises:
        EngineError: if the profile cannot be used, or there is none and the model's name resembles
            that of one of the authors' checkpoints, which is probably meant.
    """
    if settings.profile:
        named_profile(settings.profile)
    elif settings.engine == "transformers":
        check_model_name(settings.model)


# Each loader imports the libraries of its engine. torch alone takes seconds.


def _load_transformers(settings: EngineSettings, progress: Progress) -> Engine:
    try:
        from vlm3_ros.engines.checkpoint import preflight
        from vlm3_ros.engines.model import load_model
        from vlm3_ros.engines.transformers import TransformersEngine
    except (ImportError, RuntimeError) as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise EngineError(
            f"torch and transformers cannot be imported: {' '.join(str(cause).split())} (install "
            "builds of torch, transformers and, if you need it, torchvision that fit together)"
        ) from error
    check_names(settings)
    progress(f"checking {settings.model}")
    checked = preflight(settings, progress)
    return TransformersEngine(load_model(settings, checked, progress), settings)


def _load_openai(settings: EngineSettings, progress: Progress) -> Engine:
    try:
        from vlm3_ros.engines.remote.engine import load_remote_engine
    except ImportError as error:
        raise EngineError(f"engine openai needs the package httpx: {error}") from error
    return load_remote_engine(settings, progress)


def _load_recorded(settings: EngineSettings, progress: Progress) -> Engine:
    from vlm3_ros.engines.recorded import RecordedEngine

    progress(f"reading {settings.recording}")
    return RecordedEngine(settings.recording, settings.profile)


_LOADERS: dict[str, Callable[[EngineSettings, Progress], Engine]] = {
    "transformers": _load_transformers,
    "openai": _load_openai,
    "recorded": _load_recorded,
}
