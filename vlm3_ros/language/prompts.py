# SPDX-License-Identifier: Apache-2.0
"""Prompt sets: the wording that a checkpoint was trained with. They are data, not code."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from vlm3_ros.errors import Vlm3Error

_SHIPPED = Path(__file__).parent / "prompt_sets"

POINT = ("{x}", "{y}")
DIRECTION = ("{x}", "{y}", "{z}")
ROTATION = ("{yaw}", "{pitch}", "{roll}")
"""Placeholders of answers with several numbers, in the order in which answers hold them."""

BOX = ("{xmin}", "{ymin}", "{xmax}", "{ymax}")
"""Placeholders of an object's box."""

RELATIONS = (
    *("below", "above", "left", "right", "big", "small"),
    *("tall", "short", "wide", "thin", "behind", "front"),
)
DISTANCES = ("direct_distance", "horizontal_distance", "vertical_distance")
SIZES = ("width", "height")
QUANTITIES = (*DISTANCES, *SIZES)
"""What is asked about objects, as SpatialRGPT-Bench names it (paper, table 1)."""

COARSE_SHARE = math.sin(math.radians(22.5))
"""Components of a unit vector above this are named: the eight directions of a compass."""

COARSE_WORDS = (("left", "right"), ("up", "down"), ("backward", "forward"))


class PromptError(Vlm3Error, ValueError):
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
        _check_once("the depth question", self.question, ("{x}", "{y}"))
        _check_answer("the depth answer", self.answer, ("{value}",))
        _check_decimals(self.decimals)


@dataclass(frozen=True)
class PosePrompt:
    """Wording of one of the three questions about a motion; the question is asked as it is.

    Attributes:
        question: text without placeholders.
        answer: text with the placeholders of its numbers, see `PosePrompts`.
        decimals: how many each number of the answer has.

    Raises:
        PromptError: when there are less than 0 decimals.
    """

    question: str
    answer: str
    decimals: int

    def __post_init__(self) -> None:
        _check_decimals(self.decimals)


@dataclass(frozen=True)
class PosePrompts:
    """Wording of relative pose (paper 3.2): one question for each part of T_cam1_cam2.

    Attributes:
        distance: answered in metres, {value}.
        direction: answered by a unit vector in the first camera's axes, {x}, {y} and {z}, and
            where the wording has {coarse} by its direction in words before.
        rotation: answered in degrees, {yaw}, {pitch} and {roll}.

    Raises:
        PromptError: when a placeholder is missing, repeated, out of order, or not enclosed in
            text.
    """

    distance: PosePrompt
    direction: PosePrompt
    rotation: PosePrompt

    def __post_init__(self) -> None:
        _check_answer("the distance answer", self.distance.answer, ("{value}",))
        coarse = ("{coarse}",) if "{coarse}" in self.direction.answer else ()
        _check_answer("the direction answer", self.direction.answer, (*coarse, *DIRECTION))
        _check_answer("the rotation answer", self.rotation.answer, ROTATION)


@dataclass(frozen=True)
class CorrespondencePrompt:
    """Wording of pixel correspondence (paper 3.2), in text coordinates.

    Attributes:
        question: text with {x} and {y}, of the pixel in the first image.
        answer: text with {x} and {y}, of the pixel in the second image.

    Raises:
        PromptError: when a placeholder is missing, repeated, or one of the answer is out of order
            or not enclosed in text.
    """

    question: str
    answer: str

    def __post_init__(self) -> None:
        _check_once("the correspondence question", self.question, POINT)
        _check_answer("the correspondence answer", self.answer, POINT)


@dataclass(frozen=True)
class ObjectPrompts:
    """Wording of questions about objects (paper 3.2), of the kinds of SpatialRGPT-Bench.

    Attributes:
        region: text with {xmin}, {ymin}, {xmax} and {ymax}, text coordinates of an object's box;
            it stands for {a} and {b} in questions.
        relations: question by relation, all of `RELATIONS`, with {a} and {b}.
        yes: answer where the relation holds of a to b.
        no: answer where it does not.
        quantities: question by quantity, all of `QUANTITIES`, with {a}, and {b} for those of
            `DISTANCES`.
        metres: answer to them with {value}.
        decimals: how many {value} has.
        direction: question with {a} and {b}: where is b, seen from a?
        hour: answer with {value}, a whole number from 1 to 12: 12 o'clock is away from the camera,
            3 o'clock to its right.

    Raises:
        PromptError: when a relation or a quantity or a placeholder is missing, or one too many.
    """

    region: str
    relations: Mapping[str, str]
    yes: str
    no: str
    quantities: Mapping[str, str]
    metres: str
    decimals: int
    direction: str
    hour: str

    def __post_init__(self) -> None:
        _check_once("the region of objects", self.region, BOX)
        _check_decimals(self.decimals)
        for what, texts, names in (
            ("relations", self.relations, RELATIONS),
            ("quantities", self.quantities, QUANTITIES),
        ):
            if sorted(texts) != sorted(names):
                raise PromptError(f"{what} of objects must be {', '.join(names)}")
        for name, text in {
            **self.relations,
            **self.quantities,
            "direction": self.direction,
        }.items():
            _check_once(
                f"the question {name!r}", text, ("{a}",) if name in SIZES else ("{a}", "{b}")
            )
        _check_answer("the answer in metres", self.metres, ("{value}",))
        _check_answer("the answer with the hour", self.hour, ("{value}",))
        if not self.yes.strip() or self.yes == self.no:
            raise PromptError("yes and no must be two different texts")


