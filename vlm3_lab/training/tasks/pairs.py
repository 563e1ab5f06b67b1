# SPDX-License-Identifier: Apache-2.0
"""Training samples of two views: relative pose and correspondence, from pairs of views."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from typing_extensions import override

from vlm3_lab.training.config import DataConfig
from vlm3_lab.training.samples import PairSamples, sample_pixels
from vlm3_ros.datasets.views import ViewPair
from vlm3_ros.geometry.images import unify_image
from vlm3_ros.tasks.correspondence import CORRESPONDENCE
from vlm3_ros.tasks.pose import POSE
from vlm3_ros.tasks.task import true_pairs

if TYPE_CHECKING:
    from vlm3_lab.training.packing import PackedSample

CANDIDATES = 16
"""Pixels that are drawn per match: the other view shows at least a quarter of them."""


class Questions(PairSamples["PackedSample"]):
    """Up to `data.matches` matches of a pair and, with `data.pose`, the questions about pose.

    The distance is not asked where the scale is unknown.
    """

    wordings = (POSE.name, CORRESPONDENCE.name)

    @override
    @classmethod
    def asked(cls, data: DataConfig) -> tuple[str, ...]:
        is_asked = {POSE.name: data.pose, CORRESPONDENCE.name: bool(data.matches)}
        return tuple(name for name in cls.wordings if is_asked[name])

    @override
    def sample(self, scene: ViewPair, rng: np.random.Generator) -> PackedSample:
        candidates = sample_pixels(scene.first, CANDIDATES * self._data.matches, rng)
        pixels2 = scene.matches(candidates)
        matched = np.flatnonzero(np.isfinite(pixels2[:, 0]))[: self._data.matches]
        prompts, views = self._model.profile.prompts, self._model.views(scene.first, scene.second)
        questions = []
        if self._data.pose:
            parts = prompts[POSE.wording].parts
            asked = true_pairs(POSE, prompts, views, None, scene.T_cam1_cam2)
            questions += [
                pair
                for part, pair in zip(parts, asked, strict=True)
                if scene.is_metric or part != "distance"
            ]
        if self._data.matches:
            questions += true_pairs(
                CORRESPONDENCE, prompts, views, candidates[matched], pixels2[matched]
            )
        images = (scene.first.image, scene.second.image)
        seen = [unify_image(*one) for one in zip(images, views.cameras, strict=True)]
        return self._model.packer.pack(seen, questions)
