# SPDX-License-Identifier: Apache-2.0
"""Training samples from scenes: an endless stream that any worker can start at any batch."""

from __future__ import annotations

import dataclasses
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import IterableDataset, get_worker_info
from typing_extensions import override

from vlm3_lab.scenes import View
from vlm3_lab.training.config import DataConfig
from vlm3_lab.training.packing import PackedSample, Packer, QuestionAnswer
from vlm3_lab.training.sources import MixedScenes, Scene, Sources
from vlm3_ros.engines.base import Profile
from vlm3_ros.geometry.camera import ImageLimits, UnifiedCamera
from vlm3_ros.geometry.images import unify_image
from vlm3_ros.tasks.depth import DEPTH
from vlm3_ros.tasks.task import ModelViews, model_views, true_pairs

TRAINING_STREAM = 0x7A11
"""First word of every training seed; evaluations use other words."""

Sample = TypeVar("Sample")

_MIRROR_WORLD, _MIRROR_CAMERA = np.diag([1.0, -1, 1, 1]), np.diag([-1.0, 1, 1, 1])

WINDOW = 4
"""Batches per window: scenes are drawn per window and sorted by length, to save padding."""


def depth_pairs(
    view: View, pixels: NDArray[np.float64], profile: Profile, limits: ImageLimits
) -> tuple[NDArray[np.uint8], list[QuestionAnswer]]:
    """Return the image that the model sees of a view, and depth questions with true answers.

    Args:
        pixels: (u, v) whole numbers, shape (n, 2), at which the view's depth is finite.
    """
    views = model_views(profile, limits, [view.camera])
    columns, rows = pixels.astype(int).T
    pairs = true_pairs(DEPTH, profile.prompts, views, pixels, view.depth[rows, columns])
    return unify_image(view.image, views.cameras[0]), pairs


