# SPDX-License-Identifier: Apache-2.0
"""Training samples of metric depth: random pixels of a view."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from vlm3_lab.training.samples import ModelInput, ViewSamples, sample_pixels
from vlm3_ros.datasets.views import View
from vlm3_ros.geometry.images import unify_image
from vlm3_ros.tasks.depth import DEPTH
from vlm3_ros.tasks.task import true_pairs

if TYPE_CHECKING:
    from vlm3_lab.training.packing import PackedSample, QuestionAnswer


class Questions(ViewSamples["PackedSample"]):
    """Packed depth questions about `data.questions` random pixels of every view."""

    wordings = (DEPTH.name,)

    @override
    def sample(self, scene: View, rng: np.random.Generator) -> PackedSample:
        pixels = sample_pixels(scene, self._data.questions, rng)
        image, pairs = depth_pairs(scene, pixels, self._model)
        return self._model.packer.pack([image], pairs)


def depth_pairs(
    view: View, pixels: NDArray[np.float64], model: ModelInput
) -> tuple[NDArray[np.uint8], list[QuestionAnswer]]:
    """The image of a view as the model sees it, and depth questions with true answers.

    Args:
        pixels: (u, v) whole numbers, shape (n, 2), at which the view's depth is finite.
    """
    views = model.views(view)
    columns, rows = pixels.astype(int).T
    pairs = true_pairs(DEPTH, model.profile.prompts, views, pixels, view.depth[rows, columns])
    return unify_image(view.image, views.cameras[0]), pairs
