# SPDX-License-Identifier: Apache-2.0
"""What a model learned, as far as it is known before the model is downloaded or loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vlm3_ros.engines.base import EngineError, Profile
from vlm3_ros.engines.profiles import authors_checkpoints, choose_profile
from vlm3_ros.engines.settings import EngineSettings


@dataclass(frozen=True)
class KnownModel:
    """A model that need not be loaded; see `Engine` for the attributes."""

    name: str
    profile: Profile


def known_model(settings: EngineSettings) -> KnownModel | None:
    """Return what settings alone say about a model; None if only loading can tell.

    A model on the hub may have a profile of its own, unless it is one of the authors'.
    """
    if settings.engine == "recorded" or not (settings.model or settings.profile):
        return None
    is_on_hub = settings.engine == "transformers" and not Path(settings.model).expanduser().is_dir()
    if is_on_hub and not settings.profile and settings.model not in authors_checkpoints():
        return None
    try:
        profile, _ = choose_profile(settings.profile, settings.model)
    except EngineError:
        return None  # loading says the same, and names the model
    return KnownModel(settings.model or "the model", profile)
