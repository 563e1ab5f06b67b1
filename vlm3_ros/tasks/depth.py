# SPDX-License-Identifier: Apache-2.0
"""Metric depth of pixels: one question per pixel about one image (paper section 3.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray
from typing_extensions import override

from vlm3_ros.engines.base import Answer, Engine
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.language.wordings.depth import DepthWording, depth_answer, depth_question, parse_depth
from vlm3_ros.tasks.reading import Missing, answer_text, faulty, read_answer
from vlm3_ros.tasks.task import ModelViews, Prompt, Task, ask


@dataclass(frozen=True)
class DepthAnswers:
    """Depths of asked pixels.

    `pixels`: (u, v) of the source image, shape (n, 2). `depth`: metres along Z, shape (n,),
    float32, NaN if the answer could not be read. `std`: its standard deviation in metres,
    shape (n,), float32, NaN if the engine does not know it. `texts`: the raw answers; the reason
    in brackets if the model gave no answer. `missing`: why a pixel has no depth, one per pixel,
    None if it has one.
    """

    pixels: NDArray[np.float64]
    depth: NDArray[np.float32]
    std: NDArray[np.float32]
    texts: tuple[str, ...]
    missing: tuple[Missing | None, ...] = ()

    @property
    def failures(self) -> int:
        """Number of answers that could not be read."""
        return int(np.isnan(self.depth).sum())

    @property
    def faulty(self) -> NDArray[np.bool_]:
        """Mask of the pixels about which the engine had no answer, shape (n,)."""
        return faulty(self.missing)

    def scaled(self, factor: float) -> DepthAnswers:
        """Return the answers with depths and standard deviations times a factor."""
        metres = np.float32(factor)
        return replace(self, depth=self.depth * metres, std=self.std * metres)


@dataclass(frozen=True)
class DepthLimits:
    """Limits on depths and their uncertainty.

    `min_depth` and `max_depth`: metres. `max_uncertainty`: the largest standard deviation, as a
    share of the depth; 0 for no limit.
    """

    min_depth: float = 0.0
    max_depth: float = math.inf
    max_uncertainty: float = 0.0

    def out_of_range(self, depth: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Mask of depths that are too near or too far; false where the depth is NaN."""
        return (depth < self.min_depth) | (depth > self.max_depth)

    def too_uncertain(
        self, depth: NDArray[np.floating], std: NDArray[np.floating]
    ) -> NDArray[np.bool_]:
        """Mask of depths whose std exceeds the limit or is unknown."""
        if not self.max_uncertainty:
            return np.zeros(depth.shape, bool)
        return np.isfinite(depth) & ~(std <= self.max_uncertainty * depth)


def uniform_grid(camera: PinholeCamera, columns: int, rows: int) -> NDArray[np.float64]:
    """Centres of a grid of equal cells, row by row, shape (rows * columns, 2).

    They are the pixel centres of `camera.resized(columns, rows)`: the depths on the grid are that
    camera's depth image.
    """
    cells = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), axis=-1).reshape(-1, 2)
    cell = np.array([camera.width / columns, camera.height / rows])
    return (cells + 0.5) * cell - 0.5


class DepthTask(Task[DepthWording, ArrayLike, ArrayLike, DepthAnswers]):
    """Metric depth of pixels of one image.

    Asked are pixels (u, v), shape (n, 2); the truth is metres along Z, shape (n,).
    """

    wording = DepthWording
    title = "metric depth"

    @override
    def prompts(self, wording: DepthWording, views: ModelViews, asked: ArrayLike) -> list[Prompt]:
        coordinates = views.text_coordinates(_pixels(asked))
        return [
            Prompt(depth_question(wording, xy, views.text_range), wording.answer)
            for xy in coordinates.tolist()
        ]

    @override
    def read(
        self,
        wording: DepthWording,
        views: ModelViews,
        asked: ArrayLike,
        answers: Sequence[Answer],
    ) -> DepthAnswers:
        pixels, (unified,) = _pixels(asked), views.cameras
        depth = np.full(len(pixels), np.nan)
        std = np.full(len(pixels), np.nan)
        values = [read_answer(answer, partial(_metres, wording)) for answer in answers]
        for i, (answer, value) in enumerate(zip(answers, values, strict=True)):
            if isinstance(value, Missing):
                continue
            depth[i] = value
            if answer.std is not None:
                std[i] = answer.std
        return DepthAnswers(
            pixels,
            unified.metric_depth(depth).astype(np.float32),
            unified.metric_depth(std).astype(np.float32),
            tuple(map(answer_text, answers)),
            tuple(value if isinstance(value, Missing) else None for value in values),
        )

    @override
    def true_answers(
        self, wording: DepthWording, views: ModelViews, asked: ArrayLike, truth: ArrayLike
    ) -> Sequence[str]:
        # What the image looks like at the unified focal length.
        seen = np.asarray(truth) / views.cameras[0].metric_depth(1.0)
        return [depth_answer(wording, float(metres)) for metres in seen]


DEPTH = DepthTask()


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
        GeometryError: if the image does not fit its camera or the engine's limits, or a pixel does
            not lie in the image.
        EngineError: if the model did not learn metric depth, or cannot answer.
    """
    return ask(engine, [image], [camera], DEPTH, pixels, view_focal)


def _metres(wording: DepthWording, answer: Answer) -> float:
    # The engine's estimate errs less than the greedy text, see `Answer.value`.
    if answer.value is not None and answer.value > 0:
        return answer.value
    return parse_depth(answer.text, wording)


def _pixels(pixels: ArrayLike) -> NDArray[np.float64]:
    return np.asarray(pixels, dtype=float).reshape(-1, 2)
