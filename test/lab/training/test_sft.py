# SPDX-License-Identifier: Apache-2.0
"""A short training run from random weights, cut off and resumed."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from vlm3_lab.studies.tasks.depth import evaluate_depth
from vlm3_lab.training.config import (
    DataConfig,
    OptimiserConfig,
    ProfileConfig,
    TrainConfig,
    WarmupConfig,
)
from vlm3_lab.training.sft import train
from vlm3_ros.engines.load import load_engine
from vlm3_ros.engines.profiles import read_profile
from vlm3_ros.engines.settings import EngineSettings

pytestmark = pytest.mark.slow

CONFIG = TrainConfig(
    shape={
        "vision_hidden": 32,
        "vision_depth": 2,
        "vision_heads": 2,
        "hidden": 64,
        "layers": 2,
        "heads": 2,
        "kv_heads": 1,
        "intermediate": 96,
        "position_grid": 8,
    },
    profile=ProfileConfig(focal=80.0, fit="pad", prompts="vlm3-short"),
    warmup=WarmupConfig(
        DataConfig(repeats=2, workers=0), OptimiserConfig("muon", batch_size=2, steps=4, warmup=0.2)
    ),
    data=DataConfig(questions=4, workers=0),
    optimiser=OptimiserConfig("muon", batch_size=2, steps=6, learning_rate=2e-3, warmup=0.2),
    dtype="float32",
    evaluate_every=3,
)


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, train(CONFIG, folder)


def test_training_lowers_the_loss_and_leaves_a_checkpoint_that_answers(whole_run):
    folder, final = whole_run
    log = json.loads((folder / "log.json").read_text())
    losses = [entry["loss"] for entry in log if "loss" in entry]
    assert losses[-1] < losses[0]
    assert (folder / "curves.png").stat().st_size > 1000
    assert read_profile(final).focal == 80.0
    engine = load_engine(EngineSettings(str(final), offline=True, max_new_tokens=8))
    report = evaluate_depth(engine, 2, 0, pixels_per_view=3)
    assert report.overall.model.pixels == 6


def test_a_run_that_was_cut_off_reaches_the_same_weights(whole_run, tmp_path):
    _, final = whole_run

    class PowerCut(Exception):
        pass

    def cut(checkpoint):
        raise PowerCut

    with pytest.raises(PowerCut):
        train(CONFIG, tmp_path, score=cut)
    # The interval of scoring may change, and scores that the cut prevented are computed later.
    more_often = dataclasses.replace(CONFIG, evaluate_every=2)
    resumed = train(more_often, tmp_path, score=lambda checkpoint: {"delta1": 0.25})
    expected, weights = (load_file(folder / "model.safetensors") for folder in (final, resumed))
    assert expected.keys() == weights.keys()
    assert all(torch.allclose(expected[name], weights[name], atol=1e-5) for name in weights)
    log = json.loads((tmp_path / "log.json").read_text())
    scores = {entry["step"]: entry["delta1"] for entry in log if "delta1" in entry}
    assert scores == {3: 0.25, 4: 0.25, 6: 0.25}


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("done", [1, 5, 18, 37])
def test_a_resumed_stream_continues_with_the_next_batch(workers, done, monkeypatch):
    """Batches of windows are identified by number, without drawing them."""
    from torch.utils.data import DataLoader

    from vlm3_lab.training.samples import ModelInput
    from vlm3_lab.training.streams import WINDOW, SampleStream
    from vlm3_lab.training.tasks.depth import Questions

    monkeypatch.setattr(
        SampleStream,
        "_window",
        lambda self, number: np.arange(WINDOW * 2).reshape(-1, 2) + number * WINDOW * 2,
    )

    def batches(start, count):
        data = DataConfig()
        samples = Questions(ModelInput(None, None, None), data)
        dataset = SampleStream(samples, data, 2, start=start * 2)
        stream = iter(DataLoader(dataset, batch_size=2, num_workers=workers))
        return [next(stream).tolist() for _ in range(count)]

    assert batches(done, 20) == batches(0, done + 20)[done:]


def test_a_view_is_the_same_in_every_worker(whole_run):
    from vlm3_lab.training.streams import SampleStream, model_input
    from vlm3_lab.training.tasks.depth import Questions
    from vlm3_ros.engines.processor import load_processor

    _, final = whole_run
    model, data = model_input(load_processor(final), read_profile(final)), DataConfig(repeats=2)
    first, again = (SampleStream(Questions(model, data), data, 2) for _ in range(2))
    a, b = (list(dataset.samples_of(5)) for dataset in (first, again))
    assert len(a) == 2
    for one, other in zip(a, b, strict=True):
        assert all(np.array_equal(x, y) for x, y in zip(one.blocks, other.blocks, strict=True))
        assert torch.equal(one.pixel_values, other.pixel_values)
    assert not torch.equal(a[0].pixel_values, a[1].pixel_values), "the second one is mirrored"
    assert any(not np.array_equal(x, y) for x, y in zip(a[0].blocks, a[1].blocks, strict=True))
