# SPDX-License-Identifier: Apache-2.0
"""Training batches of several tasks, mixed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count, islice
from typing import Any, ClassVar

from torch.utils.data import IterableDataset

from vlm3_lab.training.config import DataConfig
from vlm3_lab.training.objects import ObjectQuestions
from vlm3_lab.training.packing import PackedSample
from vlm3_lab.training.pairs import PairQuestions
from vlm3_lab.training.samples import DepthQuestions, SampleStream, worker_share
from vlm3_lab.training.sources import Sources
from vlm3_ros.engines.base import Profile
from vlm3_ros.geometry.camera import ImageLimits

STREAMS: dict[str, type[SampleStream[Any, PackedSample]]] = {
    "depth": DepthQuestions,
    "pairs": PairQuestions,
    "objects": ObjectQuestions,
}
"""Stream of each of `config.TASKS`."""


class MixedQuestions(IterableDataset[PackedSample]):
    """Batches of the tasks of `data`, one task per batch, in their configured shares."""

    streams: ClassVar[Mapping[str, type[SampleStream[Any, PackedSample]]]] = STREAMS

    def __init__(
        self,
        processor: Any,
        profile: Profile,
        limits: ImageLimits,
        data: DataConfig,
        batch_size: int,
        start: int = 0,
    ):
        self._shares = {task: data.share(task) for task in self.streams if data.share(task)}
        self.sources = Sources(data)
        self._streams = {
            task: stream(processor, profile, limits, data, batch_size, sources=self.sources)
            for task, stream in self.streams.items()
            if task in self._shares
        }
        self._done = start // batch_size

    def __iter__(self) -> Iterator[PackedSample]:
        """Yield the samples of one worker."""
        share = worker_share(self._done)
        tasks = islice(task_order(self._shares), share.number, None, share.workers)
        had = list(islice(tasks, len(range(share.number, share.done, share.workers))))
        batches = {
            task: stream.batches(share, had.count(task)) for task, stream in self._streams.items()
        }
        for task in tasks:
            yield from next(batches[task])


def task_order(shares: Mapping[str, float]) -> Iterator[str]:
    """Yield the task of each batch, spread evenly.

    Args:
        shares: of at most three tasks; they add up to 1.

    Yields:
        The task that is most behind its share. After any number of batches each task is within one
        batch of its share.
    """
    had = dict.fromkeys(shares, 0)
    for number in count(1):
        task = max(shares, key=lambda task: number * shares[task] - had[task])
        had[task] += 1
        yield task
