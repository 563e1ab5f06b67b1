# SPDX-License-Identifier: Apache-2.0
"""Relative pose of two images: three questions about one pair (paper section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from typing_extensions import override

from vlm3_ros.engines.base import Answer, Engine
from vlm3_ros.geometry.motion import (
    Transform,
    metric_motion,
    motion_from_parts,
    motion_parts,
    seen_motion,
)
from vlm3_ros.language.answers import AnswerError
from vlm3_ros.language.wordings.pose import (
    PoseWording,
    parse_direction,
    parse_distance,
    parse_rotation,
    pose_answers,
    pose_questions,
)
from vlm3_ros.tasks.task import CameraPair, ImagePair, ModelViews, Prompt, Task, ask


@dataclass(frozen=True)
class RelativePose:
    """A model's answers about the motion from the first to the second camera.

    `T_cam1_cam2`: shape (4, 4), metres, takes points of the second optical frame to the first;
    NaN unless all three answers could be read. `distance_std`: standard deviation of the distance
    in metres, NaN if the engine does not know it. `texts`: the raw answers to distance, direction
    and rotation. `failures`: the errors of the answers that could not be read.
    """

    T_cam1_cam2: Transform
    distance_std: float
    texts: tuple[str, ...]
    failures: tuple[AnswerError, ...]


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
        parts, failures = [], []
        for answer, parse in zip(
            answers, (parse_distance, parse_direction, parse_rotation), strict=True
        ):
            try:
                parts.append(np.asarray(parse(answer.text, wording)))
            except AnswerError as error:
                failures.append(error)
        texts = tuple(answer.text for answer in answers)
        if failures:
            return RelativePose(np.full((4, 4), np.nan), distance_std, texts, tuple(failures))
        distance, direction, angles = parts
        # The engine's estimate errs less than the greedy text, see `Answer.value`.
        if distance_answer.value is not None:
            distance = np.asarray(distance_answer.value)
        # How many metres one metre is in this direction, as the model sees it.
        motion = metric_motion(motion_from_parts(1.0, direction, angles), views.cameras[0])
        scale = float(np.linalg.norm(motion[:3, 3]))
        motion[:3, 3] *= distance
        return RelativePose(motion, distance_std * scale, texts, ())

    @override
    def true_answers(
        self, wording: PoseWording, views: ModelViews, asked: None, truth: Transform
    ) -> Sequence[str]:
        seen = motion_parts(seen_motion(truth, views.cameras[0]))
        return pose_answers(wording, seen.distance, seen.direction, seen.yaw_pitch_roll_deg)


POSE = PoseTask()


def ask_pose(engine: Engine, images: ImagePair, cameras: CameraPair) -> RelativePose:
    """Ask for the motion between two images, all three parts in one pass.

    Args:
        images: rectified RGB, shape (camera.height, camera.width, 3) each, uint8.
        cameras: their intrinsics.

    Raises:
        GeometryError: if an image does not fit its camera or the engine's limits.
        EngineError: if the model did not learn relative pose, or cannot answer.
    """
    return ask(engine, images, cameras, POSE, None)
