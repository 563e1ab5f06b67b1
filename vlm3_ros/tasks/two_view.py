# SPDX-License-Identifier: Apache-2.0
"""Motion and matches of two images in one pass, so that each can check the other."""

from __future__ import annotations

from numpy.typing import ArrayLike

from vlm3_ros.engines.base import Engine
from vlm3_ros.tasks.correspondence import CORRESPONDENCE, Matches
from vlm3_ros.tasks.pose import POSE, RelativePose
from vlm3_ros.tasks.task import CameraPair, ImagePair, ask_together


def ask_pair(
    engine: Engine, images: ImagePair, cameras: CameraPair, pixels: ArrayLike
) -> tuple[RelativePose, Matches]:
    """Ask for the motion between two images, and where pixels of the first are in the second.

    The questions are those of `ask_pose` and `ask_matches`, but the images are read once.

    Raises:
        GeometryError: if an image does not fit its camera or the engine's limits, or a pixel lies
            outside of the first image.
        EngineError: if the model did not learn one of the tasks, or cannot answer.
    """
    pose, matches = ask_together(engine, images, cameras, [(POSE, None), (CORRESPONDENCE, pixels)])
    return pose, matches
