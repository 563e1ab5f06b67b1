# SPDX-License-Identifier: Apache-2.0
"""Motion and matches of two images, so that each can check the other."""

from __future__ import annotations

from dataclasses import replace

from numpy.typing import ArrayLike

from vlm3_ros.engines.base import AnswerUncertainty, Engine
from vlm3_ros.tasks.correspondence import CORRESPONDENCE, Matches, ask_matches
from vlm3_ros.tasks.pose import POSE, RelativePose, ask_pose
from vlm3_ros.tasks.task import CameraPair, ImagePair, ask_together, learned_wording


def ask_pair(
    engine: Engine,
    images: ImagePair,
    cameras: CameraPair,
    pixels: ArrayLike,
    match_engine: Engine | None = None,
) -> tuple[RelativePose, Matches]:
    """Ask for the motion between two images, and where pixels of the first are in the second.

    The questions are those of `ask_pose` and `ask_matches`; if one model answers both, it reads the
    images once.

    Args:
        engine: answers about the motion.
        images: rectified RGB, shape (camera.height, camera.width, 3) each, uint8.
        cameras: their intrinsics.
        pixels: (u, v) in the first image, shape (n, 2).
        match_engine: answers about the pixels; None for the same model.

    Raises:
        GeometryError: if an image does not fit its camera or an engine's limits, or a pixel lies
            outside of the first image.
        EngineError: if a model did not learn its task, or cannot answer.
    """
    if match_engine is None or match_engine is engine:
        pose, matches = ask_together(
            engine, images, cameras, [(POSE, None), (CORRESPONDENCE, pixels)]
        )
        return pose, matches
    learned_wording(match_engine, CORRESPONDENCE)  # before the motion is asked in vain
    return ask_pose(engine, images, cameras), ask_matches(match_engine, images, cameras, pixels)


def assumed_uncertainty(engine: Engine, match_engine: Engine) -> AnswerUncertainty:
    """Return the uncertainty of one engine's motions and of another one's matches."""
    of_matches = match_engine.profile.uncertainty.match_deg
    return replace(engine.profile.uncertainty, match_deg=of_matches)
