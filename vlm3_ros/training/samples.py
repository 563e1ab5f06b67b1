"""Training samples from procedural scenes: an endless stream that any worker can start anywhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import IterableDataset, get_worker_info

from vlm3_ros.engines.base import Profile
from vlm3_ros.geometry.camera import ImageLimits, text_coordinates, unify_focal
from vlm3_ros.geometry.images import unify_image
from vlm3_ros.language.prompts import depth_answer, depth_question
from vlm3_ros.synthetic import KINDS, View, sample_view
from vlm3_ros.training.packing import PackedSample, Packer, QuestionAnswer

TRAINING_STREAM = 0x7A11
"""First word of every training seed; evaluations start theirs with another one."""

WINDOW = 8
"""Batches that are drawn together and sorted by length, so that little padding is computed."""


def depth_pairs(
    view: View, pixels: NDArray[np.float64], profile: Profile, limits: ImageLimits
) -> tuple[NDArray[np.uint8], list[QuestionAnswer]]:
    """The picture that the model sees of a view, and depth questions with true answers.

    Args:
        pixels: (u, v) whole numbers, shape (n, 2), at which the view's depth is finite.
    """
    unified = unify_focal(view.camera, profile.focal, limits, profile.fit)
    coordinates = text_coordinates(
        unified.to_view(pixels), unified.view.width, unified.view.height, profile.prompts.text_range
    )
    columns, rows = pixels.astype(int).T
    # The inverse of `metric_depth`: what the view looks like at the unified focal length.
    answers = view.depth[rows, columns] / unified.metric_depth(1.0)
    pairs = [
        (depth_question(profile.prompts, xy), depth_answer(profile.prompts, float(z)))
        for xy, z in zip(coordinates, answers, strict=True)
    ]
    return unify_image(view.image, unified), pairs


def sample_pixels(view: View, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Random pixels with a finite depth, shape (count, 2); fewer rows where there are fewer."""
    rows, columns = np.nonzero(np.isfinite(view.depth))
    chosen = rng.choice(len(rows), min(count, len(rows)), replace=False)
    return np.stack([columns[chosen], rows[chosen]], -1).astype(float)


class ProceduralDepth(IterableDataset[PackedSample]):
    """Packed depth samples of endless procedural scenes.

    Sample i of a seed is always the same; `start` skips samples without drawing them, for a run
    that resumes.
    """

    def __init__(
        self,
        processor: Any,
        profile: Profile,
        limits: ImageLimits,
        *,
        kinds: Sequence[str] = (),
        questions: int = 10,
        seed: int = 1,
        batch_size: int = 16,
        start: int = 0,
    ):
        self._packer = Packer(processor)
        self._profile, self._limits = profile, limits
        self._kinds = tuple(kinds) or KINDS
        self._questions, self._seed = questions, seed
        self._batch_size, self._start = batch_size, start

    def sample(self, index: int) -> PackedSample:
        """Sample number `index` of this seed: one view, its questions and their true answers."""
        rng = np.random.default_rng(np.random.SeedSequence([TRAINING_STREAM, self._seed, index]))
        while True:
            view = sample_view(rng, self._kinds[rng.integers(len(self._kinds))])
            pixels = sample_pixels(view, self._questions, rng)
            if len(pixels) == self._questions:
                break
        image, pairs = depth_pairs(view, pixels, self._profile, self._limits)
        return self._packer.pack([image], pairs)

    def __iter__(self) -> Iterator[PackedSample]:
        worker = get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        # Rendering beside a training process: one thread each, or they starve one another.
        torch.set_num_threads(1)
        window = WINDOW * self._batch_size
        number = self._start // window + first
        while True:
            samples = [self.sample(number * window + i) for i in range(window)]
            samples.sort(key=lambda s: len(s.prefix_ids))
            order = np.random.default_rng([self._seed, number]).permutation(WINDOW)
            for batch in order:
                yield from samples[batch * self._batch_size : (batch + 1) * self._batch_size]
            number += step
