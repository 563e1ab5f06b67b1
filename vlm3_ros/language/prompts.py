"""Prompt sets: the wording that a checkpoint was trained with. They are data, not code."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

_SHIPPED = Path(__file__).parent / "prompt_sets"


class PromptError(ValueError):
    """A prompt set that is missing or wrong, or a value that it cannot word."""


@dataclass(frozen=True)
class DepthPrompt:
    """Wording of metric depth (paper 3.2); answers are in metres.

    Attributes:
        question: text with {x} and {y}, the text coordinates of the pixel.
        answer: text with {value}. What encloses {value} marks the number in an answer: the tags
            next to it, or all of the text where there are none.
        decimals: how many an answer has.

    Raises:
        PromptError: when a placeholder is missing or repeated, or nothing encloses {value}.
    """

    question: str
    answer: str
    decimals: int

    def __post_init__(self) -> None:
        for name, text, placeholders in (
            ("question", self.question, ("{x}", "{y}")),
            ("answer", self.answer, ("{value}",)),
        ):
            for placeholder in placeholders:
                if text.count(placeholder) != 1:
                    raise PromptError(f"the depth {name} must hold {placeholder} once: {text!r}")
        # Without an end mark, a number that was cut off would pass for a whole one.
        if not all(part.strip() for part in self.answer.split("{value}")):
            raise PromptError(f"the depth answer must enclose {{value}} in text: {self.answer!r}")
        if self.decimals < 0:
            raise PromptError(f"decimals is {self.decimals}, it must be 0 or more")


@dataclass(frozen=True)
class PromptSet:
    """All questions of a checkpoint, and the range of its text coordinates (paper 3.1).

    Attributes:
        name: how the set is called in settings and messages.
        text_range: coordinates in questions and answers lie in [0, text_range).

    Raises:
        PromptError: when the range is not positive.
    """

    name: str
    text_range: int
    depth: DepthPrompt

    def __post_init__(self) -> None:
        if self.text_range < 1:
            raise PromptError(f"text_range is {self.text_range}, it must be positive")


def load_prompt_set(name_or_path: str | Path) -> PromptSet:
    """A prompt set that ships with the package, by name, or one of your own, by file.

    Args:
        name_or_path: "vlm3", or the path of a JSON file (whatever ends in ".json").

    Raises:
        PromptError: naming the set or the file and what is wrong with it.
    """
    if str(name_or_path).endswith(".json"):
        path = Path(name_or_path)
    else:
        path = _SHIPPED / f"{name_or_path}.json"
        names = sorted(file.stem for file in _SHIPPED.glob("*.json"))
        if str(name_or_path) not in names:
            raise PromptError(
                f"no prompt set is called {str(name_or_path)!r}: use one of {', '.join(names)}, or "
                "the path of a .json file"
            )
    try:
        return parse_prompt_set(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise PromptError(f"prompt set {path}: {error.strerror}") from error
    except ValueError as error:
        raise PromptError(f"prompt set {path}: {error}") from error


def parse_prompt_set(data: object) -> PromptSet:
    """A prompt set from its JSON form; `dataclasses.asdict` is the way back.

    Raises:
        PromptError: when a key is missing, unknown or of the wrong type.
    """
    fields = _fields(data, "the prompt set", {"name": str, "text_range": int, "depth": dict})
    depth = _fields(fields["depth"], "depth", {"question": str, "answer": str, "decimals": int})
    return PromptSet(fields["name"], fields["text_range"], DepthPrompt(**depth))


def depth_question(prompts: PromptSet, coordinates: ArrayLike) -> str:
    """The question for the depth of one pixel.

    Args:
        prompts: of the checkpoint.
        coordinates: (x, y) as `vlm3_ros.geometry.camera.text_coordinates` gives them, shape (2,).

    Raises:
        PromptError: when they do not lie in [0, text_range).
    """
    x, y = (int(value) for value in np.asarray(coordinates))
    if not (0 <= x < prompts.text_range and 0 <= y < prompts.text_range):
        raise PromptError(f"({x}, {y}) is outside of the text range [0, {prompts.text_range})")
    return prompts.depth.question.replace("{x}", str(x)).replace("{y}", str(y))


def depth_answer(prompts: PromptSet, metres: float) -> str:
    """The answer that a model learns to give for a depth in metres.

    Raises:
        PromptError: when the depth is not finite, or not positive at the answer's decimals.
    """
    value = f"{metres:.{prompts.depth.decimals}f}"
    if not math.isfinite(metres) or float(value) <= 0:
        raise PromptError(f"a depth of {metres} m cannot be worded as {value!r}")
    return prompts.depth.answer.replace("{value}", value)


def _fields(data: object, where: str, types: Mapping[str, type]) -> dict[str, Any]:
    if not isinstance(data, Mapping):
        raise PromptError(f"{where} must be an object with {', '.join(types)}")
    if set(data) != set(types):
        raise PromptError(f"{where} must hold {', '.join(types)}, not {', '.join(map(str, data))}")
    for key, expected in types.items():
        if not isinstance(data[key], expected) or isinstance(data[key], bool):
            raise PromptError(f"{key} of {where} must be of type {expected.__name__}")
    return dict(data)
