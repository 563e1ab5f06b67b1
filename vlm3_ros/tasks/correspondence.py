# SPDX-License-Identifier: Apache-2.0
"""Where pixels of one image are in another: one question per pixel (paper section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray
from typing_extensions import override

from vlm3_ros.engines.base import Answer, Engine
from vlm3_ros.language.answers import AnswerError
from vlm3_ros.language.wordings.correspondence import (
    CorrespondenceWording,
    correspondence_answer,
    correspondence_question,
    parse_point,
)
from vlm3_ros.tasks.reading import Missing, answer_text, faulty, read_answer
from vlm3_ros.tasks.task import CameraPair, ImagePair, ModelViews, Prompt, Task, ask


@dataclass(frozen=True)
class Matches:
    """Pixels of a first image and where the second one shows the same.

    `pixels1`: (u, v) of the first source image, shape (n, 2). `pixels2`: of the second one, shape
    (n, 2), NaN if the answer could not be read or lies outside of the image. `texts`: the raw
    answers; the reason in brackets if the model gave no answer. `missing`: why a pixel has no
    match, one per pixel, None if it has one.
    """

    pixels1: NDArray[np.float64]
    pixels2: NDArray[np.float64]
    texts: tuple[str, ...]
    missing: tuple[Missing | None, ...] = ()

    @property
    def failures(self) -> int:
        """Number of pixels without an answer."""
        return int(np.isnan(self.pixels2).any(axis=1).sum())

    @property
    def faulty(self) -> NDArray[np.bool_]:
        """Mask of the pixels about which the engine had no answer, shape (n,)."""
        return faulty(self.missing)

    def without_faulty(self) -> Matches:
        """Return the matches without those about which the engine had no answer."""
        kept = np.flatnonzero(~self.faulty)
        return Matches(
            self.pixels1[kept],
            self.pixels2[kept],
            tuple(self.texts[i] for i in kept),
            tuple(self.missing[i] for i in kept),
        )


class CorrespondenceTask(Task[CorrespondenceWording, ArrayLike, ArrayLike, Matches]):
    """Matches of two images.

    Asked are pixels (u, v) of the first image, shape (n, 2); the truth is those of the second.
    """

    wording = CorrespondenceWording
    title = "correspondence"

    @override
    def prompts(
        self, wording: CorrespondenceWording, views: ModelViews, asked: ArrayLike
    ) -> list[Prompt]:
        coordinates = views.text_coordinates(_pixels(asked))
        return [
            Prompt(correspondence_question(wording, xy, views.text_range)) for xy in coordinates
        ]

    @override
    def read(
        self,
        wording: CorrespondenceWording,
        views: ModelViews,
        asked: ArrayLike,
        answers: Sequence[Answer],
    ) -> Matches:
        pixels1 = _pixels(asked)
        pixels2 = np.full(pixels1.shape, np.nan)
        matched = [read_answer(answer, partial(_match, wording, views)) for answer in answers]
        for i, pixel in enumerate(matched):
            if not isinstance(pixel, Missing):
                pixels2[i] = pixel
        return Matches(
            pixels1,
            pixels2,
            tuple(map(answer_text, answers)),
            tuple(pixel if isinstance(pixel, Missing) else None for pixel in matched),
        )

    @override
    def true_answers(
        self, wording: CorrespondenceWording, views: ModelViews, asked: ArrayLike, truth: ArrayLike
    ) -> Sequence[str]:
        coordinates = views.text_coordinates(_pixels(truth), image=1)
        return [correspondence_answer(wording, xy, views.text_range) for xy in coordinates]


CORRESPONDENCE = CorrespondenceTask()


def ask_matches(
    engine: Engine, images: ImagePair, cameras: CameraPair, pixels: ArrayLike
) -> Matches:
    """Ask where pixels of the first image are in the second one.

    Args:
        images: rectified RGB, shape (camera.height, camera.width, 3) each, uint8.
        cameras: their intrinsics.
        pixels: (u, v) in the first image, shape (n, 2).

    Raises:
        GeometryError: if an image does not fit its camera or the engine's limits, or a pixel lies
            outside of the first image.
        EngineError: if the model did not learn correspondence, or cannot answer.
    """
    return ask(engine, images, cameras, CORRESPONDENCE, pixels)


def _match(
    wording: CorrespondenceWording, views: ModelViews, answer: Answer
) -> NDArray[np.float64]:
    xy = parse_point(answer.text, wording, views.text_range, answer.is_cut)
    pixel = views.source_pixels(xy, image=1)
    source = views.cameras[1].source
    # The padding of a view belongs to no image.
    if not (pixel < (source.width - 0.5, source.height - 0.5)).all():
        raise AnswerError(answer.text, "out of range")
    return pixel


def _pixels(pixels: ArrayLike) -> NDArray[np.float64]:
    return np.asarray(pixels, dtype=float).reshape(-1, 2)
