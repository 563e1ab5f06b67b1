# SPDX-License-Identifier: Apache-2.0
"""Training samples of two views: relative pose and correspondence, from pairs of views."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from vlm3_lab.scenes.view_pairs import ViewPair
from vlm3_lab.training.samples import PairSamples, sample_pixels
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

if TYPE_CHECKING:
    from vlm3_lab.training.packing import PackedSample, QuestionAnswer

CANDIDATES = 16
"""Pixels that are drawn per match: the other view shows at least a quarter of them."""


class Questions(PairSamples["PackedSample"]):
    """Up to `data.matches` matches of a pair and, with `data.pose`, the three pose questions."""

    wordings = ("pose", "correspondence")

    @override
    def sample(self, scene: ViewPair, rng: np.random.Generator) -> PackedSample:
        first, second = self._model.unified(scene.first), self._model.unified(scene.second)
        candidates = sample_pixels(scene.first, CANDIDATES * self._data.matches, rng)
        pixels2 = scene.matches(candidates)
        matched = np.flatnonzero(np.isfinite(pixels2[:, 0]))[: self._data.matches]
        prompts = self._model.profile.prompts
        questions = [
            *(pose_pairs(prompts, scene.T_cam1_cam2, first) if self._data.pose else ()),
            *match_pairs(prompts, candidates[matched], pixels2[matched], first, second),
        ]
        images = [unify_image(scene.first.image, first), unify_image(scene.second.image, second)]
        return self._model.packer.pack(images, questions)

    @override
    def length(self, sample: PackedSample) -> int:
        return len(sample.prefix_ids)


def pose_pairs(
    prompts: PromptSet, T_cam1_cam2: Transform, first: UnifiedCamera
) -> list[QuestionAnswer]:
    """The three pose questions with the true answers for a motion."""
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
