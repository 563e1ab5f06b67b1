# SPDX-License-Identifier: Apache-2.0
"""Evaluation of what the nodes publish about a bag, for `vlm3 demo` and `evaluate --online`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vlm3_ros.cli.evaluate_bag import TASKS
from vlm3_ros.cli.model_options import model_label
from vlm3_ros.engines.settings import given_settings
from vlm3_ros.errors import CommandError, NoAnswersError

if TYPE_CHECKING:
    from vlm3_ros.evaluation.bag.evaluate import BagEvaluation, BagSource


_WITH_MOTION = ("accepted", "fused", "standstill")

_CLICKED = ((0.2, 0.55), (0.5, 0.8), (0.8, 0.55))
"""(x, y) as shares of the image's width and height."""


def evaluate_replay(
    source: BagSource,
    options: argparse.Namespace,
    out: Path,
    speed: float = 1.0,
    unified_focal: float = 0.0,
) -> BagEvaluation:
    """Play a bag into the nodes and score what they publish; progress bars show the images.

    Args:
        source: the bag.
        options: of the models that the nodes load, see `add_model_options`.
        out: folder for their logs.
        speed: of playing; 1 is real time.
        unified_focal: parameter of depth_node.

    Raises:
        CommandError: if ROS is missing.
        NoAnswersError: if the nodes answered nothing.
        ReplayError: if a node failed.
    """
    from vlm3_ros.cli.progress import progress_bar
    from vlm3_ros.evaluation.bag.answers import GRID
    from vlm3_ros.evaluation.bag.evaluate import evaluate_answers

    try:
        from vlm3_ros.nodes.replay import (
            ReplaySettings,
            recorded_answers,
            run_replay,
        )
    except ModuleNotFoundError as error:
        raise CommandError(f"this needs ROS 2 ({error}): source its setup file") from error
    frames = source.frames
    settings = ReplaySettings(
        bag=frames.path,
        image=frames.topics.image,
        camera_info=frames.topics.camera_info,
        models=given_settings(vars(options)),
        T_base_camera=source.T_base_camera,
        columns=GRID[0],
        rows=GRID[1],
        speed=speed,
        logs=out,
        unified_focal=unified_focal,
        is_rectified=frames.is_rectified,
        camera=frames.camera,
        clicks=_clicked_pixels(source),
    )
    with progress_bar("images played") as progress:
        recording = run_replay(settings, lambda played: progress(played, source.images))
        progress(source.images, source.images)
    answers = recorded_answers(recording, source.images)
    has_depth = any(np.isfinite(depth).any() for depth in answers.depths.values())
    # The first image has a pose without any answer.
    if not has_depth and not any(answers.steps[status] for status in _WITH_MOTION):
        reasons = "; ".join(answers.failed) or "no answer could be read"
        raise NoAnswersError(
            f"none of {source.images} images got a depth or a motion: {reasons} (logs in {out})"
        )
    with progress_bar("images compared") as progress:
        return evaluate_answers(source, model_label(options, *TASKS), "online", answers, progress)


def _clicked_pixels(source: BagSource) -> tuple[tuple[float, float], ...]:
    """Pixels in the lower part of the image, where a robot drives."""
    frame = next(iter(source.frames), None)
    if frame is None:
        return ()
    width, height = frame.camera.width, frame.camera.height
    return tuple((width * x, height * y) for x, y in _CLICKED)
