# SPDX-License-Identifier: Apache-2.0
"""Metric depth of pixels: one question per pixel about one image (paper section 3.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlm3_ros.engines.base import Answer, Engine
from vlm3_ros.geometry.camera import (
    PinholeCamera,
    UnifiedCamera,
    text_coordinates,
    unify_focal,
)
from vlm3_ros.geometry.images import unify_image
from vlm3_ros.language.answers import AnswerError, parse_depth
from vlm3_ros.language.prompts import PromptSet, depth_question


@dataclass(frozen=True)
class DepthAnswers:
    """Depths of asked pixels.

    `pixels`: (u, v) of the source image, shape (n, 2). `depth`: metres along Z, shape (n,),
    float32, NaN where the answer could not be read. `std`: its standard deviation in metres,
    shape (n,), float32, NaN where the engine does not know it. `texts`: the raw answers; where
    there is none, the reason in brackets.
    """

    pixels: NDArray[np.float64]
    depth: NDArray[np.float32]
    std: NDArray[np.float32]
    texts: tuple[str, ...]

    @property
    def failures(self) -> int:
        """Number of answers that could not be read."""
        return int(np.isnan(self.depth).sum())


@dataclass(frozen=True)
class DepthLimits:
    """Which answers are good enough to be used.

    `min_depth` and `max_depth`: metres. `max_uncertainty`: the largest standard deviation, as a
    share of the depth; 0 for any.
    """

    min_depth: float = 0.0
    max_depth: float = math.inf
    max_uncertainty: float = 0.0

    def out_of_range(self, depth: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Which depths are too near or too far; false where there is none."""
        return (depth < self.min_depth) | (depth > self.max_depth)

    def too_uncertain(
        self, depth: NDArray[np.floating], std: NDArray[np.floating]
    ) -> NDArray[np.bool_]:
        """Which depths are too uncertain, of which one whose uncertainty is unknown is one."""
        if not self.max_uncertainty:
            return np.zeros(depth.shape, bool)
        return np.isfinite(depth) & ~(std <= self.max_uncertainty * depth)


def uniform_grid(camera: PinholeCamera, columns: int, rows: int) -> NDArray[np.float64]:
    """Middles of a grid of equal cells, row by row, shape (rows * columns, 2).

    They are the pixel centres of `camera.resized(columns, rows)`, so the grid of their depths is
    that camera's depth image.
    """
    cells = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), axis=-1).reshape(-1, 2)
    cell = np.array([camera.width / columns, camera.height / rows])
    return (cells + 0.5) * cell - 0.5


def ask_depth(
    engine: Engine,
    image: NDArray[np.uint8],
    camera: PinholeCamera,
    pixels: ArrayLike,
    view_focal: float | None = None,
) -> DepthAnswers:
    """Ask for the metric depth of pixels.

    Args:
        image: rectified RGB, shape (camera.height, camera.width, 3), uint8.
        camera: its intrinsics.
        pixels: (u, v), shape (n, 2).
        view_focal: unified focal length at which the image enters the model, px; None for the
            checkpoint's own. See `unify_focal`.

    Raises:
        GeometryError: when the image does not fit its camera or the engine's limits.
        EngineError: when the engine cannot answer at all.
    """
    pixels = np.asarray(pixels, dtype=float).reshape(-1, 2)
    profile = engine.profile
    unified = unify_focal(camera, profile.focal, engine.limits, profile.fit, view_focal)
    view = unified.view
    coordinates = text_coordinates(
        unified.to_view(pixels), view.width, view.height, profile.prompts.text_range
    )
    answers = engine.ask(
        [unify_image(image, unified)],
        [depth_question(profile.prompts, xy) for xy in coordinates],
        profile.prompts.depth.answer,
    )
    return read_answers(pixels, answers, unified, profile.prompts)


def read_answers(
    pixels: NDArray[np.float64],
    answers: Sequence[Answer],
    unified: UnifiedCamera,
    prompts: PromptSet,
) -> DepthAnswers:
    """Metric depth out of what a model said.

    Where the engine knows the distribution of an answer's number, the depth is its estimate from
    that distribution (`Answer.value`), which errs less than the greedily decoded text.

    Args:
        pixels: of the source image, shape (n, 2).
        answers: one per pixel.
        unified: how the image entered the model.
        prompts: of the checkpoint.
    """
    depth = np.full(len(pixels), np.nan)
    std = np.full(len(pixels), np.nan)
    for i, answer in enumerate(answers):
        if answer.value is not None and answer.value > 0:
            depth[i] = answer.value
        else:
            try:
                depth[i] = parse_depth(answer.text, prompts)
            except AnswerError:
                continue
        if answer.std is not None:
            std[i] = answer.std
    return DepthAnswers(
        pixels,
        unified.metric_depth(depth).astype(np.float32),
        unified.metric_depth(std).astype(np.float32),
        tuple(f"[{a.fault}]" if a.fault else a.text for a in answers),
    )
