"""The stream that a run learns from: questions about single views and about pairs, mixed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from torch.utils.data import IterableDataset

from vlm3_ros.engines.base import Profile
from vlm3_ros.geometry.camera import ImageLimits
from vlm3_ros.training.config import DataConfig
from vlm3_ros.training.packing import PackedSample
from vlm3_ros.training.pairs import ProceduralPairs
from vlm3_ros.training.samples import ProceduralDepth, SampleStream, worker_share


class MixedQuestions(IterableDataset[PackedSample]):
    """Batches of depth questions and batches of pairs, `data.pairs` of them of the latter."""

    def __init__(
        self,
        processor: Any,
        profile: Profile,
        limits: ImageLimits,
        data: DataConfig,
        batch_size: int,
        start: int = 0,
    ):
        arguments = processor, profile, limits, data, batch_size
        self._streams: tuple[SampleStream[Any, PackedSample], ...] = (
            ProceduralDepth(*arguments),
            ProceduralPairs(*arguments),
        )
        self._pairs = data.pairs
        self._done = start // batch_size

    def __iter__(self) -> Iterator[PackedSample]:
        """The samples of one worker."""
        share = worker_share(self._done)
        had = [self._task(i) for i in range(share.number, share.done, share.workers)]
        batches = [
            stream.batches(share, had.count(task)) for task, stream in enumerate(self._streams)
        ]
        for number in itertools.count(share.number + len(had) * share.workers, share.workers):
            yield from next(batches[self._task(number)])

    def _task(self, batch: int) -> int:
        """Spread evenly: the share of pairs is right after any number of batches."""
        return int((batch + 1) * self._pairs) - int(batch * self._pairs)
