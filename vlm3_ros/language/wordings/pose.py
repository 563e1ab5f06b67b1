# SPDX-License-Identifier: Apache-2.0
"""Relative pose in words (paper section 3.2): questions about a motion, and their answers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from vlm3_ros.language.answers import (
    BARE_NUMBER,
    METRES,
    METRES_UNIT,
    AnswerError,
    check_length,
    parse_number,
    read_numbers,
    read_value,
    value_pattern,
)
from vlm3_ros.language.free_text import (
    DEGREES,
    read_named,
    read_tuple,
    read_with_unit,
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

POSE_PARTS = ("distance", "direction", "rotation", "angle")
"""Names of the questions about a motion, in the order in which they are asked."""


@dataclass(frozen=True)
class PoseQuestion:
    """Wording of one question about a motion.

    Attributes:
        question: text without placeholders.
        answer: text with the placeholders of its numbers, see `PoseWording`.
        decimals: of each number of the answer.
        signed: whether the model learned to write a plus sign: "+0.72".

    Raises:
        PromptError: if `decimals` is negative.
    """

    question: str
    answer: str
    decimals: int
    signed: bool = False

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
        angle: answered in degrees, {value}: the angle of the whole rotation, to check `rotation`.
            None if the checkpoint did not learn it.
        any_form: whether answers may have any form that the authors' parsers read: a number of
            metres or degrees; "yaw 1.5, pitch 0, roll 2"; three numbers with commas.

    Raises:
        PromptError: if a placeholder is missing, repeated, out of order, or not enclosed in text.
    """

    task: ClassVar[str] = "pose"

    distance: PoseQuestion
    direction: PoseQuestion
    rotation: PoseQuestion
    angle: PoseQuestion | None = None
    any_form: bool = False

    def __post_init__(self) -> None:
        check_answer("the distance answer", self.distance.answer, ("{value}",))
        coarse = ("{coarse}",) if "{coarse}" in self.direction.answer else ()
        check_answer("the direction answer", self.direction.answer, (*coarse, *DIRECTION))
        check_answer("the rotation answer", self.rotation.answer, ROTATION)
        if self.angle is not None:
            check_answer("the angle answer", self.angle.answer, ("{value}",))

    @property
    def parts(self) -> dict[str, PoseQuestion]:
        """The questions by their names, those of `POSE_PARTS` that the checkpoint learned."""
        parts = {name: getattr(self, name) for name in POSE_PARTS}
        return {name: part for name, part in parts.items() if part is not None}

    def templates(self) -> list[str]:
        """Return all templates of questions and answers."""
        return [text for part in self.parts.values() for text in (part.question, part.answer)]


def pose_questions(wording: PoseWording) -> list[str]:
    """Return the questions for distance, direction, rotation and, if learned, rotation angle."""
    return [part.question for part in wording.parts.values()]


def pose_answers(
    wording: PoseWording, distance: float, direction: ArrayLike, yaw_pitch_roll_deg: ArrayLike
) -> tuple[str, ...]:
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
    angle_deg = math.degrees(Rotation.from_euler("YXZ", angles, degrees=True).magnitude())
    worded = {
        "distance": (("{value}",), np.array([distance])),
        "direction": (DIRECTION, direction),
        "rotation": (ROTATION, angles),
        "angle": (("{value}",), np.array([angle_deg])),
    }
    coarse = coarse_direction(direction)
    return tuple(
        fill_numbers(
            part.answer.replace("{coarse}", coarse), *worded[name], part.decimals, part.signed
        )
        for name, part in wording.parts.items()
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
    if wording.any_form:
        return check_length(read_with_unit(text, METRES_UNIT), text)

    def distance(part: str) -> float:
        return check_length(parse_number(part, METRES, text), text)

    return read_value(text, value_pattern(wording.distance.answer), distance)


def parse_direction(
    text: str, wording: PoseWording, may_be_cut: bool = True
) -> NDArray[np.float64]:
    """Read a unit vector in the axes of the first camera, shape (3,).

    Its length may differ from 1 by `UNIT_TOLERANCE` and is then made 1. The direction in words is
    ignored.

    Args:
        text: the model's whole text.
        wording: of the checkpoint.
        may_be_cut: whether the model may have been stopped in the middle of its answer.

    Raises:
        AnswerError: if the text does not follow the wording, if several vectors do and differ, if
            the numbers are not finite or no unit vector, if the last one may go on, or if the text
            is too long.
    """
    part = wording.direction
    if wording.any_form:
        vector = np.array(read_tuple(text, len(DIRECTION), part.decimals, may_be_cut))
    else:
        vector = np.array(read_numbers(text, part.answer, DIRECTION, part.decimals))
    length = math.hypot(*vector)
    if not abs(length - 1) <= UNIT_TOLERANCE:
        raise AnswerError(text, "not a unit vector")
    return vector / length


def parse_rotation(text: str, wording: PoseWording, may_be_cut: bool = True) -> NDArray[np.float64]:
    """Read yaw, pitch and roll in degrees, shape (3,), within `ANGLE_LIMITS_DEG`.

    Args:
        text: the model's whole text.
        wording: of the checkpoint.
        may_be_cut: whether the model may have been stopped in the middle of its answer.

    Raises:
        AnswerError: if the text does not follow the wording, if several rotations do and differ,
            if an angle is not finite, may go on or is beyond its limit, or if the text is too long.
    """
    part = wording.rotation
    if wording.any_form:
        names = [placeholder.strip("{}") for placeholder in ROTATION]
        angles = np.array(read_named(text, names, part.decimals, may_be_cut))
    else:
        angles = np.array(read_numbers(text, part.answer, ROTATION, part.decimals))
    if (np.abs(angles) > ANGLE_LIMITS_DEG).any():
        raise AnswerError(text, "out of range")
    return angles


def parse_angle(text: str, wording: PoseWording) -> float:
    """Read the angle of a rotation in degrees, in [0, 180].

    Raises:
        AnswerError: if the text does not follow the wording, if several angles do and differ, if
            it is not finite, negative or above 180 degrees, or if the text is too long.
        PromptError: if the wording does not ask for the angle.
    """
    if wording.angle is None:
        raise PromptError("the wording does not ask for the rotation angle")
    if wording.any_form:
        angle = read_with_unit(text, DEGREES)
    else:
        pattern = value_pattern(wording.angle.answer)
        angle = read_value(text, pattern, lambda part: parse_number(part, BARE_NUMBER, text))
    if angle < 0:
        raise AnswerError(text, "negative")
    if angle > 180:
        raise AnswerError(text, "out of range")
    return angle
