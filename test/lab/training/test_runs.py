# SPDX-License-Identifier: Apache-2.0
"""Interruptions that a run survives, and errors for those that it does not."""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.utils.data import DataLoader
from transformers import TrainingArguments
from transformers.models.qwen3_vl import modeling_qwen3_vl

from vlm3_lab.studies.tasks.depth import evaluate_depth
from vlm3_lab.training.card import score_table
from vlm3_lab.training.config import (
    DataConfig,
    LoraConfig,
    OptimiserConfig,
    ProfileConfig,
    TrainingError,
    load_config,
)
from vlm3_lab.training.run_folder import claim
from vlm3_lab.training.sft import train
from vlm3_ros.engines.load import load_engine
from vlm3_ros.engines.settings import EngineSettings

# The recipe of the paper (its appendix A), in small.
RECIPE = """
shape: {vision_hidden: 32, vision_depth: 2, vision_heads: 2, hidden: 64, layers: 2, heads: 2,
        kv_heads: 1, intermediate: 96, position_grid: 8}
profile: {focal: 80.0, fit: pad, prompts: vlm3-short}
data: {questions: 4, workers: 0}
optimiser: {schedule: cosine, warmup: 0.25, learning_rate: 2.0e-3, beta2: 0.999, weight_decay: 0.0,
            clip: 0.02, batch_size: 1, accumulate: 2, steps: 4}
dtype: float32
gradient_checkpointing: true
evaluate_every: 2
evaluation_views: 0
"""

KILLED = """
import os, signal, sys
from vlm3_ros.cli import main
from vlm3_lab.training.packing import Packer

collate, batches = Packer.collate, []

def killing(self, samples):
    batches.append(samples)
    if len(batches) == 6:  # the second one of step 3
        os.kill(os.getpid(), signal.SIGKILL)
    return collate(self, samples)

Packer.collate = killing
main(["train", *sys.argv[1:]])
"""


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def config(recipe):
    return load_config(recipe)


@pytest.fixture(scope="module")
def whole_run(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    train(config, folder)
    return folder


def _weights(folder):
    return load_file(folder / "final" / "model.safetensors")


def _curve(folder):
    log = json.loads((folder / "log.json").read_text())
    return {entry["step"]: entry["loss"] for entry in log if "loss" in entry}


def _same(folder, other):
    assert _curve(folder) == pytest.approx(_curve(other), rel=1e-5)
    ours, theirs = _weights(folder), _weights(other)
    assert ours.keys() == theirs.keys()
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-5) for name in ours)


def test_the_rate_rises_and_falls_along_a_cosine(whole_run):
    log = json.loads((whole_run / "log.json").read_text())
    # The first of four steps warms up from zero; the cosine decays over the other three.
    rates = [entry["learning_rate"] for entry in log if "loss" in entry]
    assert rates == pytest.approx([2e-3, 2e-3 * 0.25])


def test_checkpointed_activations_change_nothing(whole_run, config, tmp_path):
    train(dataclasses.replace(config, gradient_checkpointing=False), tmp_path)
    _same(tmp_path, whole_run)


