# SPDX-License-Identifier: Apache-2.0
"""Batches of every task come in the share that is asked for, also after a resume."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from vlm3_lab.training.config import DataConfig
from vlm3_lab.training.mixture import STREAMS, MixedQuestions, task_order
from vlm3_lab.training.samples import WINDOW, ViewStream


class Numbers(ViewStream):
    """Windows of numbers instead of pictures."""

    first = 0

    def _window(self, number):
        return self.first + np.arange(WINDOW * 2).reshape(-1, 2) + number * WINDOW * 2

    def sample(self, scene, rng):
        raise NotImplementedError

    def length(self, sample):
        raise NotImplementedError


FIRST = {"depth": 0, "pairs": 1_000_000, "objects": 2_000_000}


@pytest.fixture(autouse=True)
def numbered_batches(monkeypatch):
    """The numbers tell the tasks apart."""
    for task, first in FIRST.items():
        monkeypatch.setitem(STREAMS, task, type(task, (Numbers,), {"first": first}))


def batches(tasks, start, count, workers):
    dataset = MixedQuestions(None, None, None, DataConfig(tasks=tasks), 2, start=start * 2)
    stream = iter(DataLoader(dataset, batch_size=2, num_workers=workers))
    return [next(stream).tolist() for _ in range(count)]


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(FIRST, st.floats(0.01, 10))).filter(bool))
def test_shares_are_kept_over_any_stretch(tasks):
    data = DataConfig(tasks=tasks)
    shares = {task: data.share(task) for task in tasks}
    assert sum(shares.values()) == pytest.approx(1)
    order = list(islice(task_order(shares), 200))
    for task, share in shares.items():
        had = np.cumsum([one == task for one in order])
        assert (np.abs(had - share * np.arange(1, 201)) < 1).all()


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_of_the_task_whose_turn_it_is(workers):
    tasks = {"depth": 2.0, "pairs": 1.0, "objects": 0.0}
    seen = [batch[0] // 1_000_000 for batch in batches(tasks, 0, 60, workers)]
    assert (seen.count(0), seen.count(1), seen.count(2)) == (40, 20, 0)


MIXED = {"depth": 1.0, "pairs": 0.5, "objects": 0.7}


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("done", [1, 7, 18])
def test_a_resumed_mixture_goes_on_with_the_batch_that_comes_next(workers, done):
    assert batches(MIXED, done, 20, workers) == batches(MIXED, 0, done + 20, workers)[done:]


def test_no_batch_comes_twice():
    seen = [tuple(batch) for batch in batches(MIXED, 0, 60, 2)]
    assert len(set(seen)) == len(seen)
