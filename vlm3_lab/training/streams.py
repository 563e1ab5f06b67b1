# SPDX-License-Identifier: Apache-2.0
"""Endless streams of training samples that any worker can start anywhere."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count, islice
from typing import Any, Generic

import numpy as np
from torch.utils.data import IterableDataset, get_worker_info

from vlm3_lab.training.config import DataConfig
from vlm3_lab.training.packing import PackedSample, Packer
from vlm3_lab.training.samples import ModelInput, Sample, Samples
from vlm3_lab.training.sources import Scene, Sources
from vlm3_lab.training.tasks import TASKS, task_samples
from vlm3_ros.engines.base import Profile
from vlm3_ros.engines.processor import image_limits

TRAINING_STREAM = 0x7A11
"""First word of every training seed; evaluations start theirs with another one."""

WINDOW = 4
"""Batches whose scenes are drawn together and sorted by length, so that padding costs little."""


def model_input(processor: Any, profile: Profile) -> ModelInput:
    """How views and questions enter a checkpoint with this processor and profile."""
    return ModelInput(Packer(processor), profile, image_limits(processor))


@dataclass(frozen=True)
class WorkerShare:
    """Which batches a worker makes: batch i if i % workers == number, over all processes.

    `done`: batches that a resumed run has had.
    """

    number: int
    workers: int
    done: int


def worker_share(done: int) -> WorkerShare:
    """The share of this worker of this process.

    The rank of the process and the number of processes come from the environment: torch's
    launchers set them there, and workers inherit them.
    """
    worker = get_worker_info()
    number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
    rank, processes = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    # Batches come from the workers in turn; after `done` of them it is another one's turn.
    turn = (number + done // processes) % workers
    return WorkerShare(turn * processes + rank, workers * processes, done)


class SampleStream(IterableDataset[Sample], Generic[Scene, Sample]):
    """Samples of scenes that are drawn from `sources`, by default those of `data`.

    Scene i of a seed is always the same, whichever worker draws it. It gives `data.repeats`
    samples, which are shuffled among those of its window: rendering a picture costs a CPU as much
    as training on it. `start` skips samples without drawing them, to resume a run.
    """

    def __init__(
        self,
        samples: Samples[Scene, Sample],
        data: DataConfig,
        batch_size: int,
        start: int = 0,
        sources: Sources | None = None,
    ):
        self._samples = samples
        self._data, self._batch_size, self._start = data, batch_size, start
        self.sources = sources or Sources(data)
        self._scenes = samples.scenes(self.sources)

    def scene(self, index: int) -> Scene:
        """Draw scene number `index` of this seed."""
        return self._scenes.draw(self._rng(index), self._samples.is_enough)

    def samples_of(self, index: int) -> Iterator[Sample]:
        """Make the samples of scene number `index`."""
        scene, make = self.scene(index), self._samples
        for repeat in range(self._data.repeats):
            # Not 0: zeros at the end of a seed do not count, so 0 would repeat the numbers that
            # drew the scene.
            yield make.sample(make.variant(scene, repeat), self._rng(index, repeat + 1))

    def __iter__(self) -> Iterator[Sample]:
        """The samples of one worker."""
        share = worker_share(self._start // self._batch_size)
        for batch in self.batches(share, len(range(share.number, share.done, share.workers))):
            yield from batch

    def batches(self, share: WorkerShare, skip: int) -> Iterator[list[Sample]]:
        """Every n-th window of n workers, without the first `skip` batches of these windows."""
        windows, skipped = divmod(skip, WINDOW * self._data.repeats)
        number = share.number + windows * share.workers
        while True:
            yield from self._window(number)[skipped:]
            number, skipped = number + share.workers, 0

    def _window(self, number: int) -> list[list[Sample]]:
        """Batches of samples of similar length each, in random order."""
        scenes = WINDOW * self._batch_size
        samples = [
            sample
            for index in range(number * scenes, (number + 1) * scenes)
            for sample in self.samples_of(index)
        ]
        rng = self._rng(number)
        rng.shuffle(samples)  # otherwise the repeats of a scene would stay together
        samples.sort(key=self._samples.length)
        size = self._batch_size
        order = rng.permutation(WINDOW * self._data.repeats)
        return [samples[i * size : (i + 1) * size] for i in order]

    def _rng(self, *index: int) -> np.random.Generator:
        return np.random.default_rng([TRAINING_STREAM, self._data.seed, *index])


def stream_of(
    samples: Callable[..., Samples[Scene, Sample]],
) -> Callable[..., SampleStream[Scene, Sample]]:
    """A function that builds streams of one kind of samples."""

    def stream(
        model: ModelInput, data: DataConfig, batch_size: int, start: int = 0
    ) -> SampleStream[Scene, Sample]:
        return SampleStream(samples(model, data), data, batch_size, start)

    return stream


class MixedStream(IterableDataset[PackedSample]):
    """Batches of the tasks in `data.tasks`, one task per batch, in the configured shares.

    `samples`: makes the samples of each task; by default every task's own questions.
    """

    def __init__(
        self,
        model: ModelInput,
        data: DataConfig,
        batch_size: int,
        start: int = 0,
        samples: Mapping[str, type[Samples[Any, PackedSample]]] | None = None,
    ):
        self._shares = {task: data.share(task) for task in TASKS if data.share(task)}
        self.sources = Sources(data)
        makers = samples or {task: task_samples(task) for task in self._shares}
        self._streams = {
            task: SampleStream(makers[task](model, data), data, batch_size, sources=self.sources)
            for task in self._shares
        }
        self._done = start // batch_size

    def __iter__(self) -> Iterator[PackedSample]:
        """The samples of one worker."""
        share = worker_share(self._done)
        tasks = islice(task_order(self._shares), share.number, None, share.workers)
        had = list(islice(tasks, len(range(share.number, share.done, share.workers))))
        batches = {
            task: stream.batches(share, had.count(task)) for task, stream in self._streams.items()
        }
        for task in tasks:
            yield from next(batches[task])


def task_order(shares: Mapping[str, float]) -> Iterator[str]:
    """Spread the tasks of batches evenly.

    Args:
        shares: of at most three tasks; they add up to 1.

    Yields:
        The task that is farthest behind, the first of `shares` if several are. After any number
        of batches the count of each task is within one batch of its share.
    """
    had = dict.fromkeys(shares, 0)
    for number in count(1):
        task = max(shares, key=lambda task: number * shares[task] - had[task])
        had[task] += 1
        yield task
