# SPDX-License-Identifier: Apache-2.0
"""Profiles of checkpoints: their files, those that ship with the package, and how one is chosen.

A checkpoint of this package has its profile in `vlm3.json`. The authors' checkpoints have no such
file; their profiles ship with the package and are found by the checkpoint's name.
"""

from __future__ import annotations

import difflib
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, get_args

from vlm3_ros.engines.base import AnswerUncertainty, EngineError, Profile
from vlm3_ros.geometry.camera import Axes, Fit
from vlm3_ros.language.prompts import load_prompt_set, parse_prompt_set
from vlm3_ros.language.templates import PromptError
from vlm3_ros.paths import SHIPPED_PROFILES, shipped_profiles

PROFILE_FILE = "vlm3.json"

PAPER_PROFILE = "vlm3"
"""Name of the shipped profile with the paper's wording, for checkpoints trained with it."""

_OF_TASKS = " (pose_profile for pose_model, and so on)"

_NEEDED = ("focal", "fit", "prompts")
"""Keys that every profile holds."""
_OPTIONAL = {f.name: f.default for f in fields(Profile) if f.name not in _NEEDED}


@lru_cache
def shipped_profile(name: str) -> Profile:
    """Return a profile that ships with the package.

    Raises:
        EngineError: if there is none of this name.
    """
    if name not in shipped_profiles():
        raise EngineError(f"no profile is called {name!r}: use one of {_names()}, or a file")
    return read_profile(SHIPPED_PROFILES / f"{name}.json")


@lru_cache
def authors_checkpoints() -> dict[str, str]:
    """Return the name of the shipped profile of each of the authors' checkpoints, by hub id."""
    profiles = {name: shipped_profile(name) for name in shipped_profiles()}
    return {profile.checkpoint: name for name, profile in profiles.items() if profile.checkpoint}


def authors_checkpoint_for(task: str) -> str | None:
    """Return the hub id of the authors' checkpoint that learned a task; None if none did."""
    for hub_id, name in authors_checkpoints().items():
        if task in shipped_profile(name).prompts.wordings:
            return hub_id
    return None


def choose_profile(setting: str, model: str, folder: Path | None = None) -> tuple[Profile, str]:
    """Choose the profile of a checkpoint: by the setting, its vlm3.json, or its name.

    Args:
        setting: the setting `profile`: a shipped name, a file, a folder that holds a vlm3.json, or
            empty.
        model: name of the checkpoint: a hub id, a folder, or a server's name for its model.
        folder: of its files, if they are on this machine.

    Returns:
        The profile, and how it was chosen, such as "by its vlm3.json".

    Raises:
        EngineError: if the setting names no profile, a file cannot be used, or nothing says what
            the checkpoint was trained for.
    """
    if setting:
        return named_profile(setting), f"by the setting profile: {setting}"
    for place in (folder, Path(model).expanduser() if model else None):
        if place and (place / PROFILE_FILE).is_file():
            return read_profile(place), f"by its {PROFILE_FILE}"
    if name := authors_profile(model, folder):
        return shipped_profile(name), "by the checkpoint's name"
    raise EngineError(_unknown(model))


def check_model_name(model: str) -> None:
    """Refuse a hub id that looks like a misspelled one of the authors'.

    Args:
        model: hub id or folder. The owner of a hub id counts: somebody's VLM3-depth-2 may have a
            vlm3.json of its own.

    Raises:
        EngineError: naming the checkpoint that is probably meant.
    """
    if authors_profile(model) or Path(model).expanduser().is_dir():
        return
    hub_ids = {hub_id.lower(): hub_id for hub_id in authors_checkpoints()}
    if meant := _most_similar(model.lower(), hub_ids, 0.9):
        raise EngineError(_misspelled(model, meant))


def authors_profile(model: str, folder: Path | None = None) -> str | None:
    """Return the shipped profile whose checkpoint has the name of a model; None if none has."""
    profiles = {_last_part(hub_id): name for hub_id, name in authors_checkpoints().items()}
    for place in (model, *((str(folder), str(folder.resolve())) if folder else ())):
        # The hub's cache keeps facebook/VLM3-depth in models--facebook--VLM3-depth/snapshots/...
        cached = re.search(r"models--(?:[^/\\]+--)?([^/\\]+?)[/\\]snapshots[/\\]", place)
        if name := profiles.get(cached[1].lower() if cached else _last_part(place)):
            return name
    return None


def named_profile(name: str) -> Profile:
    """Return a profile by its shipped name, its file, or the folder that holds its vlm3.json.

    Raises:
        EngineError: if it does not exist or cannot be used.
    """
    if name in shipped_profiles():
        return shipped_profile(name)
    path = Path(name)
    try:
        path = path.expanduser()
        exists = path.exists()
    except (OSError, RuntimeError):  # too long, or ~ of an unknown user
        exists = False
    if not exists:
        close = difflib.get_close_matches(_last_part(name), shipped_profiles(), 1, 0.7)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise EngineError(
            f"profile {name} does not exist{hint}: use one of {_names()}, a {PROFILE_FILE}, or a "
            "folder that holds one"
        )
    return read_profile(path)