def sample_pixels(view: View, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw random pixels with a finite depth, shape (count, 2); fewer if the view has fewer."""
    rows, columns = np.nonzero(np.isfinite(view.depth))
    chosen = rng.choice(len(rows), min(count, len(rows)), replace=False)
    return np.stack([columns[chosen], rows[chosen]], -1).astype(float)


def mirrored(view: View) -> View:
    """Mirror the view and the world, left and right exchanged."""
    camera = view.camera
    objects = tuple(
        dataclasses.replace(
            thing, centre=thing.centre * _MIRROR_WORLD.diagonal()[:3], yaw=-thing.yaw
        )
        for thing in view.objects
    )
    return dataclasses.replace(
        view,
        image=np.ascontiguousarray(view.image[:, ::-1]),
        depth=np.ascontiguousarray(view.depth[:, ::-1]),
        camera=dataclasses.replace(camera, cx=camera.width - 1 - camera.cx),
        # The world's y and the camera's x change sign: a rotation stays one.
        T_world_camera=_MIRROR_WORLD @ view.T_world_camera @ _MIRROR_CAMERA,
        objects=objects,
    )


@dataclass(frozen=True)
class WorkerShare:
    """Batches that a worker makes: batch i if i % workers == number, over all processes.

    `done`: batches that a resumed run has already used.
    """

    number: int
    workers: int
    done: int


def worker_share(done: int) -> WorkerShare:
    """Return the share of this worker of this process.

    The environment variables of torch launchers, which workers inherit, give the rank and the
    number of processes.
    """
    worker = get_worker_info()
    number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
    rank, processes = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    # Workers deliver batches in turn; after `done` batches it is another worker's turn.
    turn = (number + done // processes) % workers
    return WorkerShare(turn * processes + rank, workers * processes, done)


class SampleStream(IterableDataset[Sample], ABC, Generic[Scene, Sample]):
    """Samples of scenes from `sources`, by default those of `data`.

    Scene i of a seed is always the same, in any worker. It gives `data.repeats` samples, shuffled
    among those of its window: rendering costs a CPU as much as training on the image. `start`
    skips samples without drawing them, for a resumed run.
    """

    def __init__(
        self,
        processor: Any,
        profile: Profile,
        limits: ImageLimits,
        data: DataConfig,
        batch_size: int,
        start: int = 0,
        sources: Sources | None = None,
    ):
        self._processor, self._profile, self._limits = processor, profile, limits
        self._data, self._batch_size, self._start = data, batch_size, start
        self.sources = sources or Sources(data)
        self._scenes = self.scenes(self.sources)

    @abstractmethod
    def scenes(self, sources: Sources) -> MixedScenes[Scene]:
        """Return the scenes that this stream asks about."""

    @abstractmethod
    def is_enough(self, scene: Scene) -> bool:
        """Whether a scene shows enough to ask about; otherwise another one is drawn."""

    @abstractmethod
    def variant(self, scene: Scene, repeat: int) -> Scene:
        """Return the scene that sample number `repeat` is made from, such as its mirror image."""

    @abstractmethod
    def sample(self, scene: Scene, rng: np.random.Generator) -> Sample:
        """Make one sample."""

    def length(self, sample: Any) -> int:
        """Cost of a sample: batches are made of samples of similar length.

        For packed samples, the tokens of the prefix, nearly all of them of the images.
        """
        return len(sample.prefix_ids)

    def model_views(self, *views: View) -> ModelViews:
        """Return how views enter the model."""
        return model_views(self._profile, self._limits, [view.camera for view in views])

    def unified(self, view: View) -> UnifiedCamera:
        """Return how one view enters the model."""
        return self.model_views(view).cameras[0]

    def scene(self, index: int) -> Scene:
        """Draw scene number `index` of this seed."""
        return self._scenes.draw(self._rng(index), self.is_enough)

    def samples_of(self, index: int) -> Iterator[Sample]:
        """Make the samples of scene number `index`."""
        scene = self.scene(index)
        for repeat in range(self._data.repeats):
            # Zeros at the end of a seed have no effect: repeat 0 would get the scene's own random
            # numbers again, and the same pixels whenever a source draws that scene.
            yield self.sample(self.variant(scene, repeat), self._rng(index, repeat + 1))

    def __iter__(self) -> Iterator[Sample]:
        """Yield the samples of one worker."""
        share = worker_share(self._start // self._batch_size)
        for batch in self.batches(share, len(range(share.number, share.done, share.workers))):
            yield from batch

    def batches(self, share: WorkerShare, skip: int) -> Iterator[list[Sample]]:
        """Yield the batches of every n-th window for n workers, after the first `skip`."""
        windows, skipped = divmod(skip, WINDOW * self._data.repeats)
        number = share.number + windows * share.workers
        while True:
            yield from self._window(number)[skipped:]
            number, skipped = number + share.workers, 0

    def _window(self, number: int) -> list[list[Sample]]:
        """Make the batches of a window, in random order, each of samples of similar length."""
        scenes = WINDOW * self._batch_size
        samples = [
            sample
            for index in range(number * scenes, (number + 1) * scenes)
            for sample in self.samples_of(index)
        ]
        rng = self._rng(number)
        rng.shuffle(samples)  # otherwise the repeats of a scene would stay together
        samples.sort(key=self.length)
        size = self._batch_size
        order = rng.permutation(WINDOW * self._data.repeats)
        return [samples[i * size : (i + 1) * size] for i in order]

    def _rng(self, *index: int) -> np.random.Generator:
        return np.random.default_rng([TRAINING_STREAM, self._data.seed, *index])


class ViewStream(SampleStream[View, Sample]):
    """Samples of single views, every second one mirrored."""

    task = "depth"

    @override
    def scenes(self, sources: Sources) -> MixedScenes[View]:
        return sources.views(self.task)

    def is_enough(self, scene: View) -> bool:
        """Whether enough pixels have a depth."""
        return bool(np.isfinite(scene.depth).sum() >= self._data.questions)

    @override
    def variant(self, scene: View, repeat: int) -> View:
        return mirrored(scene) if repeat % 2 else scene


class DepthQuestions(ViewStream[PackedSample]):
    """Packed depth questions about `data.questions` random pixels of every view."""

    def sample(self, scene: View, rng: np.random.Generator) -> PackedSample:
        """Ask about random pixels of the view."""
        pixels = sample_pixels(scene, self._data.questions, rng)
        image, pairs = depth_pairs(scene, pixels, self._profile, self._limits)
        return Packer(self._processor).pack([image], pairs)
