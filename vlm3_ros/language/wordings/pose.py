# SPDX-License-Identifier: Apache-2.0
"""Relative pose in words (paper section 3.2): three questions about a motion, and their answers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlm3_ros.language.answers import (
    METRES,
    AnswerError,
    check_length,
    parse_number,
    read_numbers,
    read_value,
    value_pattern,
)
from vlm3_ros.language.templates import PromptError, check_answer, check_decimals, fill_numbers

DIRECTION = ("{x}", "{y}", "{z}")
ROTATION = ("{yaw}", "{pitch}", "{roll}")
"""Placeholders of answers with several numbers, in the order in which answers hold them."""

COARSE_SHARE = math.sin(math.radians(22.5))
"""Components of a unit vector above this are named: the eight directions of a compass."""

COARSE_WORDS = (("left", "right"), ("up", "down"), ("backward", "forward"))

UNIT_TOLERANCE = 0.1
"""How far the length of a direction may be from 1.

Rounding to two decimals moves it by at most 0.009; three numbers that a model wrote one by one,
each off by 0.05, move it by 0.09. Beyond that they are not meant as a unit vector.
"""

ANGLE_LIMITS_DEG = (180.0, 90.0, 180.0)
"""Limits of yaw, pitch and roll in either direction, inclusive: any rotation has such angles."""


@dataclass(frozen=True)
class PoseQuestion:
    """Wording of one of the three questions about a motion.

    Attributes:
        question: text without placeholders.
        answer: text with the placeholders of its numbers, see `PoseWording`.
        decimals: of each number of the answer.

    Raises:
        PromptError: if `decimals` is negative.
    """

    question: str
    answer: str
    decimals: int

    def __post_init__(self) -> None:
        check_decimals(self.decimals)


@dataclass(frozen=True)
class PoseWording:
    """Wording of relative pose: one question for each part of T_cam1_cam2.

    Attributes:
        distance: answered in metres, {value}.
        direction: answered by a unit vector in the first camera's axes, {x}, {y} and {z}. If the
            wording has {coarse}, the direction in words comes first.
        rotation: answered in degrees, {yaw}, {pitch} and {roll}.

    Raises:
        PromptError: if a placeholder is missing, repeated, out of order, or not enclosed in text.
    """

    task: ClassVar[str] = "pose"

    distance: PoseQuestion
    direction: PoseQuestion
    rotation: PoseQuestion

    def __post_init__(self) -> None:
        check_answer("the distance answer", self.distance.answer, ("{value}",))
        coarse = ("{coarse}",) if "{coarse}" in self.direction.answer else ()
        check_answer("the direction answer", self.direction.answer, (*coarse, *DIRECTION))
        check_answer("the rotation answer", self.rotation.answer, ROTATION)

    def templates(self) -> list[str]:
        """Return all templates of questions and answers."""
        parts = (self.distance, self.direction, self.rotation)
        return [text for part in parts for text in (part.question, part.answer)]


def pose_questions(wording: PoseWording) -> list[str]:
    """Return the questions for distance, direction and rotation."""
    return [wording.distance.question, wording.direction.question, wording.rotation.question]


def pose_answers(
    wording: PoseWording, distance: float, direction: ArrayLike, yaw_pitch_roll_deg: ArrayLike
) -> tuple[str, str, str]:
    """Word the answers to `pose_questions` that a model learns to give for a motion.

    Args:
        wording: of the checkpoint.
        distance: metres, at least 0.
        direction: unit vector in the axes of the first camera, shape (3,).
        yaw_pitch_roll_deg: shape (3,).

    Raises:
        PromptError: if a value is not finite, the distance is negative or the direction is not a
            unit vector.
    """
    direction, angles = np.asarray(direction, float), np.asarray(yaw_pitch_roll_deg, float)
    if not (math.isfinite(distance) and distance >= 0):
        raise PromptError(f"a distance of {distance} m cannot be worded")
    if not abs(np.linalg.norm(direction) - 1) < 1e-6:
        raise PromptError(f"a direction must be a unit vector, not {direction.tolist()}")
    if not np.isfinite(angles).all():
        raise PromptError(f"angles of {angles.tolist()} degrees cannot be worded")
    vector = wording.direction.answer.replace("{coarse}", coarse_direction(direction))
    return (
        fill_numbers(wording.distance.answer, ("{value}",), [distance], wording.distance.decimals),
        fill_numbers(vector, DIRECTION, direction, wording.direction.decimals),
        fill_numbers(wording.rotation.answer, ROTATION, angles, wording.rotation.decimals),
    )


def coarse_direction(direction: ArrayLike) -> str:
    """Name the direction of a unit vector (X right, Y down, Z forward), as "right, forward"."""
    components = zip(np.asarray(direction, dtype=float), COARSE_WORDS, strict=True)
    return ", ".join(words[int(c > 0)] for c, words in components if abs(c) > COARSE_SHARE)


def parse_distance(text: str, wording: PoseWording) -> float:
    """Read a displacement in metres, finite and at least 0.

    Any text may surround the answer, and the number may carry the unit of metres.

    Raises:
        AnswerError: if the text does not follow the wording, if several numbers do and differ, if
            the number is no distance, or if the text is too long.
    """

    def distance(part: str) -> float:
        return check_length(parse_number(part, METRES, text), text)

    return read_value(text, value_pattern(wording.distance.answer), distance)


def parse_direction(text: str, wording: PoseWording) -> NDArray[np.float64]:
    """Read a unit vector in the axes of the first camera, shape (3,).

    Its length may differ from 1 by `UNIT_TOLERANCE` and is then made 1. The direction in words is
    ignored.

    Raises:
        AnswerError: if the text does not follow the wording, if several vectors do and differ, if
            the numbers are not finite or no unit vector, or if the text is too long.
    """
    part = wording.direction
    vector = np.array(read_numbers(text, part.answer, DIRECTION, part.decimals))
    length = math.hypot(*vector)
    if not abs(length - 1) <= UNIT_TOLERANCE:
        raise AnswerError(text, "not a unit vector")
    return vector / length


def parse_rotation(text: str, wording: PoseWording) -> NDArray[np.float64]:
    """Read yaw, pitch and roll in degrees, shape (3,), within `ANGLE_LIMITS_DEG`.

    Raises:
        AnswerError: if the text does not follow the wording, if several rotations do and differ,
            if an angle is not finite or beyond its limit, or if the text is too long.
    """
    part = wording.rotation
    angles = np.array(read_numbers(text, part.answer, ROTATION, part.decimals))
    if (np.abs(angles) > ANGLE_LIMITS_DEG).any():
        raise AnswerError(text, "out of range")
    return angles
