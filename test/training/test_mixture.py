"""Batches of views and of pairs come in the share that is asked for, also after a resume."""

from __future__ import annotations

import numpy as np
import pytest
from torch.utils.data import DataLoader

from vlm3_ros.engines.base import Profile
from vlm3_ros.language.prompts import load_prompt_set
from vlm3_ros.training.checkpoint import build_processor, build_tokenizer
from vlm3_ros.training.config import DataConfig
from vlm3_ros.training.mixture import MixedQuestions
from vlm3_ros.training.pairs import ProceduralPairs
from vlm3_ros.training.samples import WINDOW, ProceduralDepth

PROFILE = Profile(128.0, "pad", load_prompt_set("vlm3-short"))
PROCESSOR = build_processor(build_tokenizer(PROFILE.prompts))


@pytest.fixture(autouse=True)
def numbered_batches(monkeypatch):
    """Windows of numbers instead of pictures: positive ones of views, negative ones of pairs."""
    for stream, sign in ((ProceduralDepth, 1), (ProceduralPairs, -1)):

        def window(self, number, sign=sign):
            return sign * (1 + np.arange(WINDOW * 2).reshape(-1, 2) + number * WINDOW * 2)

        monkeypatch.setattr(stream, "_window", window)


def batches(share, start, count, workers):
    data = DataConfig(tasks={"depth": 1 - share, "pairs": share})
    dataset = MixedQuestions(PROCESSOR, PROFILE, None, data, 2, start=start * 2)
    stream = iter(DataLoader(dataset, batch_size=2, num_workers=workers))
    return [next(stream).tolist() for _ in range(count)]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 1.0])
def test_the_share_is_kept_over_any_stretch(share):
    of_pairs = [batch[0] < 0 for batch in batches(share, 0, 100, 1)]
    for end in range(1, 101):
        assert abs(sum(of_pairs[:end]) - share * end) < 1


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("done", [1, 7, 18])
def test_a_resumed_mixture_goes_on_with_the_batch_that_comes_next(workers, done):
    assert batches(0.6, done, 20, workers) == batches(0.6, 0, done + 20, workers)[done:]


def test_no_batch_comes_twice():
    seen = [tuple(batch) for batch in batches(0.5, 0, 60, 2)]
    assert len(set(seen)) == len(seen)
