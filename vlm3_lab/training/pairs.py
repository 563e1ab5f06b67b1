# SPDX-License-Identifier: Apache-2.0
"""Training samples of two views: relative pose and correspondence, from pairs of views."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from vlm3_lab.scenes.pairs import GAPS, ViewPair
from vlm3_lab.training.packing import PackedSample, Packer, QuestionAnswer
from vlm3_lab.training.samples import Sample, SampleStream, mirrored, sample_pixels
from vlm3_lab.training.sources import MixedScenes, Sources
from vlm3_ros.geometry.camera import UnifiedCamera, text_coordinates
from vlm3_ros.geometry.images import unify_image
from vlm3_ros.geometry.motion import Transform, motion_parts, seen_motion
from vlm3_ros.language.prompts import (
    PromptSet,
    correspondence_answer,
    correspondence_question,
    pose_answers,
)
from vlm3_ros.tasks.pose import pose_questions

CANDIDATES = 16
"""Pixels that are drawn for every match that is asked: the other view shows a quarter at least."""


class PairStream(SampleStream[ViewPair, Sample]):
    """Samples of pairs of views.

    Of each pair: as it is, mirrored, once more, and mirrored with its views exchanged, so that a
    quarter of all motions is backwards.
    """

    gaps = GAPS

    def scenes(self, sources: Sources) -> MixedScenes[ViewPair]:
        """See the base class."""
        return sources.pairs(self.gaps)

    def is_enough(self, scene: ViewPair) -> bool:
        """Pairs are drawn by what their views share."""
        return True

    def variant(self, scene: ViewPair, repeat: int) -> ViewPair:
        """See the base class."""
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
        """The model's views of a pair, with questions about them."""
        images = [unify_image(pair.first.image, first), unify_image(pair.second.image, second)]
        return Packer(self._processor).pack(images, questions)


class PairQuestions(PairStream[PackedSample]):
    """`data.matches` matches or as many as there are and, with `data.pose`, the motion's three."""

    def sample(self, scene: ViewPair, rng: np.random.Generator) -> PackedSample:
        """See the base class."""
        first, second = self.unified(scene.first), self.unified(scene.second)
        candidates = sample_pixels(scene.first, CANDIDATES * self._data.matches, rng)
        pixels2 = scene.matches(candidates)
        found = np.flatnonzero(np.isfinite(pixels2[:, 0]))[: self._data.matches]
        prompts = self._profile.prompts
        questions = [
            *(pose_pairs(prompts, scene.T_cam1_cam2, first) if self._data.pose else ()),
            *match_pairs(prompts, candidates[found], pixels2[found], first, second),
        ]
        return self.pack(scene, first, second, questions)

    def length(self, sample: PackedSample) -> int:
        """Tokens of the prefix, nearly all of them of the images."""
        return len(sample.prefix_ids)


def pose_pairs(
    prompts: PromptSet, T_cam1_cam2: Transform, first: UnifiedCamera
) -> list[QuestionAnswer]:
    """The three pose questions with the answers that a motion has."""
    assert prompts.pose is not None
    parts = motion_parts(seen_motion(T_cam1_cam2, first))
    answers = pose_answers(prompts.pose, parts.distance, parts.direction, parts.yaw_pitch_roll_deg)
    return list(zip(pose_questions(prompts.pose), answers, strict=True))


def match_pairs(
    prompts: PromptSet,
    pixels1: NDArray[np.float64],
    pixels2: NDArray[np.float64],
    first: UnifiedCamera,
    second: UnifiedCamera,
) -> list[QuestionAnswer]:
    """Match questions with true answers, for pixels of the source images, shape (n, 2) each."""
    assert prompts.correspondence is not None
    asked, answered = (
        text_coordinates(
            unified.to_view(pixels), unified.view.width, unified.view.height, prompts.text_range
        )
        for unified, pixels in ((first, pixels1), (second, pixels2))
    )
    return [
        (
            correspondence_question(prompts.correspondence, xy1, prompts.text_range),
            correspondence_answer(prompts.correspondence, xy2, prompts.text_range),
        )
        for xy1, xy2 in zip(asked, answered, strict=True)
    ]