def test_a_killed_run_continues_along_the_same_curve(whole_run, recipe, tmp_path):
    """From its last complete checkpoint, not from a half-written one."""
    command = [sys.executable, "-c", KILLED, str(recipe), "--out", str(tmp_path)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == ["checkpoint-2"]
    half = tmp_path / "unfinished" / "checkpoint-3"
    half.mkdir(parents=True)
    (half / "model.safetensors").write_bytes(b"half")
    train(load_config(recipe), tmp_path)
    _same(tmp_path, whole_run)
    assert not half.exists()


@contextmanager
def files_up_to(size):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def _cut_off(run, folder):
    """A copy of a run as it was after its first checkpoint."""
    later = shutil.ignore_patterns("final", "checkpoint-4", "log.json", "curves.png")
    return shutil.copytree(run, folder, ignore=later)


def test_a_full_disk_leaves_the_checkpoint_before(whole_run, config, tmp_path):
    run = _cut_off(whole_run, tmp_path / "run")
    weights = (run / "checkpoint-2" / "model.safetensors").stat().st_size
    # The optimiser state, written after the weights, is twice as large.
    for size in (weights // 2, weights + 1000):
        with files_up_to(size), pytest.raises(TrainingError) as error:
            train(config, run)
        message = str(error.value)
        assert "the checkpoint of step 4 could not be written" in message
        assert f"{run / 'checkpoint-2'} is whole" in message
        assert "make room on the disk and run it again" in message
        assert not (run / "unfinished").exists()
    train(config, run)
    _same(run, whole_run)


def test_a_loss_that_is_not_finite_stops_the_run(config, tmp_path):
    optimiser = dataclasses.replace(config.optimiser, learning_rate=1e30)
    config = dataclasses.replace(config, optimiser=optimiser, evaluate_every=1)
    with pytest.raises(TrainingError, match=r"loss became (nan|inf) in step 3") as error:
        train(config, tmp_path)
    assert f"{tmp_path / 'checkpoint-2'} is from before" in str(error.value)
    assert "smaller optimiser.learning_rate" in str(error.value)


def test_a_folder_continues_only_the_same_run(whole_run, config):
    other = dataclasses.replace(
        config, optimiser=dataclasses.replace(config.optimiser, learning_rate=1e-3), seed=5
    )
    with pytest.raises(TrainingError) as error:
        train(other, whole_run)
    assert "optimiser.learning_rate is 0.002 there and 0.001 now; seed is 0 there" in str(
        error.value
    )
    # Another interval of scoring is still the same run.
    assert train(dataclasses.replace(config, evaluate_every=1), whole_run) == whole_run / "final"


def test_a_run_of_an_earlier_version_continues(config, tmp_path):
    """Its record has only the parts of a profile that were known then."""
    claim(tmp_path, config, 1)
    recorded = json.loads((tmp_path / "run.json").read_text())
    recorded["profile"] = {name: recorded["profile"][name] for name in ("focal", "fit", "prompts")}
    (tmp_path / "run.json").write_text(json.dumps(recorded))
    claim(tmp_path, config, 1)
    others = dataclasses.replace(config, profile=dataclasses.replace(config.profile, axes="fx"))
    with pytest.raises(TrainingError, match=r"profile\.axes is 'each' there"):
        claim(tmp_path, others, 1)


def test_the_result_comes_with_a_card(whole_run):
    card = (whole_run / "final" / "README.md").read_text()
    assert "| base model | random weights (seed 0) |" in card
    assert "| `optimiser.schedule` | cosine |" in card
    assert "model:=PATH" in card
    assert "asks it: images at a focal length of 80 px" in card
    assert (whole_run / "final" / "curves.png").is_file()


def test_a_table_of_many_scores_keeps_the_last_one():
    log = [{"step": step, "delta1": step / 100, "loss": 1.0} for step in range(1, 64)]
    *_, last = lines = score_table(log).splitlines()
    assert last == "| 63 | 0.630 |"
    assert len(lines) <= 22


def test_the_configuration_for_several_machines_can_be_read():
    from accelerate.commands.config.config_args import load_config_from_file

    path = Path(__file__).parents[3] / "config" / "accelerate" / "fsdp_hybrid.yaml"
    config = load_config_from_file(str(path))
    assert config.fsdp_config["fsdp_sharding_strategy"] == "HYBRID_SHARD"
    for name in config.fsdp_config["fsdp_transformer_layer_cls_to_wrap"].split(","):
        assert issubclass(getattr(modeling_qwen3_vl, name), torch.nn.Module)


def test_processes_share_the_batches(monkeypatch):
    """Each batch goes to one of two processes, also after a resume."""

    def batches(rank, done):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        stream = Numbered(done)
        loader = DataLoader(stream, batch_size=None, num_workers=2)
        return [batch for batch, _ in zip(loader, range(6), strict=False)]

    both = [batches(rank, 0) for rank in (0, 1)]
    assert sorted(both[0] + both[1]) == list(range(12))
    assert batches(1, 4) == [number + 4 for number in both[1]]


class Numbered(torch.utils.data.IterableDataset):
    def __init__(self, done):
        self.done = done

    def __iter__(self):
        from vlm3_lab.training.streams import worker_share

        share = worker_share(self.done)
        start = share.done + (share.number - share.done) % share.workers
        yield from range(start, start + 100 * share.workers, share.workers)


def test_two_processes_train_together_and_one_writes(recipe, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node", "2", "-m", "vlm3_ros.cli", "train", str(recipe)]
    command += ["--out", str(tmp_path), "--set", "optimiser.steps=2", "evaluate_every=2"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("wrote") == 1
    assert json.loads((tmp_path / "run.json").read_text())["processes"] == 2
    assert len(list((tmp_path / "checkpoint-2").glob("rng_state_*.pth"))) == 2
    assert _curve(tmp_path).keys() == {2}
    assert _weights(tmp_path)


def test_one_process_with_several_gpus_is_refused(config, tmp_path, monkeypatch):
    monkeypatch.setattr(TrainingArguments, "n_gpu", 2)
    with pytest.raises(TrainingError, match="2 GPUs: start one process per GPU"):
        train(config, tmp_path)


def test_adapters_need_peft_and_layers(config, tmp_path, monkeypatch):
    no_layer = dataclasses.replace(config, lora=LoraConfig(rank=2, targets=("query",)))
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(TrainingError, match="pip install peft"):
        train(no_layer, tmp_path)
    monkeypatch.undo()
    pytest.importorskip("peft")
    with pytest.raises(TrainingError, match="'query'"):
        train(no_layer, tmp_path)


def test_adapters_train_resume_and_are_merged(config, tmp_path):
    pytest.importorskip("peft")
    lora = LoraConfig(rank=4, alpha=8, dropout=0.2, targets=("q_proj", "up_proj"))
    optimiser = dataclasses.replace(config.optimiser, name="adamw", clip=1.0)
    config = dataclasses.replace(config, lora=lora, optimiser=optimiser)

    seen: list[Path] = []
    whole = train(config, tmp_path / "whole", score=lambda folder: seen.append(folder) or {})
    assert [folder.name for folder in seen] == ["merged", "merged"]
    cut = _cut_off(tmp_path / "whole", tmp_path / "cut")
    train(config, cut)
    _same(cut, tmp_path / "whole")

    start = load_file(tmp_path / "whole" / "start" / "model.safetensors")
    final = load_file(whole / "model.safetensors")
    assert start.keys() == final.keys()
    moved = {name for name in start if not torch.equal(start[name].bfloat16(), final[name])}
    assert moved
    assert all(name.endswith(("q_proj.weight", "up_proj.weight")) for name in moved)
    engine = load_engine(EngineSettings(str(whole), offline=True, max_new_tokens=8))
    assert evaluate_depth(engine, 1, 0, pixels_per_view=2).overall.model.pixels == 2


def test_a_model_option_keeps_its_profile_or_gets_that_of_the_recipe(whole_run, config, tmp_path):
    from vlm3_ros.engines.profiles import read_profile

    source = tmp_path / "source"
    source.mkdir()
    for path in (whole_run / "final").iterdir():
        if path.name != "vlm3.json":  # like a checkpoint of the hub
            (source / path.name).symlink_to(path)
    config = dataclasses.replace(
        config,
        model=str(source),
        profile=ProfileConfig(focal=96.0, fit="pad", prompts="vlm3-short"),
        optimiser=OptimiserConfig(batch_size=1, steps=1),
        data=DataConfig(questions=2, workers=0),
    )
    assert read_profile(train(config, tmp_path / "first")).focal == 96.0
    (source / "vlm3.json").symlink_to(whole_run / "final" / "vlm3.json")
    assert read_profile(train(config, tmp_path / "second")).focal == 80.0


def test_an_unknown_size_of_a_model_is_named(config, tmp_path):
    with pytest.raises(TrainingError, match="shape holds 'hiden'; known are vision_hidden"):
        train(dataclasses.replace(config, shape={"hiden": 64}), tmp_path)


def test_a_missing_model_is_named(config, tmp_path):
    from vlm3_ros.engines.base import EngineError

    with pytest.raises(EngineError, match="nowhere"):
        train(dataclasses.replace(config, model=str(tmp_path / "nowhere")), tmp_path / "run")