@dataclass(frozen=True)
class PromptSet:
    """All questions of a checkpoint, and the range of its text coordinates (paper 3.1).

    Attributes:
        name: how the set is called in settings and messages.
        text_range: coordinates in questions and answers lie in [0, text_range).
        depth: wording of metric depth.
        pose: wording of relative pose; None where the checkpoint did not learn it.
        correspondence: wording of correspondence; None where the checkpoint did not learn it.
        objects: wording of questions about objects; None where the checkpoint did not learn them.

    Raises:
        PromptError: when the range is not positive.
    """

    name: str
    text_range: int
    depth: DepthPrompt
    pose: PosePrompts | None = None
    correspondence: CorrespondencePrompt | None = None
    objects: ObjectPrompts | None = None

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
    fields = _fields(
        data,
        "the prompt set",
        {"name": str, "text_range": int, "depth": dict},
        {"pose": dict, "correspondence": dict, "objects": dict},
    )
    wording = {"question": str, "answer": str}
    counted = {**wording, "decimals": int}
    depth = DepthPrompt(**_fields(fields["depth"], "depth", counted))
    pose, correspondence, objects = None, None, None
    if fields["pose"] is not None:
        parts = _fields(
            fields["pose"], "pose", {"distance": dict, "direction": dict, "rotation": dict}
        )
        pose = PosePrompts(
            **{name: PosePrompt(**_fields(part, name, counted)) for name, part in parts.items()}
        )
    if fields["correspondence"] is not None:
        correspondence = CorrespondencePrompt(
            **_fields(fields["correspondence"], "correspondence", wording)
        )
    if fields["objects"] is not None:
        wording = dict.fromkeys(("region", "yes", "no", "metres", "direction", "hour"), str)
        questions = {"relations": dict, "quantities": dict}
        objects = ObjectPrompts(
            **_fields(fields["objects"], "objects", {**wording, **questions, "decimals": int})
        )
    return PromptSet(fields["name"], fields["text_range"], depth, pose, correspondence, objects)


def depth_question(prompts: PromptSet, coordinates: ArrayLike) -> str:
    """The question for the depth of one pixel.

    Args:
        prompts: of the checkpoint.
        coordinates: (x, y) as `vlm3_ros.geometry.camera.text_coordinates` gives them, shape (2,).

    Raises:
        PromptError: when they do not lie in [0, text_range).
    """
    return _worded_point(prompts.depth.question, coordinates, prompts.text_range)


def depth_answer(prompts: PromptSet, metres: float) -> str:
    """The answer that a model learns to give for a depth in metres.

    Raises:
        PromptError: when the depth is not finite, or not positive at the answer's decimals.
    """
    value = f"{metres:.{prompts.depth.decimals}f}"
    if not math.isfinite(metres) or float(value) <= 0:
        raise PromptError(f"a depth of {metres} m cannot be worded as {value!r}")
    return prompts.depth.answer.replace("{value}", value)


def pose_answers(
    pose: PosePrompts, distance: float, direction: ArrayLike, yaw_pitch_roll_deg: ArrayLike
) -> tuple[str, str, str]:
    """The answers to distance, direction and rotation that a model learns to give for a motion.

    Args:
        pose: wording.
        distance: metres, at least 0.
        direction: unit vector in the axes of the first camera, shape (3,).
        yaw_pitch_roll_deg: shape (3,).

    Raises:
        PromptError: when a value is not finite, the distance negative or the direction no unit
            vector.
    """
    direction, angles = np.asarray(direction, float), np.asarray(yaw_pitch_roll_deg, float)
    if not (math.isfinite(distance) and distance >= 0):
        raise PromptError(f"a distance of {distance} m cannot be worded")
    if not abs(np.linalg.norm(direction) - 1) < 1e-6:
        raise PromptError(f"a direction must be a unit vector, not {direction.tolist()}")
    if not np.isfinite(angles).all():
        raise PromptError(f"angles of {angles.tolist()} degrees cannot be worded")
    vector = pose.direction.answer.replace("{coarse}", coarse_direction(direction))
    return (
        _worded_numbers(pose.distance.answer, ("{value}",), [distance], pose.distance.decimals),
        _worded_numbers(vector, DIRECTION, direction, pose.direction.decimals),
        _worded_numbers(pose.rotation.answer, ROTATION, angles, pose.rotation.decimals),
    )


def coarse_direction(direction: ArrayLike) -> str:
    """A unit vector (X right, Y down, Z forward) in words, as "right, forward"."""
    components = zip(np.asarray(direction, dtype=float), COARSE_WORDS, strict=True)
    return ", ".join(words[int(c > 0)] for c, words in components if abs(c) > COARSE_SHARE)