def read_profile(path: Path | str) -> Profile:
    """Read a profile from a file, or from the vlm3.json in a folder.

    Raises:
        EngineError: if the file does not exist or cannot be used; names it and what is wrong.
    """
    path = Path(path)
    if path.is_dir():
        path /= PROFILE_FILE
    try:
        return parse_profile(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise EngineError(f"{path}: {error.strerror}") from error
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EngineError(f"{path} is not JSON: {error}") from error
    except ValueError as error:
        raise EngineError(f"{path}: {error}") from error


def write_profile(folder: Path | str, profile: Profile) -> None:
    """Write a profile, with its prompt set, into a checkpoint's folder."""
    path = Path(folder) / PROFILE_FILE
    path.write_text(json.dumps(profile_json(profile), indent=2) + "\n", encoding="utf-8")


def profile_json(profile: Profile) -> dict[str, Any]:
    """Return the JSON form of a profile; `parse_profile` reads it."""
    # Older versions refuse these keys: write them only where they differ from the default.
    newer = ("axes", "longest_side", "max_new_tokens", "checkpoint")
    values = {name: getattr(profile, name) for name in newer}
    return {
        "focal": profile.focal,
        "fit": profile.fit,
        "prompts": profile.prompts.to_json(),
        "std_scale": profile.std_scale,
        "uncertainty": asdict(profile.uncertainty),
        **{name: value for name, value in values.items() if value != _OPTIONAL[name]},
    }


def parse_profile(data: object) -> Profile:
    """Build a profile from its JSON form; the inverse of `profile_json`.

    Raises:
        ValueError: if the data are not a profile; says what is wrong.
    """
    if not isinstance(data, Mapping) or not set(_NEEDED) <= set(data):
        raise ValueError(f"it must be an object that holds {', '.join(_NEEDED)}")
    if unknown := sorted(set(data) - {*_NEEDED, *_OPTIONAL}):
        raise ValueError(
            f"it holds {', '.join(map(repr, unknown))}, which this version does not know; it knows "
            f"{', '.join((*_NEEDED, *_OPTIONAL))}"
        )
    focal, longest_side, prompts = data["focal"], data.get("longest_side"), data["prompts"]
    if isinstance(prompts, str):
        if prompts.endswith(".json"):
            raise PromptError("prompts must be the name of a shipped prompt set, or the set itself")
        prompt_set = load_prompt_set(prompts)
    else:
        prompt_set = parse_prompt_set(prompts)
    if not isinstance(checkpoint := data.get("checkpoint", ""), str):
        raise ValueError(f"checkpoint must be a hub id, not {checkpoint!r}")
    return Profile(
        focal=None if focal is None else _positive(focal, "focal", "number of pixels"),
        fit=_choice(data["fit"], "fit", get_args(Fit)),
        prompts=prompt_set,
        std_scale=_positive(data.get("std_scale", 1.0), "std_scale", "factor"),
        uncertainty=_parse_uncertainty(data.get("uncertainty", {})),
        axes=_choice(data.get("axes", "each"), "axes", get_args(Axes)),
        longest_side=None if longest_side is None else _count(longest_side, "longest_side"),
        max_new_tokens=_count(data.get("max_new_tokens", 128), "max_new_tokens"),
        checkpoint=checkpoint,
    )


def conventions(profile: Profile) -> str:
    """Describe in one line how a checkpoint is asked."""
    if profile.focal is None:
        images = f"a longest side of {profile.longest_side} px"
    else:
        images = f"a focal length of {profile.focal:g} px" + (" by fx" * (profile.axes == "fx"))
    prompts = profile.prompts
    has_coordinates = set(prompts.wordings) != {"pose"}
    coordinates = f"coordinates from 0 to {prompts.text_range - 1}, " * has_coordinates
    return (
        f"images at {images}, {coordinates}wording {prompts.name}, answers about "
        f"{', '.join(prompts.wordings)}"
    )


def _last_part(place: str) -> str:
    """Name of a checkpoint in lower case, without its owner or folder."""
    return re.split(r"[/\\]", place.rstrip("/\\"))[-1].lower()


def _most_similar(text: str, known: Mapping[str, str], cutoff: float) -> str | None:
    """Return the value of the key that resembles a text most; None if none is similar enough."""
    close = difflib.get_close_matches(text, known, 1, cutoff)
    return known[close[0]] if close else None


def _misspelled(model: str, meant: str) -> str:
    return (
        f"model {model!r} is none of the authors' checkpoints: did you mean {meant}? If not, set "
        f"profile to what it was trained for: one of {_names()}, or a file{_OF_TASKS}"
    )


def _unknown(model: str) -> str:
    names = {_last_part(hub_id): hub_id for hub_id in authors_checkpoints()}
    if meant := _most_similar(_last_part(model), names, 0.8):
        return _misspelled(model, meant)
    return (
        f"nothing says what {model or 'the model'} was trained for: it has no {PROFILE_FILE}, and "
        f"its name is none of {', '.join(names)}. Set profile to one of {_names()}, or to a file"
        f"{_OF_TASKS}"
    )


def _names() -> str:
    return ", ".join(shipped_profiles())


def _parse_uncertainty(data: object) -> AnswerUncertainty:
    known = {f.name for f in fields(AnswerUncertainty)}
    if not isinstance(data, dict) or not data.keys() <= known:
        raise ValueError(f"uncertainty must be an object of {', '.join(sorted(known))}")
    return AnswerUncertainty(
        **{name: _positive(value, name, "number") for name, value in data.items()}
    )


def _choice(value: object, name: str, choices: tuple[str, ...]) -> Any:
    if value not in choices:
        shown = " or ".join(f'"{choice}"' for choice in choices)
        raise ValueError(f"{name} must be {shown}, not {value!r}")
    return value


def _positive(value: object, name: str, meaning: str) -> float:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if is_number and 0 < value <= sys.float_info.max:  # type: ignore[operator]
        return float(value)  # type: ignore[arg-type]
    raise ValueError(f"{name} must be a positive {meaning}, not {value!r}")


def _count(value: object, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a positive whole number, not {value!r}")
    return value
