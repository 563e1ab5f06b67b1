# SPDX-License-Identifier: Apache-2.0
"""Relative pose of two images: a few questions about one pair (paper section 3.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from vlm3_ros.engines.base import Answer, Engine
from vlm3_ros.geometry.motion import (
    FORWARD,
    Transform,
    metric_motion,
    motion_from_parts,
    motion_parts,
    rotation_angle,
    seen_motion,
)
from vlm3_ros.language.wordings.pose import (
    POSE_PARTS,
    PoseWording,
    parse_angle,
    parse_direction,
    parse_distance,
    parse_rotation,
    pose_answers,
    pose_questions,
)
from vlm3_ros.tasks.reading import Missing, answer_text, read_answer
from vlm3_ros.tasks.task import CameraPair, ImagePair, ModelViews, Prompt, Task, ask


@dataclass(frozen=True)
class RelativePose:
    """A model's answers about the motion from the first to the second camera.

    `T_cam1_cam2`: shape (4, 4), metres, takes points of the second optical frame to the first;
    NaN unless distance, direction and rotation could be read. `distance_std`: standard deviation
    of the distance in metres, NaN if the engine does not know it. `texts`: the raw answers, in the
    order of `POSE_PARTS`; the reason in brackets if the model gave no answer. `failures`: why parts
    have no value.

    `angle_deg`: the answered angle of the rotation; NaN if it was not asked or could not be read,
    which leaves the motion unchecked but usable. `rotation_deg`: the angle of the answered yaw,
    pitch and roll, with which it must agree; NaN if they could not be read. Both are as the model
    sees the rotation, at the focal length that it learned.
    """

    T_cam1_cam2: Transform
    distance_std: float
    texts: tuple[str, ...]
    failures: tuple[Missing, ...]
    angle_deg: float = math.nan
    rotation_deg: float = math.nan

    @property
    def has_motion(self) -> bool:
        """Whether all parts of the motion could be read."""
        return bool(np.isfinite(self.T_cam1_cam2).all())

    @property
    def is_incomplete(self) -> bool:
        """Whether the engine had no answer to some of the questions."""
        return any(failure.is_fault for failure in self.failures)

    @property
    def texts_by_part(self) -> dict[str, str]:
        """The raw answers by the names of the questions, those of `POSE_PARTS` that were asked."""
        return dict(zip(POSE_PARTS, self.texts, strict=False))


class PoseTask(Task[PoseWording, None, Transform, RelativePose]):
    """The motion between two images. Its truth is T_cam1_cam2, shape (4, 4), metres."""

    wording = PoseWording
    title = "relative pose"

    @override
    def prompts(self, wording: PoseWording, views: ModelViews, asked: None) -> list[Prompt]:
        return [Prompt(text) for text in pose_questions(wording)]

    @override
    def read(
        self, wording: PoseWording, views: ModelViews, asked: None, answers: Sequence[Answer]
    ) -> RelativePose:
        distance_answer = answers[0]
        distance_std = np.nan if distance_answer.std is None else distance_answer.std
        values: dict[str, NDArray[np.float64]] = {}
        failures = []
        for part, answer in zip(wording.parts, answers, strict=True):
            value = read_answer(answer, partial(_parse, part, wording))
            if isinstance(value, Missing):
                failures.append(value)
            else:
                values[part] = np.asarray(value)
        pose = RelativePose(
            np.full((4, 4), np.nan),
            distance_std,
            tuple(map(answer_text, answers)),
            tuple(failures),
            float(values.get("angle", np.nan)),
            _rotation_angle_deg(values["rotation"]) if "rotation" in values else np.nan,
        )
        if not {"distance", "direction", "rotation"} <= values.keys():
            return pose
        distance = values["distance"]
        # The engine's estimate errs less than the greedy text, see `Answer.value`.
        if distance_answer.value is not None:
            distance = np.asarray(distance_answer.value)
        # How many metres one metre is in this direction, as the model sees it.
        seen = motion_from_parts(1.0, values["direction"], values["rotation"])
        motion = metric_motion(seen, views.cameras[0])
        scale = float(np.linalg.norm(motion[:3, 3]))
        motion[:3, 3] *= distance
        return replace(pose, T_cam1_cam2=motion, distance_std=distance_std * scale)

    @override
    def true_answers(
        self, wording: PoseWording, views: ModelViews, asked: None, truth: Transform
    ) -> Sequence[str]:
        seen = motion_parts(seen_motion(truth, views.cameras[0]))
        return pose_answers(wording, seen.distance, seen.direction, seen.yaw_pitch_roll_deg)


POSE = PoseTask()


def _parse(part: str, wording: PoseWording, answer: Answer) -> float | NDArray[np.float64]:
    """Read the answer to one of `POSE_PARTS`."""
    if part == "distance":
        return parse_distance(answer.text, wording)
    if part == "direction":
        return parse_direction(answer.text, wording, answer.is_cut)
    if part == "rotation":
        return parse_rotation(answer.text, wording, answer.is_cut)
    return parse_angle(answer.text, wording)


def _rotation_angle_deg(yaw_pitch_roll_deg: NDArray[np.float64]) -> float:
    turn = motion_from_parts(0.0, FORWARD, yaw_pitch_roll_deg)
    return math.degrees(rotation_angle(turn))


def ask_pose(engine: Engine, images: ImagePair, cameras: CameraPair) -> RelativePose:
    """Ask for the motion between two images, all parts in one pass.

    Args:
        images: rectified RGB, shape (camera.height, camera.width, 3) each, uint8.
        cameras: their intrinsics.

    Raises:
        GeometryError: if an image does not fit its camera or the engine's limits.
        EngineError: if the model did not learn relative pose, or cannot answer.
    """
    return ask(engine, images, cameras, POSE, None)
