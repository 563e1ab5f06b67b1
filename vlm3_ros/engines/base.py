# SPDX-License-Identifier: Apache-2.0
"""Who answers questions: what every engine offers, and what a checkpoint was trained for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vlm3_ros.errors import Vlm3Error
from vlm3_ros.geometry.camera import Fit, ImageLimits
from vlm3_ros.language.prompts import PromptSet, load_prompt_set, parse_prompt_set
from vlm3_ros.language.templates import PromptError

PROFILE_FILE = "vlm3.json"
AUTHORS_FOCAL = 1000.0
AUTHORS_PROMPTS = "vlm3"


class EngineError(Vlm3Error):
    """A model that cannot be loaded or asked; the message says what to do about it."""


@dataclass(frozen=True)
class AnswerUncertainty:
    """One standard deviation of a model's answers about pairs, measured where truth is known.

    The defaults stand for the authors' checkpoints, whose errors we know from the paper only: an
    AUC@30 of 0.9 is a mean of 3 degrees of the larger of both errors; twice that in direction, and
    in rotation, which is the easier part, 3.5 degrees over the three axes.

    Attributes:
        distance_relative: of the distance, where the engine does not tell it.
        distance_floor: metres, at least, in every direction: half a step of two decimals.
        direction_deg: of the direction, across it.
        rotation_deg: about each axis.
        match_deg: median angle between an answered match and the true one. The paper's matches
            err by 15 px (table 1): 1.6 degrees of an image of 640 px that sees 60 degrees.
    """

    distance_relative: float = 0.2
    distance_floor: float = 0.005
    direction_deg: float = 6.0
    rotation_deg: float = 2.0
    match_deg: float = 1.6


@dataclass(frozen=True)
class Profile:
    """What a checkpoint was trained for.

    Attributes:
        focal: unified focal length, px (paper 3.1).
        fit: how image sides become multiples of the model's patch, see `unify_focal`.
        prompts: the wording of its questions and answers.
        std_scale: what the spread of its distributions over numbers is multiplied by, to be as
            large as its errors are (see `vlm3 evaluate --calibrate`).
        uncertainty: of its answers about pairs (ditto).
    """

    focal: float
    fit: Fit
    prompts: PromptSet
    std_scale: float = 1.0
    uncertainty: AnswerUncertainty = field(default_factory=AnswerUncertainty)


@dataclass(frozen=True)
class Answer:
    """What a model says to one question.

    Attributes:
        text: the answer, greedily decoded.
        value: median of the decode's own distribution over numbers, in the answer's unit, which
            errs less than the greedy number of `text`; None if that distribution is unknown.
        std: spread of that distribution, as the standard deviation of a normal one with the same
            central 68 %, times the profile's `std_scale`; None if it is unknown.
        fault: why there is no answer, though there may be others; the text is empty then. None
            where the model has spoken.
    """

    text: str
    value: float | None = None
    std: float | None = None
    fault: str | None = None


class Engine(Protocol):
    """A loaded model. Methods may be called from any thread."""

    @property
    def name(self) -> str:
        """The model, as diagnostics show it."""
        ...

    @property
    def profile(self) -> Profile:
        """What the checkpoint was trained for."""
        ...

    @property
    def limits(self) -> ImageLimits:
        """The image sizes that the engine takes."""
        ...

    @property
    def warning(self) -> str | None:
        """What is wrong with the engine although it answers, in words; None if nothing is."""
        ...

    def ask(
        self,
        images: Sequence[NDArray[np.uint8]],
        questions: Sequence[str],
        answer_template: str | None = None,
    ) -> list[Answer]:
        """Answer each question about the images as if it were asked alone.

        Args:
            images: RGB, shape (height, width, 3) each, in the order in which the chat shows them.
            questions: any number, of any length.
            answer_template: the form of every answer, with {value} where its non-negative number
                stands: answers that keep to it come with `value` and `std`. None: free text.

        Returns:
            One answer per question, in their order. Where one could not be had although others
            could, it says so in `fault`.

        Raises:
            EngineError: when an image or a question cannot enter the model, or no question could
                be answered.
        """
        ...

    def memory_bytes(self) -> int | None:
        """Device memory in use, bytes; None where the device has none of its own."""
        ...

    def close(self) -> None:
        """Let go of the model; the engine answers nothing afterwards."""
        ...


def authors_profile() -> Profile:
    """What the authors' checkpoints were trained for."""
    return Profile(AUTHORS_FOCAL, "scale", load_prompt_set(AUTHORS_PROMPTS))


def load_profile(path: Path | str) -> Profile:
    """The profile in a file, or in a checkpoint's folder; the authors' where there is none.

    Raises:
        EngineError: naming the file and what is wrong with it.
    """
    path = Path(path)
    if path.is_dir():
        path /= PROFILE_FILE
    if not path.exists():
        return authors_profile()
    try:
        return parse_profile(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise EngineError(f"{path}: {error}") from error


def write_profile(folder: Path | str, profile: Profile) -> None:
    """Write a profile beside a checkpoint's weights, its prompt set included."""
    path = Path(folder) / PROFILE_FILE
    path.write_text(json.dumps(profile_json(profile), indent=2) + "\n", encoding="utf-8")


def profile_json(profile: Profile) -> dict[str, Any]:
    """Return the JSON form of a profile; `parse_profile` reads it."""
    return {**asdict(profile), "prompts": profile.prompts.to_json()}


def parse_profile(data: object) -> Profile:
    """Build a profile from its JSON form; the inverse of `profile_json`.

    Raises:
        ValueError: what is wrong with it.
    """
    needed = {"focal", "fit", "prompts"}
    if not isinstance(data, dict) or set(data) - {"std_scale", "uncertainty"} != needed:
        raise ValueError("it must be an object that holds focal, fit and prompts")
    fit, prompts = data["fit"], data["prompts"]
    focal = _positive(data["focal"], "focal", "number of pixels")
    std_scale = _positive(data.get("std_scale", 1.0), "std_scale", "factor")
    if fit not in ("scale", "pad"):
        raise ValueError(f'fit must be "scale" or "pad", not {fit!r}')
    uncertainty = _parse_uncertainty(data.get("uncertainty", {}))
    if isinstance(prompts, str):
        if prompts.endswith(".json"):
            raise PromptError("prompts must be the name of a shipped prompt set, or the set itself")
        return Profile(focal, fit, load_prompt_set(prompts), std_scale, uncertainty)
    return Profile(focal, fit, parse_prompt_set(prompts), std_scale, uncertainty)


def _parse_uncertainty(data: object) -> AnswerUncertainty:
    known = {some.name for some in fields(AnswerUncertainty)}
    if not isinstance(data, dict) or not data.keys() <= known:
        raise ValueError(f"uncertainty must be an object of {', '.join(sorted(known))}")
    return AnswerUncertainty(
        **{name: _positive(value, name, "number") for name, value in data.items()}
    )


def _positive(value: object, name: str, meaning: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise ValueError(f"{name} must be a positive {meaning}, not {value!r}")
    return float(value)
