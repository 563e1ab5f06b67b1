# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from dataset_folder import write_dataset

from vlm3_lab.cli.train import held_out_frames, score_checkpoint
from vlm3_lab.training.config import (
    DataConfig,
    OptimiserConfig,
    SourceConfig,
    TrainConfig,
    WarmupConfig,
)
from vlm3_ros.cli import main
from vlm3_ros.datasets.views import View
from vlm3_ros.geometry.camera import PinholeCamera


def test_a_run_leaves_a_scored_checkpoint_and_its_curve(
    training_run: Path, training_log: list[dict[str, float]]
) -> None:
    assert (training_run / "final" / "model.safetensors").is_file()
    assert cv2.imread(str(training_run / "curves.png")) is not None
    (scored,) = [entry for entry in training_log if "delta1" in entry]
    assert scored["step"] == 60
    assert 0 <= scored["delta1"] <= 1
    assert scored["abs_rel"] > 0


def _dataset(folder: Path, frames: int) -> Path:
    """A set made by `vlm3 dataset`, all of whose frames are held out."""
    rng = np.random.default_rng(0)
    view = View(
        rng.integers(0, 255, (48, 64, 3), np.uint8),
        np.full((48, 64), 2.5, np.float32),
        PinholeCamera(64, 48, 40.0, 40.0, 31.5, 23.5),
        np.eye(4),
        "room",
    )
    write_dataset(folder, [view] * frames, held_out=range(frames))
    return folder


def _config(evaluation_views: int = 2, **folders: Path) -> TrainConfig:
    sources = {name: SourceConfig(dataset=str(folder)) for name, folder in folders.items()}
    return TrainConfig(data=DataConfig(sources=sources), evaluation_views=evaluation_views)


def test_held_out_frames_of_a_dataset_score_a_run(checkpoint: Path, tmp_path: Path) -> None:
    config = _config(own=_dataset(tmp_path / "own", 3), other=_dataset(tmp_path / "other", 2))
    held_out = held_out_frames(config)
    assert [Path(source.name).name for source, _ in held_out] == ["own", "other"]
    assert [frames for _, frames in held_out] == [[0], [0]]
    scores = score_checkpoint(checkpoint, config, held_out)
    assert set(scores) == {"delta1", "abs_rel", "held_out_delta1", "held_out_abs_rel"}
    assert 0 <= scores["held_out_delta1"] <= 1


@pytest.mark.parametrize("steps", [0, 5])
def test_frames_that_a_run_learns_from_do_not_score_it(tmp_path: Path, steps: int) -> None:
    own = _config(own=_dataset(tmp_path / "own", 3))
    every = DataConfig(sources={"all": SourceConfig(dataset=str(tmp_path / "own"), frames="all")})
    assert held_out_frames(TrainConfig(data=every)) == []
    warmup = WarmupConfig(every, OptimiserConfig(steps=steps))
    frames = held_out_frames(replace(own, warmup=warmup))
    assert bool(frames) == (steps == 0), "a warm-up learns, too"


def test_a_value_of_the_command_is_checked_like_one_of_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("seed: 1")
    assert main(["train", str(path), "--out", str(tmp_path / "out"), "--set", "dtype=int8"]) == 2
    assert f"{path} with dtype=int8: dtype is 'int8'" in capsys.readouterr().err
