# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from vlm3_lab.cli.train import held_out_images, score_checkpoint
from vlm3_lab.training.config import (
    DataConfig,
    OptimiserConfig,
    SourceConfig,
    TrainConfig,
    WarmupConfig,
)
from vlm3_ros.cli import main


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
    """The held-out half of a set made by `vlm3 dataset`."""
    folder.mkdir()
    cv2.imwrite(str(folder / "image.png"), np.full((48, 64, 3), 90, np.uint8))
    line = {"image": "image.png", "intrinsics": [40, 40, 31.5, 23.5, 64, 48]}
    line |= {"pixel_coords": [[5, 7], [30, 20]], "depth": [2.0, 3.5]}
    (folder / "held_out.jsonl").write_text(f"{json.dumps(line)}\n" * frames)
    return folder


def _config(evaluation_views: int = 2, **folders: Path) -> TrainConfig:
    sources = {name: SourceConfig(dataset=str(folder)) for name, folder in folders.items()}
    return TrainConfig(data=DataConfig(sources=sources), evaluation_views=evaluation_views)


def test_held_out_frames_of_a_dataset_score_a_run(checkpoint: Path, tmp_path: Path) -> None:
    config = _config(own=_dataset(tmp_path / "own", 3), other=_dataset(tmp_path / "other", 2))
    held_out = held_out_images(config)
    assert [image.image.parent.name for image in held_out] == ["own", "other"]
    scores = score_checkpoint(checkpoint, config, held_out)
    assert set(scores) == {"delta1", "abs_rel", "held_out_delta1", "held_out_abs_rel"}
    assert 0 <= scores["held_out_delta1"] <= 1


@pytest.mark.parametrize("steps", [0, 5])
def test_frames_that_a_run_learns_from_do_not_score_it(tmp_path: Path, steps: int) -> None:
    own = _config(own=_dataset(tmp_path / "own", 3))
    every = DataConfig(sources={"all": SourceConfig(dataset=str(tmp_path / "own"), frames="all")})
    assert held_out_images(TrainConfig(data=every)) == []
    warmup = WarmupConfig(every, OptimiserConfig(steps=steps))
    images = held_out_images(replace(own, warmup=warmup))
    assert bool(images) == (steps == 0), "a warm-up learns, too"


def test_a_value_of_the_command_is_checked_like_one_of_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("seed: 1")
    assert main(["train", str(path), "--out", str(tmp_path / "out"), "--set", "dtype=int8"]) == 2
    assert f"{path} with dtype=int8: dtype is 'int8'" in capsys.readouterr().err
