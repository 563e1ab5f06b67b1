# SPDX-License-Identifier: Apache-2.0
"""The interface of all engines, and the profile of a checkpoint: see `profiles` for its files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from vlm3_ros.errors import Vlm3Error
from vlm3_ros.geometry.camera import Axes, Fit, ImageLimits
from vlm3_ros.language.prompts import PromptSet


class EngineError(Vlm3Error):
    """A model cannot be loaded or asked; the text says what to do."""


class UnavailableError(EngineError):
    """A model cannot be asked now, but may be later: its server is down, busy or restarting."""


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
    """What a checkpoint was trained for: its conventions.

    Attributes:
        focal: unified focal length, px (paper 3.1); None if images enter by `longest_side`.
        fit: how image sides become multiples of the model's patch; see `unify_focal`.
        prompts: wording of its questions and answers.
        std_scale: factor from the spread of its distributions over numbers to the standard
            deviation of its errors; measured by `vlm3 evaluate --calibrate`.
        uncertainty: of its answers about pairs; measured by the same command.
        axes: which axis gets the focal length; see `unify_focal`.
        longest_side: of images when they enter, px, if `focal` is None.
        max_new_tokens: enough for its longest answer, in tokens.
        checkpoint: hub id of the checkpoint that it describes; empty if it describes several.

    Raises:
        ValueError: if there is not exactly one of `focal` and `longest_side`, or a task has metric
            answers but there is no focal length.
    """

    focal: float | None
    fit: Fit
    prompts: PromptSet
    std_scale: float = 1.0
    uncertainty: AnswerUncertainty = field(default_factory=AnswerUncertainty)
    axes: Axes = "each"
    longest_side: int | None = None
    max_new_tokens: int = 128
    checkpoint: str = ""

    def __post_init__(self) -> None:
        if (self.focal is None) == (self.longest_side is None):
            raise ValueError("it must hold either a focal length or a longest side")
        if self.focal is None and (metric := set(self.prompts.wordings) - {"correspondence"}):
            raise ValueError(f"{', '.join(sorted(metric))}: metric answers need a focal length")


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
        is_cut: whether the text ends because it reached the maximum number of tokens, not because
            the model ended it.
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
                number, as the profile has it. Answers of this form, or of another one that the
                engine learns from the model's free answers, may have `value` and `std`. None: free
                text.

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
