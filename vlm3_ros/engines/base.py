# SPDX-License-Identifier: Apache-2.0
"""The interface of all engines, and the profile of a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from vlm3_ros.errors import Vlm3Error
from vlm3_ros.geometry.camera import Fit, ImageLimits
from vlm3_ros.language.prompts import PromptSet, load_prompt_set, parse_prompt_set
from vlm3_ros.language.templates import PromptError

PROFILE_FILE = "vlm3.json"
AUTHORS_FOCAL = 1000.0
AUTHORS_PROMPTS = "vlm3"


class EngineError(Vlm3Error):
    """A model cannot be loaded or asked; the text says what to do."""


@dataclass(frozen=True)
class AnswerUncertainty:
    """Standard deviations of a model's answers about image pairs, measured against ground truth.

    The defaults are for the authors' checkpoints, whose errors are known only from the paper. An
    AUC@30 of 0.9 means that the larger of the rotation and direction errors is 3 degrees on
    average. The defaults assume twice that for direction; for rotation, which is easier, they
    assume 3.5 degrees over the three axes.

    Attributes:
        distance_relative: of the distance, as a share of it; used if the engine gives none.
        distance_floor: minimum in metres, in every direction: half a step of two decimals.
        direction_deg: of the direction, degrees.
        rotation_deg: of the rotation about each axis, degrees.
        match_deg: median angle in degrees between an answered match and the true one. The paper's
            matches err by 15 px (table 1): 1.6 degrees in an image of 640 px and 60 degrees.
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
        fit: how image sides become multiples of the model's patch; see `unify_focal`.
        prompts: wording of its questions and answers.
        std_scale: factor from the spread of its distributions over numbers to the standard
            deviation of its errors; measured by `vlm3 evaluate --calibrate`.
        uncertainty: of its answers about pairs; measured by the same command.
    """

    focal: float
    fit: Fit
    prompts: PromptSet
    std_scale: float = 1.0
    uncertainty: AnswerUncertainty = field(default_factory=AnswerUncertainty)


@dataclass(frozen=True)
class Answer:
    """A model's answer to one question.

    Attributes:
        text: the answer, decoded greedily.
        value: median of the decoded distribution over numbers, in the unit of the answer. It errs
            less than the greedy number in `text`. None if the distribution is unknown.
        std: spread of that distribution: the standard deviation of a normal distribution with the
            same central 68 %, times the profile's `std_scale`. None if it is unknown.
        fault: why this question has no answer; `text` is then empty. None if it was answered.
        is_cut: whether the model was stopped at the limit of its answer's length, so that the text
            may end inside of a number. False if it is unknown.
    """

    text: str
    value: float | None = None
    std: float | None = None
    fault: str | None = None
    is_cut: bool = False


class Engine(Protocol):
    """A loaded model. Methods may be called from any thread."""

    @property
    def name(self) -> str:
        """Name of the model in diagnostics."""
        ...

    @property
    def profile(self) -> Profile:
        """Profile of the checkpoint."""
        ...

    @property
    def limits(self) -> ImageLimits:
        """Image sizes that the engine accepts."""
        ...

    @property
    def warning(self) -> str | None:
        """What is wrong although the engine may still answer; None if nothing is."""
        ...

    def ask(
        self,
        images: Sequence[NDArray[np.uint8]],
        questions: Sequence[str],
        answer_template: str | None = None,
    ) -> list[Answer]:
        """Answer each question about the images as if it were the only one.

        Args:
            images: RGB, shape (height, width, 3) each, uint8, in the order of the chat.
            questions: any number, of any length.
            answer_template: form of every answer, with {value} in place of its non-negative
                number. Answers of this form may have `value` and `std`. None: free text.

        Returns:
            One answer per question, in order. If only some questions could be answered, the
            others have a `fault`.

        Raises:
            EngineError: if an image or a question cannot enter the model, or no question could
                be answered.
        """
        ...

    def memory_bytes(self) -> int | None:
        """Return the device memory in use in bytes; None if the device has no memory of its own."""
        ...

    def close(self) -> None:
        """Release the model. The engine must not be asked afterwards."""
        ...


class ForwardingEngine(Engine):
    """Forwards everything to another engine; derived classes override what they change."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    @override
    def name(self) -> str:
        return self._engine.name

    @property
    @override
    def profile(self) -> Profile:
        return self._engine.profile

    @property
    @override
    def limits(self) -> ImageLimits:
        return self._engine.limits

    @property
    @override
    def warning(self) -> str | None:
        return self._engine.warning

    @override
    def ask(
        self,
        images: Sequence[NDArray[np.uint8]],
        questions: Sequence[str],
        answer_template: str | None = None,
    ) -> list[Answer]:
        return self._engine.ask(images, questions, answer_template)

    @override
    def memory_bytes(self) -> int | None:
        return self._engine.memory_bytes()

    @override
    def close(self) -> None:
        self._engine.close()


def authors_profile() -> Profile:
    """Return the profile of the authors' checkpoints."""
    return Profile(AUTHORS_FOCAL, "scale", load_prompt_set(AUTHORS_PROMPTS))


def load_profile(path: Path | str) -> Profile:
    """Load a profile from a file or a checkpoint's folder; return the authors' if it is missing.

    Raises:
        EngineError: if the file cannot be used; names it and what is wrong.
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
    """Write a profile, with its prompt set, into a checkpoint's folder."""
    path = Path(folder) / PROFILE_FILE
    path.write_text(json.dumps(profile_json(profile), indent=2) + "\n", encoding="utf-8")


def profile_json(profile: Profile) -> dict[str, Any]:
    """Return the JSON form of a profile; `parse_profile` reads it."""
    return {**asdict(profile), "prompts": profile.prompts.to_json()}


def parse_profile(data: object) -> Profile:
    """Build a profile from its JSON form; the inverse of `profile_json`.

    Raises:
        ValueError: if the data are not a profile; says what is wrong.
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
    known = {f.name for f in fields(AnswerUncertainty)}
    if not isinstance(data, dict) or not data.keys() <= known:
        raise ValueError(f"uncertainty must be an object of {', '.join(sorted(known))}")
    return AnswerUncertainty(
        **{name: _positive(value, name, "number") for name, value in data.items()}
    )


def _positive(value: object, name: str, meaning: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise ValueError(f"{name} must be a positive {meaning}, not {value!r}")
    return float(value)
