# SPDX-License-Identifier: Apache-2.0
"""Where pixels of one image are in another: one question per pixel (paper section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlm3_ros.engines.base import Answer, Engine, EngineError
from vlm3_ros.geometry.camera import UnifiedCamera, pixels_from_text, text_coordinates
from vlm3_ros.language.answers import AnswerError, parse_point
from vlm3_ros.language.prompts import CorrespondencePrompt, correspondence_question
from vlm3_ros.tasks.views import CameraPair, ImagePair, view_pair


@dataclass(frozen=True)
class Matches:
    """Pixels of a first image and where the second one shows the same.

    `pixels1`: (u, v) of the first source image, shape (n, 2). `pixels2`: of the second one, shape
    (n, 2), NaN where the answer could not be read or lies outside of the image. `texts`: the raw
    answers.
    """

    pixels1: NDArray[np.float64]
    pixels2: NDArray[np.float64]
    texts: tuple[str, ...]

    @property
    def failures(self) -> int:
        """Number of pixels without an answer."""
        return int(np.isnan(self.pixels2).any(axis=1).sum())


def ask_matches(
    engine: Engine, images: ImagePair, cameras: CameraPair, pixels: ArrayLike
) -> Matches:
    """Ask where pixels of the first image are in the second one.

    Args:
        images: rectified RGB, shape (camera.height, camera.width, 3) each, uint8.
        cameras: their intrinsics.
        pixels: (u, v) in the first image, shape (n, 2).

    Raises:
        GeometryError: when an image does not fit its camera or the engine's limits, or a pixel
            lies outside of the first image.
        EngineError: when the model did not learn correspondence, or cannot answer at all.
    """
    prompts = correspondence_prompts(engine)
    views = view_pair(engine, images, cameras)
    text_range = engine.profile.prompts.text_range
    questions = match_questions(prompts, text_range, views.first, pixels)
    answers = engine.ask(views.images, questions)
    return read_matches(answers, prompts, text_range, views.second, pixels)


def correspondence_prompts(engine: Engine) -> CorrespondencePrompt:
    """The engine's wording of correspondence.

    Raises:
        EngineError: when it has none.
    """
    prompts = engine.profile.prompts
    if prompts.correspondence is None:
        raise EngineError(
            f"{engine.name} did not learn correspondence: its prompt set '{prompts.name}' has no "
            "question for it; choose a checkpoint that did"
        )
    return prompts.correspondence


def match_questions(
    prompts: CorrespondencePrompt, text_range: int, first: UnifiedCamera, pixels: ArrayLike
) -> list[str]:
    """One question for each pixel (u, v) of the first image, shape (n, 2).

    Raises:
        GeometryError: when a pixel lies outside of the image.
    """
    view = first.view
    pixels = first.to_view(np.asarray(pixels, dtype=float).reshape(-1, 2))
    coordinates = text_coordinates(pixels, view.width, view.height, text_range)
    return [correspondence_question(prompts, xy, text_range) for xy in coordinates]


def read_matches(
    answers: Sequence[Answer],
    prompts: CorrespondencePrompt,
    text_range: int,
    second: UnifiedCamera,
    pixels: ArrayLike,
) -> Matches:
    """The matches of the answers to `match_questions`.

    Args:
        second: how the second image entered the model.
        pixels: that were asked, shape (n, 2).
    """
    view, source = second.view, second.source
    pixels = np.asarray(pixels, dtype=float).reshape(-1, 2)
    found = np.full(pixels.shape, np.nan)
    for i, answer in enumerate(answers):
        try:
            xy = parse_point(answer.text, prompts, text_range)
        except AnswerError:
            continue
        pixel = second.to_source(pixels_from_text(xy, view.width, view.height, text_range))
        # The padding of a view belongs to no image.
        if (pixel < (source.width - 0.5, source.height - 0.5)).all():
            found[i] = pixel
    return Matches(pixels, found, tuple(answer.text for answer in answers))
