# SPDX-License-Identifier: Apache-2.0
"""Every task gets its share of the batches, also after a resume."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from vlm3_lab.training import tasks
from vlm3_lab.training.config import DataConfig
from vlm3_lab.training.samples import ModelInput, Samples
from vlm3_lab.training.streams import WINDOW, MixedStream, SampleStream, task_order
from vlm3_lab.training.tasks import TASKS, task_samples

FIRST = {"depth": 0, "pairs": 1_000_000, "objects": 2_000_000}


@pytest.fixture(autouse=True)
def numbered_batches(monkeypatch):
    """Windows of numbers instead of samples; the numbers identify the task."""
    first = {task_samples(task): number for task, number in FIRST.items()}

    def window(stream, number):
        numbers = first[type(stream._samples)] + np.arange(WINDOW * 2) + number * WINDOW * 2
        return numbers.reshape(-1, 2)

    monkeypatch.setattr(SampleStream, "_window", window)


def batches(shares, start, count, workers):
    model = ModelInput(None, None, None)
    dataset = MixedStream(model, DataConfig(tasks=shares), 2, start=start * 2)
    stream = iter(DataLoader(dataset, batch_size=2, num_workers=workers))
    return [next(stream).tolist() for _ in range(count)]


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(FIRST, st.floats(0.01, 10))).filter(bool))
def test_shares_hold_after_any_number_of_batches(tasks):
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
def test_a_resumed_mixture_continues_with_the_next_batch(workers, done):
    assert batches(MIXED, done, 20, workers) == batches(MIXED, 0, done + 20, workers)[done:]


def test_every_module_of_a_task_is_found_and_the_first_ones_keep_their_order():
    folder = Path(tasks.__file__).parent
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    assert set(TASKS) == modules
    assert TASKS[:3] == ("depth", "pairs", "objects")
    assert all(issubclass(task_samples(task), Samples) for task in TASKS)


def test_no_batch_comes_twice():
    seen = [tuple(batch) for batch in batches(MIXED, 0, 60, 2)]
    assert len(set(seen)) == len(seen)