def correspondence_question(
    correspondence: CorrespondencePrompt, coordinates: ArrayLike, text_range: int
) -> str:
    """The question where a pixel of the first image is in the second one.

    Args:
        correspondence: wording.
        coordinates: text coordinates (x, y) in the first image, shape (2,).
        text_range: of the prompt set.

    Raises:
        PromptError: when they do not lie in [0, text_range).
    """
    return _worded_point(correspondence.question, coordinates, text_range)


def correspondence_answer(
    correspondence: CorrespondencePrompt, coordinates: ArrayLike, text_range: int
) -> str:
    """The answer that a model learns to give, for text coordinates (x, y) in the second image.

    Raises:
        PromptError: when they do not lie in [0, text_range).
    """
    return _worded_point(correspondence.answer, coordinates, text_range)


def object_question(
    objects: ObjectPrompts, template: str, boxes: Iterable[ArrayLike], text_range: int
) -> str:
    """A question about one object or two.

    Args:
        objects: wording.
        template: one of its questions.
        boxes: (xmin, ymin, xmax, ymax) in text coordinates, for {a} and, where it asks for two
            objects, {b}.
        text_range: of the prompt set.

    Raises:
        PromptError: when a coordinate does not lie in [0, text_range).
    """
    for name, box in zip(("{a}", "{b}"), boxes, strict=False):
        region = objects.region
        for placeholder, value in zip(BOX, (int(some) for some in np.asarray(box)), strict=True):
            if not 0 <= value < text_range:
                raise PromptError(f"{value} is outside of the text range [0, {text_range})")
            region = region.replace(placeholder, str(value))
        template = template.replace(name, region)
    return template


def metres_answer(objects: ObjectPrompts, metres: float) -> str:
    """The answer that a model learns to give for a length in metres.

    Raises:
        PromptError: when it is not finite, or not positive at the answer's decimals.
    """
    value = f"{metres:.{objects.decimals}f}"
    if not math.isfinite(metres) or float(value) <= 0:
        raise PromptError(f"a length of {metres} m cannot be worded as {value!r}")
    return objects.metres.replace("{value}", value)


def hour_answer(objects: ObjectPrompts, hour: int) -> str:
    """The answer that a model learns to give for a direction on the face of a clock.

    Raises:
        PromptError: when the hour is not from 1 to 12.
    """
    if not 1 <= hour <= 12:
        raise PromptError(f"an hour of {hour} is not on a clock")
    return objects.hour.replace("{value}", str(hour))


def _worded_point(template: str, coordinates: ArrayLike, text_range: int) -> str:
    x, y = (int(value) for value in np.asarray(coordinates))
    if not (0 <= x < text_range and 0 <= y < text_range):
        raise PromptError(f"({x}, {y}) is outside of the text range [0, {text_range})")
    return template.replace("{x}", str(x)).replace("{y}", str(y))


def _worded_numbers(
    template: str, placeholders: Sequence[str], values: Iterable[float], decimals: int
) -> str:
    for placeholder, value in zip(placeholders, values, strict=True):
        # Adding 0 takes the sign from a negative zero.
        number = f"{round(float(value), decimals) + 0.0:.{decimals}f}"
        template = template.replace(placeholder, number)
    return template


def _check_once(where: str, text: str, placeholders: Sequence[str]) -> None:
    for placeholder in placeholders:
        if text.count(placeholder) != 1:
            raise PromptError(f"{where} must hold {placeholder} once: {text!r}")


def _check_answer(where: str, text: str, placeholders: Sequence[str]) -> None:
    """Placeholders are there, in order, and text stands around each."""
    _check_once(where, text, placeholders)
    if sorted(placeholders, key=text.index) != list(placeholders):
        raise PromptError(f"{where} must hold {', '.join(placeholders)} in this order: {text!r}")
    # Without an end mark, a number that was cut off would pass for a whole one.
    if not all(part.strip() for part in re.split("|".join(map(re.escape, placeholders)), text)):
        raise PromptError(f"{where} must enclose {' and '.join(placeholders)} in text: {text!r}")


def _check_decimals(decimals: int) -> None:
    if decimals < 0:
        raise PromptError(f"decimals is {decimals}, it must be 0 or more")


def _fields(
    data: object, where: str, types: Mapping[str, type], optional: Mapping[str, type] | None = None
) -> dict[str, Any]:
    """The checked content of an object; None for what is optional and missing."""
    optional = optional or {}
    if not isinstance(data, Mapping):
        raise PromptError(f"{where} must be an object with {', '.join(types)}")
    if not set(types) <= set(data) <= {*types, *optional}:
        may = f" (and may hold {', '.join(optional)})" if optional else ""
        raise PromptError(
            f"{where} must hold {', '.join(types)}{may}, not {', '.join(map(str, data))}"
        )
    for key, expected in {**types, **optional}.items():
        if key in optional and data.get(key) is None:
            continue
        if not isinstance(data[key], expected) or isinstance(data[key], bool):
            raise PromptError(f"{key} of {where} must be of type {expected.__name__}")
    return {key: data.get(key) for key in (*types, *optional)}
