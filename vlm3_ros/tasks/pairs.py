# SPDX-License-Identifier: Apache-2.0
"""Motion and matches of two images in one pass, so that the one can be checked by the other."""

from __future__ import annotations

from numpy.typing import ArrayLike

from vlm3_ros.engines.base import Engine
from vlm3_ros.tasks.correspondence import (
    Matches,
    correspondence_prompts,
    match_questions,
    read_matches,
)
from vlm3_ros.tasks.pose import RelativePose, pose_prompts, pose_questions, read_pose
from vlm3_ros.tasks.views import CameraPair, ImagePair, view_pair


def ask_pair(
    engine: Engine, images: ImagePair, cameras: CameraPair, pixels: ArrayLike
) -> tuple[RelativePose, Matches]:
    """Ask for the motion between two images, and where pixels of the first are in the second.

    See `ask_pose` and `ask_matches`: the same questions, but the images are read once.

    Raises:
        GeometryError: when an image does not fit its camera or the engine's limits, or a pixel
            lies outside of the first image.
        EngineError: when the model did not learn one of the tasks, or cannot answer at all.
    """
    pose, correspondence = pose_prompts(engine), correspondence_prompts(engine)
    text_range = engine.profile.prompts.text_range
    views = view_pair(engine, images, cameras)
    about_pose = pose_questions(pose)
    about_pixels = match_questions(correspondence, text_range, views.first, pixels)
    answers = engine.ask(views.images, about_pose + about_pixels)
    return (
        read_pose(answers[: len(about_pose)], pose, views.first),
        read_matches(answers[len(about_pose) :], correspondence, text_range, views.second, pixels),
    )
