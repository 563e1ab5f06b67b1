# SPDX-License-Identifier: Apache-2.0
"""The checkpoint that a run starts from."""

from __future__ import annotations

import logging
from dataclasses import fields, replace
from pathlib import Path
from typing import NamedTuple

from vlm3_lab.training.checkpoint import (
    TinyShape,
    build_checkpoint,
    extend_checkpoint,
    has_own_words,
)
from vlm3_lab.training.config import TrainConfig, TrainingError
from vlm3_lab.training.models import weights_dtype
from vlm3_lab.training.tasks import TASKS, task_samples
from vlm3_ros.engines.base import Profile
from vlm3_ros.engines.checkpoint import preflight
from vlm3_ros.engines.profiles import PROFILE_FILE, read_profile
from vlm3_ros.engines.settings import EngineSettings
from vlm3_ros.language.prompts import PromptSet, load_prompt_set
from vlm3_ros.tasks.depth import DEPTH

logger = logging.getLogger(__name__)


class Start(NamedTuple):
    """A checkpoint to train from, and how it is asked."""

    folder: Path
    profile: Profile


def starting_checkpoint(config: TrainConfig, folder: Path) -> Start:
    """The configured model, or one with random weights.

    A model is asked as its own profile says; without one, as configured.

    Args:
        folder: gets a new checkpoint if one must be built.

    Raises:
        TrainingError: if `shape` has an unknown key.
        EngineError: if the model does not exist.
    """
    if not config.model:
        profile = _configured_profile(config)
        sizes = [size.name for size in fields(TinyShape)]
        if unknown := [key for key in config.shape if key not in sizes]:
            raise TrainingError(f"shape holds {unknown[0]!r}; known are {', '.join(sizes)}")
        if not (folder / PROFILE_FILE).is_file():
            build_checkpoint(folder, TinyShape(**config.shape), profile, config.seed)
        return Start(folder, profile)
    # On the CPU: weights are read there before they are moved.
    settings = EngineSettings(config.model, device="cpu", dtype=weights_dtype(config))
    source = preflight(settings, logger.info).folder
    if not (source / PROFILE_FILE).is_file():
        return Start(source, _configured_profile(config))
    known = read_profile(source)
    if all(wording in known.prompts.wordings for wording in _taught_wordings(config)):
        return Start(source, known)
    profile = replace(known, prompts=_taught_prompts(config, known.prompts))
    if not has_own_words(source, known):
        return Start(source, profile)
    if not (folder / PROFILE_FILE).is_file():
        extend_checkpoint(source, folder, profile)
    return Start(folder, profile)


def _configured_profile(config: TrainConfig) -> Profile:
    return Profile(
        focal=config.profile.focal,
        fit=config.profile.fit,  # type: ignore[arg-type]  # load_config checks it
        prompts=_taught_prompts(config),
    )


def _taught_prompts(config: TrainConfig, known: PromptSet | None = None) -> PromptSet:
    """The configured prompts, without tasks that are neither taught nor known."""
    prompts = load_prompt_set(config.profile.prompts)
    kept = {*_taught_wordings(config), *(known.wordings if known else ()), DEPTH.name}
    return prompts.without(*(name for name in prompts.wordings if name not in kept))


def _taught_wordings(config: TrainConfig) -> list[str]:
    """The tasks, by their name in a prompt set, that a run teaches."""
    return [name for task in TASKS if config.learns(task) for name in task_samples(task).wordings]
