# SPDX-License-Identifier: Apache-2.0
"""The checkpoint that a run starts from."""

from __future__ import annotations

import logging
from collections.abc import Set
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
from vlm3_ros.engines.profiles import (
    PROFILE_FILE,
    authors_profile,
    choose_profile,
    conventions,
)
from vlm3_ros.engines.settings import EngineSettings
from vlm3_ros.language.prompts import PromptSet, load_prompt_set
from vlm3_ros.tasks.correspondence import CORRESPONDENCE
from vlm3_ros.tasks.depth import DEPTH

logger = logging.getLogger(__name__)


class Start(NamedTuple):
    """A checkpoint to train from, and how it is asked."""

    folder: Path
    profile: Profile


def starting_checkpoint(config: TrainConfig, folder: Path) -> Start:
    """The configured model, or one with random weights.

    A model is asked as its vlm3.json says, one of the authors' as its shipped profile says, and
    others as configured. What it did not learn yet is asked as configured.

    Args:
        folder: gets a new checkpoint if one must be built.

    Raises:
        TrainingError: if `shape` has an unknown key, or a model that is asked like this cannot
            learn what is taught.
        EngineError: if the model does not exist.
    """
    if not config.model:
        profile = _configured_profile(config)
        sizes = [size.name for size in fields(TinyShape)]
        if unknown := [key for key in config.shape if key not in sizes]:
            raise TrainingError(f"shape holds {unknown[0]!r}; known are {', '.join(sizes)}")
        if not (folder / PROFILE_FILE).is_file():
            build_checkpoint(folder, TinyShape(**config.shape), profile, config.seed)
        _log_profile(profile, "a new model", "as configured")
        return Start(folder, profile)
    if not _known_profile(config.model):
        _configured_profile(config)  # its errors come before a download
    # On the CPU: weights are read there before they are moved.
    settings = EngineSettings(config.model, device="cpu", dtype=weights_dtype(config))
    source = preflight(settings, logger.info).folder
    known = _known_profile(config.model, source)
    if known is None:
        profile = _configured_profile(config)
        _log_profile(profile, config.model, f"as configured, as it has no {PROFILE_FILE}")
        return Start(source, profile)
    profile, reason = known
    _check_focal(config, profile.focal)
    if not (new := _asked_wordings(config) - profile.prompts.wordings.keys()):
        _log_profile(profile, config.model, reason)
        return Start(source, profile)
    extended = _extended_profile(config, profile)
    _log_profile(extended, config.model, f"{reason}; {', '.join(sorted(new))} as configured")
    if not has_own_words(source, profile):
        return Start(source, extended)
    if not (folder / PROFILE_FILE).is_file():
        extend_checkpoint(source, folder, extended)
    return Start(folder, extended)


def _known_profile(model: str, folder: Path | None = None) -> tuple[Profile, str] | None:
    """What a model was trained for, and how that is known; None if only a configuration can say.

    Args:
        model: a folder, or a hub id.
        folder: of its files, once they are on this machine.
    """
    place = folder or Path(model).expanduser()
    if not (place / PROFILE_FILE).is_file() and authors_profile(model, folder) is None:
        return None
    profile, reason = choose_profile("", model, folder)
    # What is trained from the authors' checkpoint is another one.
    return replace(profile, checkpoint=""), reason


def _log_profile(profile: Profile, model: str, reason: str) -> None:
    logger.info("%s: %s (%s)", model, conventions(profile), reason)


def _configured_profile(config: TrainConfig) -> Profile:
    """The profile of the configuration, without tasks that are not taught.

    Raises:
        TrainingError: if a model that is asked like this cannot learn what is taught.
    """
    part, prompts = config.profile, load_prompt_set(config.profile.prompts)
    _check_wordings(config, prompts)
    _check_focal(config, part.focal)
    kept = _asked_wordings(config)
    if part.focal is not None:
        kept |= {*_taught_wordings(config), DEPTH.name}
    return Profile(
        focal=part.focal,
        fit=part.fit,  # type: ignore[arg-type]  # load_config checks it
        prompts=_only(prompts, kept),
        axes=part.axes,  # type: ignore[arg-type]
        longest_side=part.longest_side,
        max_new_tokens=part.max_new_tokens,
    )


def _extended_profile(config: TrainConfig, known: Profile) -> Profile:
    """A model's profile, with the configured wording of tasks that it did not learn yet.

    Raises:
        TrainingError: if a model that is asked like this cannot learn what is taught.
    """
    old, new = known.prompts, load_prompt_set(config.profile.prompts)
    if new.text_range != old.text_range:
        raise TrainingError(
            f"{config.model} learned coordinates in [0, {old.text_range}), and prompt set "
            f"{new.name!r} has [0, {new.text_range}): choose a profile.prompts of the same range"
        )
    wordings = {**new.wordings, **old.wordings}
    _check_wordings(config, replace(new, wordings=wordings))
    kept = _taught_wordings(config) | old.wordings.keys()
    return replace(
        known,
        prompts=_only(replace(old, wordings=wordings), kept),
        max_new_tokens=max(known.max_new_tokens, config.profile.max_new_tokens),
    )


def _only(prompts: PromptSet, kept: Set[str]) -> PromptSet:
    return prompts.without(*(name for name in prompts.wordings if name not in kept))


def _check_wordings(config: TrainConfig, prompts: PromptSet) -> None:
    if missing := _asked_wordings(config) - prompts.wordings.keys():
        raise TrainingError(
            f"this run teaches {', '.join(sorted(missing))}, for which prompt set "
            f"{prompts.name!r} has no questions: choose another profile.prompts, or teach less"
        )


def _check_focal(config: TrainConfig, focal: float | None) -> None:
    warmups = [key for key, part in config.warmups.items() if part.optimiser.steps]
    metric = sorted(_asked_wordings(config) - {CORRESPONDENCE.name}) + warmups
    if focal is None and metric:
        raise TrainingError(
            f"{', '.join(metric)}: metric answers need a unified focal length, and the profile has "
            "a longest side: set profile.focal, or teach matches alone (data.pose: false)"
        )


def _taught_wordings(config: TrainConfig) -> set[str]:
    """The tasks, by their name in a prompt set, that a run teaches."""
    return {name for task in TASKS if config.learns(task) for name in task_samples(task).wordings}


def _asked_wordings(config: TrainConfig) -> set[str]:
    """The tasks, by their name in a prompt set, that a run asks about in words."""
    parts = [config.data]
    if config.object_warmup.optimiser.steps:
        parts.append(config.object_warmup.data)
    return {
        name
        for data in parts
        for task in TASKS
        if data.share(task)
        for name in task_samples(task).asked(data)
    }
