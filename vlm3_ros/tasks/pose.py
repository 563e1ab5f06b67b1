# SPDX-License-Identifier: Apache-2.0
"""Relative pose of two images: three questions about one pair (paper section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vlm3_ros.engines.base import Answer, Engine, EngineError
from vlm3_ros.geometry.camera import UnifiedCamera
from vlm3_ros.geometry.motion import Transform, metric_motion, motion_from_parts
from vlm3_ros.language.answers import AnswerError, parse_direction, parse_distance, parse_rotation
from vlm3_ros.language.prompts import PosePrompts
from vlm3_ros.tasks.views import CameraPair, ImagePair, view_pair


@dataclass(frozen=True)
class RelativePose:
    """What a model says about the motion from the first to the second camera.

    `T_cam1_cam2`: shape (4, 4), metres, takes points of the second optical frame to the first;
    NaN unless all three answers could be read. `distance_std`: standard deviation of the distance
    in metres, NaN where the engine does not know it. `texts`: the raw answers to distance,
    direction and rotation. `failures`: why those that could not be read were not.
    """

    T_cam1_cam2: Transform
    distance_std: float
    texts: tuple[str, ...]
    failures: tuple[AnswerError, ...]


def ask_pose(engine: Engine, images: ImagePair, cameras: CameraPair) -> RelativePose:
    """Ask for the motion between two images, all three parts in one pass.

    Args:
        images: rectified RGB, shape (camera.height, camera.width, 3) each, uint8.
        cameras: their intrinsics.

    Raises:
        GeometryError: when an image does not fit its camera or the engine's limits.
        EngineError: when the model did not learn relative pose, or cannot answer at all.
    """
    prompts = pose_prompts(engine)
    views = view_pair(engine, images, cameras)
    return read_pose(engine.ask(views.images, pose_questions(prompts)), prompts, views.first)


def pose_prompts(engine: Engine) -> PosePrompts:
    """The engine's wording of relative pose.

    Raises:
        EngineError: when it has none.
    """
    prompts = engine.profile.prompts
    if prompts.pose is None:
        raise EngineError(
            f"{engine.name} did not learn relative pose: its prompt set '{prompts.name}' has no "
            "pose questions; choose a checkpoint that did"
        )
    return prompts.pose


def pose_questions(prompts: PosePrompts) -> list[str]:
    """The questions for distance, direction and rotation."""
    return [prompts.distance.question, prompts.direction.question, prompts.rotation.question]


def read_pose(
    answers: Sequence[Answer], prompts: PosePrompts, first: UnifiedCamera
) -> RelativePose:
    """The metric motion of the answers to `pose_questions`.

    Where the engine knows the distribution of the distance, its estimate comes before the greedy
    text, as in `ask_depth`.

    Args:
        first: how the first image entered the model.
    """
    said = answers[0]
    distance_std = np.nan if said.std is None else said.std
    parts, failures = [], []
    for answer, parse in zip(
        answers, (parse_distance, parse_direction, parse_rotation), strict=True
    ):
        try:
            parts.append(np.asarray(parse(answer.text, prompts)))
        except AnswerError as error:
            failures.append(error)
    texts = tuple(answer.text for answer in answers)
    if failures:
        return RelativePose(np.full((4, 4), np.nan), distance_std, texts, tuple(failures))
    distance, direction, angles = parts
    if said.value is not None:
        distance = np.asarray(said.value)
    # How many metres one metre in this direction is, that the model sees.
    unit = metric_motion(motion_from_parts(1.0, direction, angles), first)
    scale = float(np.linalg.norm(unit[:3, 3]))
    unit[:3, 3] *= distance
    return RelativePose(unit, distance_std * scale, texts, ())
