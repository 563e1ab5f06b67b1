# SPDX-License-Identifier: Apache-2.0
"""Training samples of two views: relative pose and correspondence, from pairs of views."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from typing_extensions import override

from vlm3_lab.scenes.pairs import GAPS, ViewPair
from vlm3_lab.training.packing import PackedSample, Packer, QuestionAnswer
from vlm3_lab.training.samples import Sample, SampleStream, mirrored, sample_pixels
from vlm3_lab.training.sources import MixedScenes, Sources
from vlm3_ros.geometry.camera import UnifiedCamera
from vlm3_ros.geometry.images import unify_image
from vlm3_ros.tasks.correspondence import CORRESPONDENCE
from vlm3_ros.tasks.pose import POSE
from vlm3_ros.tasks.task import true_pairs

CANDIDATES = 16
"""Pixels drawn per match: the other view shows at least a quarter of them."""


class PairStream(SampleStream[ViewPair, Sample]):
    """Samples of pairs of views.

    Repeats of a pair: unchanged, mirrored, unchanged, and mirrored with its views exchanged. So a
    quarter of all motions is backwards.
    """

    gaps = GAPS

    @override
    def scenes(self, sources: Sources) -> MixedScenes[ViewPair]:
        return sources.pairs(self.gaps)

    def is_enough(self, scene: ViewPair) -> bool:
        """Every pair is: pairs are drawn by what their views share."""
        return True

    @override
    def variant(self, scene: ViewPair, repeat: int) -> ViewPair:
        if repeat % 2:
            scene = replace(scene, first=mirrored(scene.first), second=mirrored(scene.second))
        return scene.exchanged() if repeat % 4 == 3 else scene

    def pack(
        self,
        pair: ViewPair,
        first: UnifiedCamera,
        second: UnifiedCamera,
        questions: Sequence[QuestionAnswer],
    ) -> PackedSample:
        """Pack the model's views of a pair with questions about them."""
        images = [unify_image(pair.first.image, first), unify_image(pair.second.image, second)]
        return Packer(self._processor).pack(images, questions)


class PairQuestions(PairStream[PackedSample]):
    """Questions about up to `data.matches` matches and, with `data.pose`, about the motion."""

    @override
    def sample(self, scene: ViewPair, rng: np.random.Generator) -> PackedSample:
        views = self.model_views(scene.first, scene.second)
        first, second = views.cameras
        candidates = sample_pixels(scene.first, CANDIDATES * self._data.matches, rng)
        pixels2 = scene.matches(candidates)
        found = np.flatnonzero(np.isfinite(pixels2[:, 0]))[: self._data.matches]
        prompts, questions = self._profile.prompts, []
        if self._data.pose:
            questions += true_pairs(POSE, prompts, views, None, scene.T_cam1_cam2)
        questions += true_pairs(CORRESPONDENCE, prompts, views, candidates[found], pixels2[found])
        return self.pack(scene, first, second, questions)
