# SPDX-License-Identifier: Apache-2.0
"""The profiles of models, as far as they are known before any model is downloaded or loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vlm3_ros.engines.base import EngineError, Profile
from vlm3_ros.engines.profiles import authors_checkpoints, choose_profile
from vlm3_ros.engines.settings import EngineSettings


@dataclass(frozen=True)
class KnownModel:
    """Name and profile of a model that is not loaded; see `Engine` for both."""

    name: str
    profile: Profile


def known_model(settings: EngineSettings) -> KnownModel | None:
    """Return the model that settings choose; None if its profile is known only after loading.

    A model on the hub may have a vlm3.json of its own, unless it is one of the authors'.
    """
    if settings.engine == "recorded" or not (settings.model or settings.profile):
        return None
    is_on_hub = settings.engine == "transformers" and not Path(settings.model).expanduser().is_dir()
    if is_on_hub and not settings.profile and settings.model not in authors_checkpoints():
        return None
    try:
        profile, _ = choose_profile(settings.profile, settings.model)
    except EngineError:
        return None  # loading raises the same error
    return KnownModel(settings.model or "the model", profile)
