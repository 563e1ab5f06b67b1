# SPDX-License-Identifier: Apache-2.0
"""Training samples of metric depth: random pixels of a view."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from vlm3_lab.scenes import View
from vlm3_lab.training.samples import ViewSamples, sample_pixels
from vlm3_ros.engines.base import Profile
from vlm3_ros.geometry.camera import ImageLimits, text_coordinates, unify_focal
from vlm3_ros.geometry.images import unify_image
from vlm3_ros.language.prompts import depth_answer, depth_question

if TYPE_CHECKING:
    from vlm3_lab.training.packing import PackedSample, QuestionAnswer


class Questions(ViewSamples["PackedSample"]):
    """Packed depth questions about `data.questions` random pixels of every view."""

    @override
    def sample(self, scene: View, rng: np.random.Generator) -> PackedSample:
        pixels = sample_pixels(scene, self._data.questions, rng)
        image, pairs = depth_pairs(scene, pixels, self._model.profile, self._model.limits)
        return self._model.packer.pack([image], pairs)

    @override
    def length(self, sample: PackedSample) -> int:
        return len(sample.prefix_ids)


def depth_pairs(
    view: View, pixels: NDArray[np.float64], profile: Profile, limits: ImageLimits
) -> tuple[NDArray[np.uint8], list[QuestionAnswer]]:
    """The image of a view as the model sees it, and depth questions with true answers.

    Args:
        pixels: (u, v) whole numbers, shape (n, 2), at which the view's depth is finite.
    """
    unified = unify_focal(view.camera, profile.focal, limits, profile.fit)
    coordinates = text_coordinates(
        unified.to_view(pixels), unified.view.width, unified.view.height, profile.prompts.text_range
    )
    columns, rows = pixels.astype(int).T
    # The inverse of `metric_depth`: answers are depths at the unified focal length.
    answers = view.depth[rows, columns] / unified.metric_depth(1.0)
    pairs = [
        (depth_question(profile.prompts, xy), depth_answer(profile.prompts, float(z)))
        for xy, z in zip(coordinates, answers, strict=True)
    ]
    return unify_image(view.image, unified), pairs
